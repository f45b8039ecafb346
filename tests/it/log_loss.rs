//! The log loses its last events, because Postgres fails over to a server that lacks
//! them. A process that remembers such events discards its memory, names the loss and
//! continues.

use reqwest::Method;
use serde_json::{Value, json};
use server::config::Role;
use tests::log_loss::SavedLog;
use tests::process::Process;
use tests::reader::id;
use tests::{App, Reader, Stack, app, eventually_ok};
use uuid::Uuid;

/// A service that reads active sessions from the log: no projection writes Redis.
async fn api() -> App {
    App::start_roles(&[Role::Api]).await
}

async fn losses(app: &App) -> u64 {
    let metrics = app.metrics().await;
    metrics.count("reading_sessions_log_losses_total")
}

async fn position(reader: &Reader, session: Uuid) -> Value {
    let found = reader.call(Method::GET, &format!("/{session}"), None).await;
    found.ok()["end_position"].clone()
}

/// The sequences of a session in the log.
async fn sequences(app: &App, session: Uuid) -> Vec<i64> {
    sqlx::query_scalar("select sequence from events where aggregate_id = $1 order by 1")
        .bind(session.to_string())
        .fetch_all(&app.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn commands_continue_after_the_log_lost_remembered_updates() {
    let app = api().await;
    let (reader, other) = (app.reader(), app.reader());
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let ended = id(&other.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 10.0).await.ok();
    let saved = SavedLog::save(&app.pool).await;
    let _ = reader.update(session, 20.0).await.ok();
    let _ = reader.update(session, 30.0).await.ok();
    let _ = other.end(ended, json!({ "end_position": 50 })).await.ok();
    assert_eq!(losses(&app).await, 0);

    saved.reset(&app.pool).await;
    let _ = reader.update(session, 40.0).await.ok();
    assert_eq!(losses(&app).await, 1);
    assert_eq!(position(&reader, session).await, 40);
    assert_eq!(sequences(&app, session).await, [1, 2, 3]);
    // The memory of the other session was discarded too.
    let _ = other.update(ended, 60.0).await.ok();
    assert_eq!(position(&other, ended).await, 60);
    assert_eq!(losses(&app).await, 1);
}

#[tokio::test]
async fn repeat_of_a_lost_update_is_appended_again() {
    let app = api().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let saved = SavedLog::save(&app.pool).await;
    let update = json!({
        "current_position": 20,
        "occurred_at": eventlog::clock::now(),
    });
    let path = format!("/{session}/update");
    let _ = reader
        .call(Method::PUT, &path, Some(update.clone()))
        .await
        .ok();
    saved.reset(&app.pool).await;
    let _ = reader.call(Method::PUT, &path, Some(update)).await.ok();
    assert_eq!(sequences(&app, session).await, [1, 2]);
    assert_eq!(losses(&app).await, 1);
}

#[tokio::test]
async fn reads_and_starts_continue_after_the_log_lost_a_start() {
    let app = api().await;
    let reader = app.reader();
    let kept = id(&reader.start(Uuid::new_v4()).await.ok());
    let saved = SavedLog::save(&app.pool).await;
    let lost = id(&reader.start(Uuid::new_v4()).await.ok());
    assert_eq!(id(&reader.active().await.ok()), lost);

    saved.reset(&app.pool).await;
    // The process remembers that the active session changed beyond the end of the log.
    assert_eq!(id(&reader.active().await.ok()), kept);
    assert!(losses(&app).await >= 1);
    let path = format!("/{lost}");
    let _ = reader.call(Method::GET, &path, None).await.problem(404);
    let _ = reader.update(lost, 5.0).await.problem(404);
    let _ = reader.update(kept, 5.0).await.ok();
    let next = id(&reader.start(Uuid::new_v4()).await.ok());
    assert_eq!(id(&reader.active().await.ok()), next);
}

#[tokio::test]
async fn lost_session_is_not_read_from_memory() {
    let app = api().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let saved = SavedLog::save(&app.pool).await;
    let _ = reader.update(session, 20.0).await.ok();
    saved.reset(&app.pool).await;
    assert_eq!(position(&reader, session).await, 0);
    let active = reader.active().await.ok();
    assert_eq!((id(&active), &active["end_position"]), (session, &json!(0)));
}

#[tokio::test]
async fn loss_is_logged_with_the_session_and_the_global_position() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let pool = app::pool(&env).await;
    let log = std::env::temp_dir().join(format!("log-loss-{}", Uuid::new_v4()));
    let process = Process::start_with_log(&env, &log).await;
    let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let saved = SavedLog::save(&pool).await;
    let _ = reader.update(session, 20.0).await.ok();
    let head = eventlog::read::head(&pool).await.unwrap();
    saved.reset(&pool).await;
    let _ = reader.update(session, 30.0).await.ok();
    let expected = format!(
        "reading the log failed: it has lost the event at global position {head} of session \
         {session}"
    );
    eventually_ok("the loss is logged", app::SETTLE, async || {
        let text = std::fs::read_to_string(&log).unwrap();
        if text.contains(&expected) {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    process.kill().await;
    std::fs::remove_file(&log).unwrap();
}
