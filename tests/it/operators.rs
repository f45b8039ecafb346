//! The operator commands of the command line: list, pause, replay and verify
//! projections, handle dead letters, and run the doctor. The service continues to
//! run during each command.

mod dead_letters;
mod doctor;
mod health;
mod time_zones;
mod verify;

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tests::app::SETTLE;
use tests::process::command;
use tests::reader::id;
use tests::stack::TestEnv;
use tests::{App, eventually, invariants, until};
use tokio::process::Child;
use uuid::Uuid;

const PROJECTIONS: [&str; 3] = ["active_sessions", "daily_stats", "history"];

/// The exit code and output of a finished command.
struct Finished {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Finished {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks the exit code and returns the standard output.
    #[track_caller]
    fn expect_code(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        &self.out
    }

    #[track_caller]
    fn json(&self, code: i32) -> Value {
        serde_json::from_str(self.expect_code(code)).unwrap()
    }
}

async fn run(env: &TestEnv, arguments: &[&str]) -> Finished {
    Finished::new(command(env).args(arguments).output().await.unwrap())
}

/// Runs a replay. Jobs that run after the start of the service exclude it for a
/// moment.
async fn replay(env: &TestEnv, name: &str) -> Finished {
    eventually("no other work on the projection", SETTLE, async || {
        let finished = run(env, &["replay", name]).await;
        (!finished.err.contains("running elsewhere")).then_some(finished)
    })
    .await
}

/// Starts a command that the test interrupts.
fn spawn(env: &TestEnv, arguments: &[&str]) -> Child {
    command(env)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends SIGINT to a command, as Ctrl-C does.
async fn interrupt(child: &Child) {
    let pid = child.id().expect("the command is running").to_string();
    let mut kill = tokio::process::Command::new("kill");
    assert!(kill.args(["-INT", &pid]).status().await.unwrap().success());
}

async fn wait(child: Child) -> Finished {
    Finished::new(child.wait_with_output().await.unwrap())
}

/// The status of a projection in the output of `projections -o json`.
async fn projection_status(env: &TestEnv, name: &str) -> Value {
    let all = run(env, &["projections", "-o", "json"]).await.json(0);
    let mut all = all.as_array().unwrap().iter();
    all.find(|one| one["name"] == name).unwrap().clone()
}

/// A service with five readers who have two sessions each.
async fn after_reading() -> App {
    let app = App::start().await;
    for n in 0..5 {
        let reader = app.reader();
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        let _ = reader
            .end(session, json!({ "end_position": 10 }))
            .await
            .ok();
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        for position in 0..n {
            let _ = reader.update(session, f64::from(position)).await.ok();
        }
    }
    app.settled().await;
    app
}

async fn schemas(app: &App) -> Vec<String> {
    sqlx::query_scalar(
        "select nspname::text from pg_namespace
        where nspname like 'verify\\_%' or nspname like 'replay\\_%' order by 1",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn projections_are_listed_paused_and_resumed() {
    let app = after_reading().await;
    let env = &app.env.clone();
    for name in PROJECTIONS {
        until("a worker for each projection", 2 * SETTLE, async || {
            let status = projection_status(env, name).await;
            status["state"] == "running"
                && status["worker"].is_string()
                && status["position"] == status["head"]
        })
        .await;
    }
    let text = run(env, &["projections"]).await;
    for word in ["POSITION", "EVENTS/WRITE", "history", "running"] {
        assert!(text.expect_code(0).contains(word), "{}", text.out);
    }

    let paused = run(env, &["projections", "pause", "history"]).await;
    assert!(
        paused.expect_code(0).contains("has stopped"),
        "{}",
        paused.out
    );
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let status = projection_status(env, "history").await;
    assert_eq!(
        (&status["state"], &status["worker"]),
        (&json!("paused"), &json!(null))
    );
    assert_eq!(status["lag_events"], 1);
    let again = run(env, &["projections", "pause", "history"]).await;
    assert!(
        again.expect_code(0).contains("No worker was running."),
        "{}",
        again.out
    );
    let _ = run(env, &["projections", "resume", "history"])
        .await
        .expect_code(0);
    invariants::check(&app).await;

    app.stop().await;
    let status = projection_status(env, "history").await;
    assert_eq!(status["state"], "stopped");
}

#[tokio::test]
async fn unknown_projection_name_lists_the_valid_names() {
    let env = tests::Stack::shared().await.new_env().await;
    for arguments in [
        &["replay", "cooks"][..],
        &["verify", "history", "cooks"],
        &["projections", "pause", "cooks"],
        &["dead-letters", "--projection", "cooks"],
    ] {
        let finished = run(&env, arguments).await;
        assert_eq!(finished.code, Some(2), "{arguments:?}");
        assert!(
            finished
                .err
                .contains("history, daily_stats, active_sessions"),
            "{}",
            finished.err
        );
    }
}

#[tokio::test]
async fn unreachable_postgres_is_named_and_sets_the_exit_code() {
    let mut env = tests::Stack::shared().await.new_env().await;
    env.database_url = "postgres://tester@127.0.0.1:1/absent".to_owned();
    for (arguments, code) in [
        (&["projections"][..], 1),
        (&["replay", "history"], 1),
        (&["verify"], 3),
        (&["dead-letters"], 1),
    ] {
        let finished = run(&env, arguments).await;
        assert_eq!(finished.code, Some(code), "{arguments:?}: {}", finished.err);
        assert!(
            finished
                .err
                .contains("cannot connect to Postgres at postgres://tester@127.0.0.1:1/absent"),
            "{}",
            finished.err
        );
        assert!(finished.err.contains("refused"), "{}", finished.err);
    }
}

#[tokio::test]
async fn replay_reports_its_work_and_keeps_the_rows() {
    let app = after_reading().await;
    for name in PROJECTIONS {
        let finished = replay(&app.env, name).await;
        let out = finished.expect_code(0);
        assert!(out.starts_with(&format!("{name}: ")), "{out}");
        assert!(out.contains("Queries "), "{out}");
    }
    assert_eq!(schemas(&app).await, [""; 0]);
    invariants::check(&app).await;
}

#[tokio::test]
async fn replay_keeps_grants_and_refuses_to_drop_a_view() {
    let app = App::start().await;
    for statement in [
        "grant select on read.history to pg_monitor",
        "create view public.ended as select * from read.history where ended_at is not null",
    ] {
        sqlx::query(statement).execute(&app.pool).await.unwrap();
    }
    let finished = replay(&app.env, "history").await;
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.err.contains("retired ones: ended;"),
        "{}",
        finished.err
    );
    sqlx::query("drop view public.ended")
        .execute(&app.pool)
        .await
        .unwrap();
    let finished = replay(&app.env, "history").await;
    let _ = finished.expect_code(0);
    assert_eq!(finished.err, "");
    let granted: bool =
        sqlx::query_scalar("select has_table_privilege('pg_monitor', 'read.history', 'select')")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    assert!(granted);
}

#[tokio::test]
async fn replay_refills_an_emptied_cache() {
    let app = App::start().await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let client = redis::Client::open(app.env.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.unwrap();
    let finished = replay(&app.env, "active_sessions").await;
    let _ = finished.expect_code(0);
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let key = format!("reading_session:active:{}", reader.id);
    let entry: String = redis::cmd("GET")
        .arg(key)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert!(entry.contains("book_id"), "{entry}");
}

#[tokio::test]
async fn interrupted_replay_reports_where_the_next_one_resumes() {
    let app = after_reading().await;
    let head = eventlog::read::head(&app.pool).await.unwrap();
    // The open transaction blocks the swap of the tables, so the replay retries.
    let reading = app.read_history().await;
    let blocked = spawn(&app.env, &["replay", "history"]);
    until(
        "the replay reaches the end of the log",
        2 * SETTLE,
        async || {
            let status = projection_status(&app.env, "history").await;
            status["replay"]["position"] == head && status["replay"]["running"] == true
        },
    )
    .await;
    let other = run(&app.env, &["replay", "history"]).await;
    assert_eq!(other.code, Some(1));
    assert!(other.err.contains("running elsewhere"), "{}", other.err);
    interrupt(&blocked).await;
    let finished = wait(blocked).await;
    assert_eq!(finished.code, Some(130), "{}", finished.err);
    let stopped = format!("history: stopped at global position {head}; the next replay resumes");
    assert!(finished.err.contains(&stopped), "{}", finished.err);
    assert_eq!(schemas(&app).await, ["replay_history"]);

    reading.rollback().await.unwrap();
    let finished = replay(&app.env, "history").await;
    let expected = format!("history: replayed 0 events after {head} in ");
    assert!(
        finished.expect_code(0).starts_with(&expected),
        "{}",
        finished.out
    );
    assert!(
        finished
            .err
            .contains(&format!("history: resuming after {head}")),
        "{}",
        finished.err
    );
    assert_eq!(schemas(&app).await, [""; 0]);
    invariants::check(&app).await;
}
