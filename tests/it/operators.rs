//! What operators do on the command line: look, hold, replay, compare, and deal
//! with what cannot be applied. Everything goes on meanwhile.

mod dead_letters;
mod doctor;
mod verify;

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tests::app::until;
use tests::process::command;
use tests::reader::id;
use tests::stack::Corner;
use tests::{App, check};
use tokio::process::Child;
use uuid::Uuid;

const PROJECTIONS: [&str; 3] = ["active_sessions", "daily_stats", "history"];

/// What a command came to.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Its output, when it ended so.
    #[track_caller]
    fn ended(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        &self.out
    }

    #[track_caller]
    fn json(&self, code: i32) -> Value {
        serde_json::from_str(self.ended(code)).unwrap()
    }
}

async fn run(corner: &Corner, arguments: &[&str]) -> Said {
    Said::of(command(corner).args(arguments).output().await.unwrap())
}

/// Begins a command that a test stops.
fn begin(corner: &Corner, arguments: &[&str]) -> Child {
    command(corner)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Interrupts a command, as by Ctrl-C.
async fn interrupt(child: &Child) {
    let pid = child.id().expect("it runs").to_string();
    let mut kill = tokio::process::Command::new("kill");
    assert!(kill.args(["-INT", &pid]).status().await.unwrap().success());
}

/// Waits for a command to end.
async fn end(child: Child) -> Said {
    Said::of(child.wait_with_output().await.unwrap())
}

/// How a projection stands, as the command says.
async fn standing(corner: &Corner, name: &str) -> Value {
    let all = run(corner, &["projections", "-o", "json"]).await.json(0);
    let mut all = all.as_array().unwrap().iter();
    all.find(|one| one["name"] == name).unwrap().clone()
}

/// A service whose readers have read: two sessions each.
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
    let corner = &app.corner.clone();
    for name in PROJECTIONS {
        until("each has a worker", async || {
            let it = standing(corner, name).await;
            it["state"] == "running" && it["worker"].is_string() && it["position"] == it["head"]
        })
        .await;
    }
    let text = run(corner, &["projections"]).await;
    for word in ["POSITION", "EVENTS/WRITE", "history", "running"] {
        assert!(text.ended(0).contains(word), "{}", text.out);
    }

    let paused = run(corner, &["projections", "pause", "history"]).await;
    assert!(paused.ended(0).contains("has stopped"), "{}", paused.out);
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let it = standing(corner, "history").await;
    assert_eq!(
        (&it["state"], &it["worker"]),
        (&json!("paused"), &json!(null))
    );
    assert_eq!(it["lag_events"], 1);
    let again = run(corner, &["projections", "pause", "history"]).await;
    assert!(
        again.ended(0).contains("nobody worked on it"),
        "{}",
        again.out
    );
    let _ = run(corner, &["projections", "resume", "history"])
        .await
        .ended(0);
    check::everything(&app).await;

    app.stop().await;
    let it = standing(corner, "history").await;
    assert_eq!(it["state"], "stopped");
}

#[tokio::test]
async fn a_name_that_is_not_known_is_answered_with_those_that_are() {
    let corner = tests::Stack::shared().await.corner().await;
    for arguments in [
        &["replay", "cooks"][..],
        &["verify", "history", "cooks"],
        &["projections", "pause", "cooks"],
        &["dead-letters", "--projection", "cooks"],
    ] {
        let said = run(&corner, arguments).await;
        assert_eq!(said.code, Some(2), "{arguments:?}");
        assert!(
            said.err.contains("history, daily_stats, active_sessions"),
            "{}",
            said.err
        );
    }
}

