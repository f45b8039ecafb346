//! The command `verify`: compare the read models with the event log.

use tests::app::SETTLE;
use tests::process::command;
use tests::{App, invariants, until};

use super::{after_reading, interrupt, run, schemas, spawn, wait};

/// Whether a connection to the test's database waits for a lock.
async fn lock_is_awaited(app: &App) -> bool {
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
async fn verify_reports_differing_rows() {
    let app = after_reading().await;
    let env = &app.env;
    let finished = run(env, &["verify"]).await;
    for name in [
        "history_totals",
        "claims",
        "sessions",
        "session_days",
        "days",
        "active_sessions",
    ] {
        assert!(finished.expect_code(0).contains(name), "{}", finished.out);
    }
    assert_eq!(
        run(env, &["verify", "-o", "json"]).await.json(0)["equal"],
        true
    );

    sqlx::query("update session_days set progress = progress + 77")
        .execute(&app.pool)
        .await
        .unwrap();
    let finished = run(env, &["verify", "daily_stats"]).await;
    let out = finished.expect_code(1);
    assert!(out.contains("session_days\n  found:    {"), "{out}");
    assert!(out.contains("expected: {"), "{out}");
    let found = run(env, &["verify", "-o", "json"]).await.json(1);
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
    assert_eq!(differing, [("session_days", 10)]);
    let _ = run(env, &["verify", "history", "active_sessions"])
        .await
        .expect_code(0);

    // A replay repairs the difference.
    let _ = run(env, &["replay", "daily_stats"]).await.expect_code(0);
    let _ = run(env, &["verify"]).await.expect_code(0);
    assert_eq!(schemas(&app).await, [""; 0]);
    invariants::check(&app).await;
}

#[tokio::test]
async fn verify_reports_finished_comparisons_if_redis_is_down() {
    let app = after_reading().await;
    let mut env = app.env.clone();
    env.redis_url = "redis://127.0.0.1:1".to_owned();
    let finished = run(&env, &["verify"]).await;
    let out = finished.expect_code(3);
    assert!(
        out.contains("history_totals") && out.contains("days"),
        "{out}"
    );
    assert!(!out.contains("active_sessions"), "{out}");
    let error = "verification of active_sessions failed: Redis";
    assert!(finished.err.contains(error), "{}", finished.err);
    let found = run(&env, &["verify", "-o", "json"]).await.json(3);
    assert!(found["equal"].is_null(), "{found}");
    assert!(found["error"].is_string(), "{found}");

    // Commands that do not use Redis run without `REDIS_URL`.
    for arguments in [["verify", "history"], ["replay", "history"]] {
        let mut command = command(&app.env);
        let ended = command.args(arguments).env_remove("REDIS_URL").status();
        assert!(ended.await.unwrap().success(), "{arguments:?}");
    }
}

#[tokio::test]
async fn interrupted_verify_leaves_nothing_behind() {
    let app = after_reading().await;
    let mut held = app.pool.begin().await.unwrap();
    sqlx::query("select from checkpoints where projection = 'history' for update")
        .execute(&mut *held)
        .await
        .unwrap();
    let verify = spawn(&app.env, &["verify", "history"]);
    until("a waiting verify", 2 * SETTLE, async || {
        lock_is_awaited(&app).await
    })
    .await;
    assert_eq!(schemas(&app).await, ["verify_history"]);
    interrupt(&verify).await;
    held.rollback().await.unwrap();
    let finished = wait(verify).await;
    assert_eq!(finished.code, Some(3), "{}", finished.err);
    assert_eq!(schemas(&app).await, [""; 0]);
    let _ = run(&app.env, &["verify", "history"]).await.expect_code(0);
}
