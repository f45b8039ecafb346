//! NATS and Redis may be wiped or unreachable at any time. Clients are hardly
//! affected, and all data is restored from Postgres. While Postgres is down,
//! commands return 503.

use serde_json::{Value, json};
use tests::app::SETTLE;
use tests::reader::{Reader, id};
use tests::{App, Stack, invariants, until};
use uuid::Uuid;

async fn update_all(readers: &[(Reader, Uuid)], positions: std::ops::Range<u32>) {
    for position in positions {
        for (reader, session) in readers {
            let response = reader.update(*session, f64::from(position)).await;
            assert_eq!(response.status, 200, "{}", response.body);
        }
    }
}

async fn readers(app: &App) -> Vec<(Reader, Uuid)> {
    let mut readers = Vec::new();
    for _ in 0..10 {
        let reader = app.reader();
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        readers.push((reader, session));
    }
    readers
}

#[tokio::test]
async fn wiped_nats_stream_is_refilled_from_the_log() {
    let app = App::on(Stack::dedicated().await).await;
    let readers = readers(&app).await;
    update_all(&readers, 0..10).await;
    invariants::check(&app).await;

    app.stack.servers.lock().await.nats.wipe().await.unwrap();
    update_all(&readers, 10..20).await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn read_side_continues_without_nats_and_stream_catches_up() {
    let app = App::on(Stack::dedicated().await).await;
    let readers = readers(&app).await;
    update_all(&readers, 0..5).await;
    app.settled().await;

    app.stack.servers.lock().await.nats.kill().unwrap();
    update_all(&readers, 5..10).await;
    // The projections read the events from Postgres.
    app.settled().await;
    let (reader, session) = &readers[0];
    let history = reader.history("").await.ok();
    assert_eq!(history["sessions"][0]["end_position"], 9);
    assert_eq!(id(&history["sessions"][0]), *session);

    app.stack.servers.lock().await.nats.start().await.unwrap();
    update_all(&readers, 10..15).await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn flushed_redis_causes_misses_but_no_wrong_response() {
    let app = App::start().await;
    let readers = readers(&app).await;
    update_all(&readers, 0..5).await;
    invariants::check(&app).await;

    let redis = redis::Client::open(app.env.redis_url.as_str()).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.unwrap();
    for (reader, session) in &readers {
        let active = reader.active().await.ok();
        assert_eq!(id(&active), *session);
        assert_eq!(active["end_position"], 4);
    }
    update_all(&readers, 5..10).await;
    let (ended, session) = &readers[0];
    let _ = ended.end(*session, json!({})).await.ok();
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.unwrap();
    assert_eq!(ended.active().await.ok(), Value::Null);
    for (reader, session) in &readers[1..] {
        let active = reader.active().await.ok();
        assert_eq!(id(&active), *session);
        assert_eq!(active["end_position"], 9);
    }
    update_all(&readers[1..], 10..12).await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn active_session_is_read_from_the_log_without_redis() {
    let app = App::on(Stack::dedicated().await).await;
    let readers = readers(&app).await;
    update_all(&readers, 0..3).await;
    app.settled().await;
    app.stack.servers.lock().await.redis.kill().unwrap();
    update_all(&readers, 3..6).await;
    for (reader, session) in &readers {
        let active = reader.active().await.ok();
        assert_eq!(id(&active), *session);
        assert_eq!(active["end_position"], 5);
    }
    app.stack.servers.lock().await.redis.start().await.unwrap();
    update_all(&readers, 6..9).await;
    invariants::check(&app).await;
    for (reader, session) in &readers {
        let active = reader.active().await.ok();
        assert_eq!(
            (id(&active), &active["end_position"]),
            (*session, &json!(8))
        );
    }
}

#[tokio::test]
async fn postgres_outage_returns_503_and_the_service_recovers() {
    let app = App::on(Stack::dedicated().await).await;
    let readers = readers(&app).await;
    update_all(&readers, 0..3).await;
    app.stack.servers.lock().await.postgres.kill().unwrap();
    let (reader, session) = &readers[0];
    let response = reader.update(*session, 50.0).await;
    assert!(response.headers.contains_key("retry-after"));
    let _ = response.problem(503);
    app.stack
        .servers
        .lock()
        .await
        .postgres
        .start()
        .await
        .unwrap();
    // The first commands may still use a broken connection.
    until("a command after the outage", SETTLE, async || {
        reader.update(*session, 51.0).await.status != 503
    })
    .await;
    update_all(&readers, 52..55).await;
    invariants::check(&app).await;
}
