//! An erasure is done only after Redis has confirmed that the sessions are gone.

use domain::ReaderId;
use eventlog::erase;
use reqwest::Method;
use serde_json::Value;
use server::config::Role;
use tests::app::SETTLE;
use tests::{App, Stack, until};
use uuid::Uuid;

use super::overwritten;

#[tokio::test]
async fn erasure_waits_for_a_redis_that_hangs() {
    let stack = Stack::dedicated().await;
    let app = App::on(stack.clone()).await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;
    app.warmed_up().await;
    // Without the projection, only the erasure removes the session from Redis.
    let operator = app.operator();
    let pause = operator.call(Method::POST, "/projections/active_sessions/pause", None);
    let _ = pause.await.ok();
    until("the worker has stopped", SETTLE, async || {
        let holder: Option<String> = sqlx::query_scalar(
            "select holder from projections where projection = 'active_sessions'",
        )
        .fetch_one(&app.pool)
        .await
        .unwrap();
        holder.is_none()
    })
    .await;

    stack.servers.lock().await.redis.pause().unwrap();
    let erased = reader.erase().await;
    assert_eq!(erased.status, 202);
    // The job has tried.
    until("the job erasures runs", SETTLE, async || {
        sqlx::query_scalar("select holder is not null from jobs where job = 'erasures'")
            .fetch_one(&app.pool)
            .await
            .unwrap()
    })
    .await;
    let id = ReaderId::from(reader.id);
    let erasure = erase::find(&app.pool, id).await.unwrap().unwrap();
    assert_eq!((erasure.done_at, erasure.events), (None, 0));
    stack.servers.lock().await.redis.resume().unwrap();

    let _ = overwritten(&app, &reader).await;
    // Another process reads the session from Redis only.
    let other = app.alongside(&[Role::Api]).await;
    let active = other.reader_with_id(reader.id).active().await;
    assert_eq!(active.ok(), Value::Null);
    other.stop().await;
    app.stop().await;
}