#[tokio::test]
async fn a_server_that_is_away_has_an_exit_code_and_a_name() {
    let mut corner = tests::Stack::shared().await.corner().await;
    corner.database_url = "postgres://nobody@127.0.0.1:1/nothing".to_owned();
    for (arguments, code) in [
        (&["projections"][..], 1),
        (&["replay", "history"], 1),
        (&["verify"], 3),
        (&["dead-letters"], 1),
    ] {
        let said = run(&corner, arguments).await;
        assert_eq!(said.code, Some(code), "{arguments:?}: {}", said.err);
        assert!(
            said.err
                .contains("Postgres does not answer at postgres://nobody@127.0.0.1:1/nothing"),
            "{}",
            said.err
        );
        assert!(said.err.contains("refused"), "{}", said.err);
    }
}

#[tokio::test]
async fn a_replay_says_what_it_did_and_changes_nothing() {
    let app = after_reading().await;
    for name in PROJECTIONS {
        let said = run(&app.corner, &["replay", name]).await;
        let out = said.ended(0);
        assert!(out.starts_with(&format!("{name}: ")), "{out}");
        assert!(out.contains("Queries "), "{out}");
    }
    assert_eq!(schemas(&app).await, [""; 0]);
    check::everything(&app).await;
}

#[tokio::test]
async fn a_replay_keeps_grants_and_never_drops_a_view() {
    let app = App::start().await;
    for statement in [
        "grant select on read.history to pg_monitor",
        "create view public.ended as select * from read.history where ended_at is not null",
    ] {
        sqlx::query(statement).execute(&app.pool).await.unwrap();
    }
    let said = run(&app.corner, &["replay", "history"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("drop ended"), "{}", said.err);
    sqlx::query("drop view public.ended")
        .execute(&app.pool)
        .await
        .unwrap();
    let said = run(&app.corner, &["replay", "history"]).await;
    let _ = said.ended(0);
    assert_eq!(said.err, "");
    let granted: bool =
        sqlx::query_scalar("select has_table_privilege('pg_monitor', 'read.history', 'select')")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    assert!(granted);
}

#[tokio::test]
async fn a_cache_that_was_emptied_is_made_again_and_stays() {
    let app = App::start().await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let client = redis::Client::open(app.corner.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.unwrap();
    let said = run(&app.corner, &["replay", "active_sessions"]).await;
    assert!(said.ended(0).contains("1 entries put"), "{}", said.out);
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let key = format!("reading_session:active:{}", reader.id);
    let kept: bool = redis::cmd("HEXISTS")
        .arg(key)
        .arg("id")
        .query_async(&mut redis)
        .await
        .unwrap();
    assert!(kept);
}

#[tokio::test]
async fn a_replay_that_is_stopped_says_where_the_next_one_goes_on() {
    let app = after_reading().await;
    let head = eventlog::read::head(&app.pool).await.unwrap();
    // It cannot take the place of what is being read, and tries again.
    let mut reading = app.pool.begin().await.unwrap();
    sqlx::query("select from history limit 1")
        .execute(&mut *reading)
        .await
        .unwrap();
    let replay = begin(&app.corner, &["replay", "history"]);
    until("the replay comes to the end of the log", async || {
        let it = standing(&app.corner, "history").await;
        it["replay"]["position"] == head && it["replay"]["running"] == true
    })
    .await;
    let other = run(&app.corner, &["replay", "history"]).await;
    assert_eq!(other.code, Some(1));
    assert!(other.err.contains("running elsewhere"), "{}", other.err);
    interrupt(&replay).await;
    let said = end(replay).await;
    assert_eq!(said.code, Some(130), "{}", said.err);
    let stopped = format!("history: stopped at {head}; the next replay goes on from there");
    assert!(said.err.contains(&stopped), "{}", said.err);
    assert_eq!(schemas(&app).await, ["replay_history"]);

    reading.rollback().await.unwrap();
    let said = run(&app.corner, &["replay", "history"]).await;
    let done = format!("history: 0 events after {head} in ");
    assert!(said.ended(0).starts_with(&done), "{}", said.out);
    assert!(
        said.err.contains(&format!("history: goes on after {head}")),
        "{}",
        said.err
    );
    assert_eq!(schemas(&app).await, [""; 0]);
    check::everything(&app).await;
}
