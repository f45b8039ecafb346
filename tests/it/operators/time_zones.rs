//! An update of the time zone rules: the statistics that older rules computed are
//! found and corrected.

use chrono::{Days, NaiveDate, TimeDelta};
use eventlog::clock;
use serde_json::{Value, json};
use tests::app::{self, SETTLE};
use tests::process::{Process, command};
use tests::reader::{client, id};
use tests::stack::TestEnv;
use tests::zoneinfo::Zoneinfo;
use tests::{Reader, Stack, eventually};
use uuid::Uuid;

use super::Finished;
use super::doctor::finding;

const ROLES: [&str; 4] = ["api", "relay", "projections", "jobs"];

async fn run(env: &TestEnv, rules: &Zoneinfo, arguments: &[&str]) -> Finished {
    let mut command = command(env);
    let output = command.env("TZDIR", rules.path()).args(arguments).output();
    Finished::new(output.await.unwrap())
}

/// The state and the details of the check of the time zone rules.
async fn doctor(env: &TestEnv, rules: &Zoneinfo) -> (String, String) {
    // The test server runs without fsync.
    let findings = run(env, rules, &["doctor", "-o", "json"]).await.json(1);
    let (state, details) = finding(&findings, "time zones");
    (state.to_owned(), details.to_owned())
}

/// The version in the list of projections.
async fn tzdata(env: &TestEnv, rules: &Zoneinfo, projection: &str) -> Value {
    let all = run(env, rules, &["projections", "-o", "json"])
        .await
        .json(0);
    let mut all = all.as_array().unwrap().iter();
    let found = all.find(|one| one["name"] == projection).unwrap();
    found["tzdata"].clone()
}

async fn replay(env: &TestEnv, rules: &Zoneinfo) {
    eventually("no other work on the projection", SETTLE, async || {
        let replayed = run(env, rules, &["replay", "daily_stats"]).await;
        (!replayed.err.contains("running elsewhere")).then(|| {
            let _ = replayed.expect_code(0);
        })
    })
    .await;
}

/// A service whose processes have certain rules, with one reader.
struct Deployment {
    env: TestEnv,
    process: Process,
    reader: Uuid,
}

impl Deployment {
    async fn start(env: TestEnv, rules: &Zoneinfo) -> Self {
        Self {
            process: Process::start_roles(&env, &ROLES, &[("TZDIR", rules.path())]).await,
            env,
            reader: Uuid::new_v4(),
        }
    }

    /// Replaces the process by one with other rules.
    async fn restart(self, rules: &Zoneinfo) -> Self {
        assert!(self.process.terminate().await.success());
        Self {
            process: Process::start_roles(&self.env, &ROLES, &[("TZDIR", rules.path())]).await,
            ..self
        }
    }

    fn reader(&self) -> Reader {
        let token = app::token(self.reader);
        Reader::new(client(), self.process.url.clone(), self.reader, token)
    }

    /// Reads for two minutes from 20:00 UTC on, in Vancouver.
    async fn read(&self, date: NaiveDate) {
        let begin = date.and_hms_opt(20, 0, 0).unwrap().and_utc();
        let start = json!({
            "book_id": Uuid::new_v4(), "occurred_at": begin, "time_zone": "America/Vancouver",
        });
        let session = id(&self.reader().start_with(start).await.ok());
        let end = json!({ "end_position": 10, "occurred_at": begin + TimeDelta::minutes(2) });
        let _ = self.reader().end(session, end).await.ok();
    }

    /// The days with reading, newest first.
    async fn days(&self) -> Vec<NaiveDate> {
        let pool = app::pool(&self.env).await;
        app::settled(&pool, &self.env).await;
        let reader = self.reader();
        let days = reader.call(reqwest::Method::GET, "/stats/daily?days=40", None);
        let days = days.await.ok();
        let days = days["days"].as_array().unwrap().iter();
        days.map(|day| day["date"].as_str().unwrap().parse().unwrap())
            .collect()
    }
}

/// In the newer rules, Vancouver has the time of Tokyo, so 20:00 UTC is on the next day.
#[tokio::test]
async fn statistics_of_older_rules_are_found_by_doctor_and_corrected_by_a_replay() {
    let old = Zoneinfo::new("2098a");
    let new = Zoneinfo::new("2099a").with_rules("America/Vancouver", "Asia/Tokyo");
    let stack = Stack::shared().await;
    let deployment = Deployment::start(stack.new_env().await, &old).await;
    let env = deployment.env.clone();
    let today = clock::now().date_naive();
    let day = |days_ago| today - Days::new(days_ago);

    deployment.read(day(20)).await;
    assert_eq!(deployment.days().await, [day(20)]);
    assert_eq!(tzdata(&env, &old, "daily_stats").await, "2098a");
    assert_eq!(tzdata(&env, &old, "history").await, Value::Null);
    let (state, details) = doctor(&env, &old).await;
    assert_eq!(
        (state.as_str(), details),
        ("ok", format!("2098a ({})", old.path()))
    );

    // The machine is updated. Without a replay, only new reading is on the right day.
    let expected = "daily_stats was computed with version 2098a of the time zone rules, and this \
                    machine has 2099a; run `reading-sessions replay daily_stats`";
    let warning = || ("warning".to_owned(), expected.to_owned());
    assert_eq!(doctor(&env, &new).await, warning());
    let deployment = deployment.restart(&new).await;
    deployment.read(day(10)).await;
    assert_eq!(deployment.days().await, [day(9), day(20)]);
    assert_eq!(doctor(&env, &new).await, warning());
    let verified = run(&env, &new, &["verify", "daily_stats"]).await;
    let out = verified.expect_code(1);
    assert!(out.contains("computed with version 2098a"), "{out}");

    replay(&env, &new).await;
    assert_eq!(deployment.days().await, [day(9), day(19)]);
    assert_eq!(tzdata(&env, &new, "daily_stats").await, "2099a");
    assert_eq!(doctor(&env, &new).await.0, "ok");
    let verified = run(&env, &new, &["verify", "daily_stats"]).await;
    let _ = verified.expect_code(0);

    // A machine that was not updated takes over.
    let deployment = deployment.restart(&old).await;
    deployment.read(day(5)).await;
    assert_eq!(deployment.days().await, [day(5), day(9), day(19)]);
    assert_eq!(doctor(&env, &new).await, warning());
    replay(&env, &new).await;
    assert_eq!(deployment.days().await, [day(4), day(9), day(19)]);
    assert_eq!(doctor(&env, &new).await.0, "ok");
    let (state, details) = doctor(&env, &old).await;
    assert_eq!(state, "ok");
    assert!(details.contains("projections use 2099a"), "{details}");
}
