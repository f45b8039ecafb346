//! NATS and Redis can be wiped or away at any moment: clients notice little,
//! and everything comes back from Postgres.

use serde_json::{Value, json};
use tests::reader::{Reader, id};
use tests::{App, Stack, check};
use uuid::Uuid;

async fn read_on(readers: &[(Reader, Uuid)], positions: std::ops::Range<u32>) {
    for position in positions {
        for (reader, session) in readers {
            let answer = reader.update(*session, f64::from(position)).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
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
async fn a_wiped_nats_store_comes_back_from_the_log() {
    let app = App::on(Stack::own().await).await;
    let readers = readers(&app).await;
    read_on(&readers, 0..10).await;
    check::everything(&app).await;

    app.stack.servers.lock().await.nats.wipe().await.unwrap();
    read_on(&readers, 10..20).await;
    check::everything(&app).await;
}

#[tokio::test]
async fn without_nats_the_read_side_goes_on_and_the_stream_catches_up() {
    let app = App::on(Stack::own().await).await;
    let readers = readers(&app).await;
    read_on(&readers, 0..5).await;
    app.settled().await;

    app.stack.servers.lock().await.nats.kill().unwrap();
    read_on(&readers, 5..10).await;
    // From Postgres alone.
    app.settled().await;
    let (reader, session) = &readers[0];
    let history = reader.history("").await.ok();
    assert_eq!(history["sessions"][0]["end_position"], 9);
    assert_eq!(id(&history["sessions"][0]), *session);

    app.stack.servers.lock().await.nats.start().await.unwrap();
    read_on(&readers, 10..15).await;
    check::everything(&app).await;
}

#[tokio::test]
async fn a_flushed_redis_is_a_miss_and_never_a_wrong_answer() {
    let app = App::start().await;
    let readers = readers(&app).await;
    read_on(&readers, 0..5).await;
    check::everything(&app).await;

    let redis = redis::Client::open(app.corner.redis_url.as_str()).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.unwrap();
    for (reader, session) in &readers {
        let active = reader.active().await.ok();
        assert_eq!(id(&active), *session);
        assert_eq!(active["end_position"], 4);
    }
    read_on(&readers, 5..10).await;
    let (gone, session) = &readers[0];
    let _ = gone.end(*session, json!({})).await.ok();
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.unwrap();
    assert_eq!(gone.active().await.ok(), Value::Null);
    for (reader, session) in &readers[1..] {
        let active = reader.active().await.ok();
        assert_eq!(id(&active), *session);
        assert_eq!(active["end_position"], 9);
    }
    read_on(&readers[1..], 10..12).await;
    check::everything(&app).await;
}

#[tokio::test]
async fn without_redis_an_active_session_is_read_from_the_log() {
    let app = App::on(Stack::own().await).await;
    let readers = readers(&app).await;
    read_on(&readers, 0..3).await;
    app.settled().await;
    app.stack.servers.lock().await.redis.kill().unwrap();
    read_on(&readers, 3..6).await;
    for (reader, session) in &readers {
        let active = reader.active().await.ok();
        assert_eq!(id(&active), *session);
        assert_eq!(active["end_position"], 5);
    }
    app.stack.servers.lock().await.redis.start().await.unwrap();
    read_on(&readers, 6..9).await;
    check::everything(&app).await;
    for (reader, session) in &readers {
        let active = reader.active().await.ok();
        assert_eq!(
            (id(&active), &active["end_position"]),
            (*session, &json!(8))
        );
    }
}

#[tokio::test]
async fn while_postgres_is_away_clients_are_told_so_and_afterwards_all_goes_on() {
    let app = App::on(Stack::own().await).await;
    let readers = readers(&app).await;
    read_on(&readers, 0..3).await;
    app.stack.servers.lock().await.postgres.kill().unwrap();
    let (reader, session) = &readers[0];
    let answer = reader.update(*session, 50.0).await;
    assert!(answer.headers.contains_key("retry-after"));
    let _ = answer.problem(503);
    app.stack
        .servers
        .lock()
        .await
        .postgres
        .start()
        .await
        .unwrap();
    // The first command may meet the connection that broke.
    while reader.update(*session, 51.0).await.status == 503 {
        tokio::task::yield_now().await;
    }
    read_on(&readers, 52..55).await;
    check::everything(&app).await;
}
