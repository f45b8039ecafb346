//! Every action of an operator leaves an entry in the audit, whether it succeeds, fails or
//! is killed. No role can change or remove an entry.

mod interrupted;

use std::collections::BTreeSet;

use api::auth::AdminAccess;
use eventlog::audit::Action;
use reqwest::Method;
use serde_json::{Value, json};
use tests::app::SETTLE;
use tests::process::command;
use tests::reader::id;
use tests::{App, Reader, future_events, until};
use uuid::Uuid;

async fn entries(operator: &Reader) -> Vec<Value> {
    let page = operator.call(Method::GET, "/audit?limit=100", None).await;
    page.ok()["entries"].as_array().unwrap().clone()
}

/// An action and its target, the request for it, and whether it succeeds.
type Call = (&'static str, Value, Method, String, bool);

/// A session of each of two readers, the first with a parked event.
async fn prepare(app: &App) -> (Uuid, i64) {
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let parked = future_events::append_unreadable(&app.pool, session).await;
    until("the event is parked", 2 * SETTLE, async || {
        let count: i64 = sqlx::query_scalar("select count(*) from dead_letters")
            .fetch_one(&app.pool)
            .await
            .unwrap();
        count == 3
    })
    .await;
    let other = app.reader();
    let _ = other.start(Uuid::new_v4()).await.ok();
    (other.id, parked)
}

/// An id in upper case and without hyphens.
fn other_spelling(id: Uuid) -> String {
    id.simple().to_string().to_uppercase()
}

fn calls(reader: Uuid, parked: i64) -> Vec<Call> {
    let letter = format!("history.{parked}");
    let post = |action, target: Value, path: &str, succeeds| {
        (action, target, Method::POST, path.to_owned(), succeeds)
    };
    vec![
        post(
            "pause",
            json!("daily_stats"),
            "/projections/daily_stats/pause",
            true,
        ),
        post(
            "resume",
            json!("daily_stats"),
            "/projections/daily_stats/resume",
            true,
        ),
        post(
            "replay",
            json!("active_sessions"),
            "/projections/active_sessions/replay",
            true,
        ),
        post(
            "verify",
            json!("history"),
            "/projections/history/verify",
            true,
        ),
        post(
            "retry",
            json!(letter),
            &format!("/dead-letters/{letter}/retry"),
            true,
        ),
        post(
            "discard",
            json!(letter),
            &format!("/dead-letters/{letter}/discard"),
            true,
        ),
        post("run_job", json!("partitions"), "/jobs/partitions/run", true),
        post("warm_up", Value::Null, "/cache/warmup", true),
        post("cleanup", Value::Null, "/reading-sessions/cleanup", true),
        post(
            "export_reader",
            json!(reader),
            &format!("/readers/{}/export", other_spelling(reader)),
            true,
        ),
        (
            "erase_reader",
            json!(reader),
            Method::DELETE,
            format!("/readers/{reader}?confirm={reader}"),
            true,
        ),
        // Failures.
        post("pause", json!("books"), "/projections/books/pause", false),
        post(
            "retry",
            json!(letter),
            &format!("/dead-letters/{letter}/retry"),
            false,
        ),
        post(
            "cleanup",
            Value::Null,
            "/reading-sessions/cleanup?hours=1",
            false,
        ),
        post("run_job", json!("a\u{fffd}b"), "/jobs/a%00b/run", false),
    ]
}

#[tokio::test]
async fn every_acting_call_leaves_an_entry() {
    let app = App::start().await;
    let (reader, parked) = prepare(&app).await;
    let expires_at = eventlog::clock::now() + chrono::TimeDelta::hours(1);
    let operator = app.operator_until(AdminAccess::Act, expires_at);
    let calls = calls(reader, parked);
    for (action, target, method, path, succeeds) in &calls {
        let response = operator.call(method.clone(), path, None).await;
        assert_eq!(
            response.status.is_success(),
            *succeeds,
            "{path}: {}",
            response.body
        );
        let newest = entries(&operator).await.remove(0);
        assert_eq!(
            (&newest["action"], &newest["target"]),
            (&json!(action), target)
        );
        assert_eq!(newest["actor"], operator.id.to_string());
        assert_eq!(newest["origin"], "http");
        if !succeeds {
            assert_eq!(newest["outcome"], "failed");
            let error = newest["error"].as_str().unwrap();
            assert!(error.starts_with(response.status.as_str()), "{error}");
        }
    }
    let made: BTreeSet<&str> = calls.iter().map(|(action, ..)| *action).collect();
    let all: BTreeSet<&str> = Action::ALL.map(Action::as_str).into();
    assert_eq!(made, all, "a call for each action");
    // The replay and the verification end later.
    until("every action has its outcome", 2 * SETTLE, async || {
        let entries = entries(&operator).await;
        entries.iter().all(|entry| entry["outcome"] != "started")
    })
    .await;
    let recorded = entries(&operator).await;
    assert_eq!(recorded.len(), calls.len());
    for (entry, (_, _, _, path, succeeds)) in recorded.iter().rev().zip(&calls) {
        let outcome = if *succeeds { "succeeded" } else { "failed" };
        assert_eq!(entry["outcome"], outcome, "{path}: {entry}");
        assert!(!entry["ended_at"].is_null());
    }
    let details = |action: &str| {
        let mut found = recorded.iter();
        found.find(|entry| entry["action"] == action).unwrap()["details"].clone()
    };
    assert_eq!(details("verify")["equal"], true);
    assert_eq!(details("erase_reader"), json!({}));

    // Calls that look, and calls that are refused before their handler, leave none.
    let _ = operator.call(Method::GET, "/projections", None).await.ok();
    let _ = app
        .viewer()
        .call(Method::POST, "/projections/history/pause", None)
        .await
        .problem(403);
    let _ = operator
        .call(Method::POST, "/nothing", None)
        .await
        .problem(404);
    assert_eq!(entries(&operator).await.len(), calls.len());

    // The pages list each entry once.
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/audit?limit=4{cursor}");
        let page = operator.call(Method::GET, &path, None).await.ok();
        ids.extend(
            page["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["id"].clone()),
        );
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let listed: Vec<Value> = recorded.iter().map(|entry| entry["id"].clone()).collect();
    assert_eq!(ids, listed);
}

#[tokio::test]
async fn every_acting_command_leaves_an_entry() {
    let app = App::start().await;
    let (reader, parked) = prepare(&app).await;
    let spelled = other_spelling(reader);
    let (reader, letter) = (reader.to_string(), format!("history.{parked}"));
    app.warmed_up().await;
    let mut expected = Vec::new();
    for (action, target, succeeds, arguments) in [
        (
            "pause",
            "history",
            true,
            &["projections", "pause", "history"][..],
        ),
        (
            "resume",
            "history",
            true,
            &["projections", "resume", "history"],
        ),
        (
            "replay",
            "history",
            true,
            &["replay", "history", "--restart"],
        ),
        ("verify", "history", true, &["verify", "history"]),
        ("retry", &letter, false, &["dead-letters", "retry", &letter]),
        (
            "discard",
            &letter,
            true,
            &["dead-letters", "discard", &letter],
        ),
        ("retry", &letter, false, &["dead-letters", "retry", &letter]),
        (
            "run_job",
            "partitions",
            true,
            &["jobs", "run", "partitions"],
        ),
        ("warm_up", "", true, &["warm-up"]),
        (
            "export_reader",
            &reader,
            true,
            &["reader", "export", &spelled],
        ),
        (
            "erase_reader",
            &reader,
            true,
            &["reader", "erase", &reader, "--yes"],
        ),
    ] {
        let output = command(&app.env).args(arguments).output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), succeeds, "{arguments:?}: {error}");
        expected.push((action, target, succeeds));
    }
    let output = command(&app.env).args(["audit", "-o", "json"]).output();
    let listed: Vec<Value> = serde_json::from_slice(&output.await.unwrap().stdout).unwrap();
    assert_eq!(listed.len(), expected.len());
    for (entry, (action, target, succeeds)) in listed.iter().rev().zip(&expected) {
        assert_eq!(entry["action"], **action);
        assert_eq!(
            entry["target"].as_str().unwrap_or_default(),
            *target,
            "{action}"
        );
        assert_eq!(
            entry["outcome"],
            if *succeeds { "succeeded" } else { "failed" },
            "{entry}"
        );
        assert_eq!(entry["origin"], "cli");
        assert_eq!(entry["error"].is_null(), *succeeds);
        let (user, machine) = entry["actor"].as_str().unwrap().split_once('@').unwrap();
        assert!(!user.is_empty() && !machine.is_empty());
    }
    let details = |action: &str| {
        let mut found = listed.iter();
        found.find(|entry| entry["action"] == action).unwrap()["details"].clone()
    };
    assert_eq!(details("replay"), json!({ "restart": true }));
    assert_eq!(details("export_reader"), json!({ "format": "json" }));
    assert!(details("verify")["equal"].is_boolean());

    let output = command(&app.env).args(["audit", "--limit", "1"]).output();
    let text = String::from_utf8(output.await.unwrap().stdout).unwrap();
    assert!(
        text.contains("erase_reader") && text.contains("--before"),
        "{text}"
    );
}

/// If the audit cannot be written, nothing is done.
#[tokio::test]
async fn action_without_an_entry_is_refused() {
    let app = App::start().await;
    let operator = app.operator();
    sqlx::query("alter table audit add constraint full_disk check (action <> 'pause')")
        .execute(&app.pool)
        .await
        .unwrap();
    let pause = operator.call(Method::POST, "/projections/history/pause", None);
    let _ = pause.await.problem(503);
    let output = command(&app.env)
        .args(["projections", "pause", "history"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("nothing was done"), "{error}");
    let paused: bool = sqlx::query_scalar("select bool_or(paused) from projections")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert!(!paused);
}
