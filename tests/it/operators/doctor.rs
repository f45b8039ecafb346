//! Whether everything is as it must be, at a glance.

use serde_json::Value;
use tests::unknown;
use uuid::Uuid;

use tests::App;
use tests::app::until;
use tests::reader::id;

use super::run;

/// What is said of something, and how it stands.
fn of<'a>(findings: &'a Value, what: &str) -> (&'a str, &'a str) {
    let mut all = findings.as_array().unwrap().iter();
    let finding = all.find(|finding| finding["what"] == what).unwrap();
    (
        finding["state"].as_str().unwrap(),
        finding["says"].as_str().unwrap(),
    )
}

#[tokio::test]
async fn the_doctor_says_what_is_wrong_and_that_the_rest_is_well() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    app.warmed_up().await;
    let look = async || run(&app.corner, &["doctor", "-o", "json"]).await.json(1);
    until("there are workers", async || {
        of(&look().await, "projections").0 == "ok"
    })
    .await;
    let findings = look().await;
    // Servers of tests do not wait for their disks.
    let (state, says) = of(&findings, "Postgres");
    assert_eq!(state, "failure");
    assert!(says.contains("fsync is off"), "{says}");
    for what in [
        "partitions",
        "projections",
        "lag",
        "dead letters",
        "upkeep",
        "Redis",
        "NATS",
        "stream",
    ] {
        assert_eq!(of(&findings, what).0, "ok", "{what}: {findings:#}");
    }

    unknown::append(&app.pool, session).await;
    app.settled().await;
    assert_eq!(of(&look().await, "dead letters").0, "warning");
    let paused = ["projections", "pause", "history"];
    let _ = run(&app.corner, &paused).await.ended(0);
    let findings = look().await;
    assert_eq!(
        of(&findings, "projections"),
        ("warning", "history is paused")
    );

    let corner = app.corner.clone();
    app.stop().await;
    let said = run(&corner, &["doctor"]).await;
    let said = said.ended(1);
    assert!(said.contains("nobody works on daily_stats"), "{said}");
}
