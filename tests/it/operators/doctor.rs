//! The command `doctor`: the state of servers and workers.

use serde_json::Value;
use tests::future_events;
use uuid::Uuid;

use tests::app::SETTLE;
use tests::reader::id;
use tests::{App, until};

use super::run;

/// The state and the details of the finding about `what`.
pub(super) fn finding<'a>(findings: &'a Value, what: &str) -> (&'a str, &'a str) {
    let mut all = findings.as_array().unwrap().iter();
    let found = all.find(|finding| finding["what"] == what).unwrap();
    (
        found["state"].as_str().unwrap(),
        found["says"].as_str().unwrap(),
    )
}

#[tokio::test]
async fn doctor_reports_each_problem_and_ok_for_the_rest() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    app.warmed_up().await;
    let findings = async || run(&app.env, &["doctor", "-o", "json"]).await.json(1);
    until("a worker for each projection", 2 * SETTLE, async || {
        finding(&findings().await, "projections").0 == "ok"
    })
    .await;
    let healthy = findings().await;
    // The test server runs without fsync.
    let (state, details) = finding(&healthy, "Postgres");
    assert_eq!(state, "failure");
    assert!(details.contains("fsync is off"), "{details}");
    for what in [
        "partitions",
        "projections",
        "lag",
        "dead letters",
        "time zones",
        "jobs",
        "Redis",
        "NATS",
        "stream",
        "relay",
        "NATS permissions",
    ] {
        assert_eq!(finding(&healthy, what).0, "ok", "{what}: {healthy:#}");
    }

    future_events::append_unreadable(&app.pool, session).await;
    app.settled().await;
    assert_eq!(finding(&findings().await, "dead letters").0, "warning");
    let paused = ["projections", "pause", "history"];
    let _ = run(&app.env, &paused).await.expect_code(0);
    let paused = findings().await;
    assert_eq!(
        finding(&paused, "projections"),
        (
            "warning",
            "history is paused; resume it with \"reading-sessions projections resume history\""
        )
    );

    let env = app.env.clone();
    app.stop().await;
    let finished = run(&env, &["doctor"]).await;
    let out = finished.expect_code(1);
    assert!(out.contains("daily_stats has no worker"), "{out}");
    assert!(out.contains("no relay publishes"), "{out}");
}
