//! Comparing what queries read with the log.

use tests::app::until;
use tests::process::command;
use tests::{App, check};

use super::{after_reading, begin, end, interrupt, run, schemas};

/// Whether somebody waits for a lock that a test has.
async fn is_waited_for(app: &App) -> bool {
    let waiting: i64 = sqlx::query_scalar(
        "select count(*) from pg_stat_activity
        where wait_event_type = 'Lock' and datname = current_database()",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    waiting > 0
}

#[tokio::test]
async fn verify_tells_equal_from_different() {
    let app = after_reading().await;
    let corner = &app.corner;
    let said = run(corner, &["verify"]).await;
    for name in [
        "history_totals",
        "claims",
        "reader_hours",
        "days",
        "active_sessions",
    ] {
        assert!(said.ended(0).contains(name), "{}", said.out);
    }
    assert_eq!(
        run(corner, &["verify", "-o", "json"]).await.json(0)["equal"],
        true
    );

    sqlx::query("update reader_days set active_ms = active_ms + 77")
        .execute(&app.pool)
        .await
        .unwrap();
    let said = run(corner, &["verify", "daily_stats"]).await;
    let out = said.ended(1);
    assert!(out.contains("reader_days\n  found:    {"), "{out}");
    assert!(out.contains("expected: {"), "{out}");
    let found = run(corner, &["verify", "-o", "json"]).await.json(1);
    assert_eq!(found["equal"], false);
    let differing: Vec<(&str, u64)> = found["compared"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["name"].as_str().unwrap(),
                one["differing"].as_u64().unwrap(),
            )
        })
        .filter(|(_, differing)| *differing > 0)
        .collect();
    assert_eq!(differing, [("reader_days", 5)]);
    let _ = run(corner, &["verify", "history", "active_sessions"])
        .await
        .ended(0);

    // What to do then.
    let _ = run(corner, &["replay", "daily_stats"]).await.ended(0);
    let _ = run(corner, &["verify"]).await.ended(0);
    assert_eq!(schemas(&app).await, [""; 0]);
    check::everything(&app).await;
}

#[tokio::test]
async fn what_was_compared_is_told_when_a_server_is_away() {
    let app = after_reading().await;
    let mut corner = app.corner.clone();
    corner.redis_url = "redis://127.0.0.1:1".to_owned();
    let said = run(&corner, &["verify"]).await;
    let out = said.ended(3);
    assert!(
        out.contains("history_totals") && out.contains("days"),
        "{out}"
    );
    assert!(!out.contains("active_sessions"), "{out}");
    let why = "active_sessions could not be checked: Redis";
    assert!(said.err.contains(why), "{}", said.err);
    let found = run(&corner, &["verify", "-o", "json"]).await.json(3);
    assert!(found["equal"].is_null(), "{found}");
    assert!(found["error"].is_string(), "{found}");

    // Who needs no Redis need not name one.
    for arguments in [["verify", "history"], ["replay", "history"]] {
        let mut command = command(&app.corner);
        let ended = command.args(arguments).env_remove("REDIS_URL").status();
        assert!(ended.await.unwrap().success(), "{arguments:?}");
    }
}

#[tokio::test]
async fn verify_that_is_stopped_leaves_nothing_behind() {
    let app = after_reading().await;
    let mut held = app.pool.begin().await.unwrap();
    sqlx::query("select from checkpoints where projection = 'history' for update")
        .execute(&mut *held)
        .await
        .unwrap();
    let verify = begin(&app.corner, &["verify", "history"]);
    until("it waits", async || is_waited_for(&app).await).await;
    assert_eq!(schemas(&app).await, ["verify_history"]);
    interrupt(&verify).await;
    held.rollback().await.unwrap();
    let said = end(verify).await;
    assert_eq!(said.code, Some(3), "{}", said.err);
    assert_eq!(schemas(&app).await, [""; 0]);
    let _ = run(&app.corner, &["verify", "history"]).await.ended(0);
}
