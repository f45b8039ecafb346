//! Reads of the active session are fast and right whatever Redis does: a miss
//! costs one read of the log however many ask, a Redis that hangs costs one
//! request in a while its deadline, and without Postgres what is known is shown
//! for what it is.

use std::time::{Duration, Instant};

use futures::future::join_all;
use redis::AsyncCommands;
use reqwest::Method;
use serde_json::{Value, json};
use services::config::{Role, ServeArgs};
use tests::app::{Metrics, SETTLE, settings, until};
use tests::reader::{Reader, id};
use tests::{App, Stack, check};
use uuid::Uuid;

fn reads(metrics: &Metrics, result: &str) -> u64 {
    let name = "reading_sessions_active_reads_total";
    metrics.count(&format!(r#"{name}{{result="{result}"}}"#))
}

fn fills(metrics: &Metrics, result: &str) -> u64 {
    let name = "reading_sessions_cache_fills_total";
    metrics.count(&format!(r#"{name}{{result="{result}"}}"#))
}

async fn redis(app: &App) -> redis::aio::MultiplexedConnection {
    let redis = redis::Client::open(app.corner.redis_url.as_str()).unwrap();
    redis.get_multiplexed_async_connection().await.unwrap()
}

fn key(reader: &Reader) -> String {
    format!("reading_session:active:{}", reader.id)
}

#[tokio::test]
async fn a_miss_is_filled_and_the_next_read_is_a_hit() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    let _: () = redis(&app).await.del(key(&reader)).await.unwrap();
    until("the miss is filled", async || {
        // Redis may be late, and then there is nothing to fill.
        assert_eq!(id(&reader.active().await.ok()), session);
        fills(&app.metrics().await, "taken") >= 1
    })
    .await;
    until("Redis answers", async || {
        assert_eq!(id(&reader.active().await.ok()), session);
        reads(&app.metrics().await, "hit") >= 1
    })
    .await;
    assert!(reads(&app.metrics().await, "miss") >= 1);
    check::everything(&app).await;
}

#[tokio::test]
async fn many_who_ask_at_once_read_the_log_once() {
    const READERS: u64 = 40;
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    // What the reader began a moment ago is remembered where it was begun.
    let app = app.beside(&[Role::Api]).await;
    let reader = reader.at(&app.url);
    let _: () = redis(&app).await.del(key(&reader)).await.unwrap();
    let mut lock = app.pool.begin().await.unwrap();
    sqlx::query("lock claims")
        .execute(&mut *lock)
        .await
        .unwrap();
    let all = tokio::spawn(async move {
        let ask = |_| async { id(&reader.active().await.ok()) };
        join_all((0..READERS).map(ask)).await
    });
    let joined = "reading_sessions_active_reads_joined_total";
    until("all but one wait for that one", async || {
        let metrics = app.metrics().await;
        let asked =
            reads(&metrics, "miss") + reads(&metrics, "redis_late") + reads(&metrics, "redis_away");
        asked == READERS && metrics.count(joined) == READERS - 1
    })
    .await;
    let waiting: i64 = sqlx::query_scalar(
        "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '%claims%'",
    )
    .fetch_one(&mut *lock)
    .await
    .unwrap();
    assert_eq!(waiting, 1);
    lock.rollback().await.unwrap();
    assert_eq!(all.await.unwrap(), vec![session; 40]);
}

#[tokio::test]
async fn readers_see_what_they_began_and_ended_themselves() {
    let app = App::start().await;
    let reader = app.reader();
    for _ in 0..30 {
        assert_eq!(reader.active().await.ok(), Value::Null);
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        assert_eq!(id(&reader.active().await.ok()), session);
        let _ = reader.end(session, json!({})).await.ok();
    }
    assert_eq!(reader.active().await.ok(), Value::Null);
    app.settled().await;
    // That there is none is known to Redis too.
    let other = app.beside(&[Role::Api]).await;
    until("Redis knows it", async || {
        assert_eq!(reader.at(&other.url).active().await.ok(), Value::Null);
        reads(&other.metrics().await, "hit") >= 1
    })
    .await;
    check::everything(&app).await;
}

#[tokio::test]
async fn an_emptied_redis_takes_fills_again_though_nothing_happens() {
    // Nobody warms it up here.
    let without = |settings: &mut ServeArgs| {
        settings.roles.retain(|role| *role != Role::Maintenance);
    };
    let app = App::with(without).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    let mut redis = redis(&app).await;
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.unwrap();
    let hits = reads(&app.metrics().await, "hit");
    until("the cache is begun and filled", async || {
        assert_eq!(id(&reader.active().await.ok()), session);
        let metrics = app.metrics().await;
        reads(&metrics, "hit") > hits && fills(&metrics, "taken") >= 1
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_hangs_costs_one_request_in_a_while() {
    let stack = Stack::own().await;
    let corner = stack.corner().await;
    let mut settings = settings(&corner, &Role::ALL);
    settings.rate_limit.deadline = Duration::from_millis(10);
    let app = App::run(stack, corner, &settings).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    let since = Instant::now();
    app.stack.servers.lock().await.redis.pause().unwrap();
    for _ in 0..200 {
        assert_eq!(id(&reader.active().await.ok()), session);
    }
    // The limiter asks first, and the read then knows.
    let half_seconds = u64::try_from(since.elapsed().as_millis() / 500).unwrap();
    let metrics = app.metrics().await;
    let late = reads(&metrics, "redis_late");
    assert!(late <= half_seconds + 1, "{late} waited");
    assert_eq!(late + reads(&metrics, "redis_away"), 200);
    app.stack.servers.lock().await.redis.resume().unwrap();
    until("Redis is asked again", async || {
        assert_eq!(id(&reader.active().await.ok()), session);
        reads(&app.metrics().await, "hit") >= 1
    })
    .await;
    check::everything(&app).await;
}

#[tokio::test]
async fn without_postgres_what_redis_knows_is_shown_as_stale() {
    let app = App::on(Stack::own().await).await;
    let (reader, idle, new) = (app.reader(), app.reader(), app.reader());
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let ended = id(&idle.start(Uuid::new_v4()).await.ok());
    let _ = idle.end(ended, json!({})).await.ok();
    app.settled().await;
    // Another process: this one wants to be sure of what it did a moment ago.
    let other = app.beside(&[Role::Api]).await;
    let (reader, idle, new) = (
        reader.at(&other.url),
        idle.at(&other.url),
        new.at(&other.url),
    );
    let ask = async |reader: &Reader| reader.call(Method::GET, "/active", None).await;
    let tag = ask(&reader).await.header("etag").to_owned();
    until("Redis answers", async || {
        let answer = ask(&reader).await;
        assert_eq!(answer.headers.get("warning"), None);
        assert_eq!(answer.ok()["stale"], false);
        reads(&other.metrics().await, "hit") >= 1
    })
    .await;

    app.stack.servers.lock().await.postgres.kill().unwrap();
    until("it is noticed", async || {
        let answer = ask(&reader).await;
        // Redis may be late too, and then nobody knows.
        answer.status == 200 && answer.headers.contains_key("warning")
    })
    .await;
    let known = async |reader: &Reader| {
        let started = Instant::now();
        loop {
            let answer = ask(reader).await;
            if answer.status == 200 {
                return answer;
            }
            assert!(started.elapsed() < SETTLE, "{}", answer.body);
        }
    };
    let answer = known(&reader).await;
    assert_eq!(answer.headers["warning"], "110 - \"Response is Stale\"");
    // Who has the answer of before must not take it for this one.
    assert_ne!(answer.header("etag"), tag);
    let body = answer.ok();
    assert_eq!((id(&body), &body["stale"]), (session, &json!(true)));
    let answer = known(&idle).await;
    assert!(answer.headers.contains_key("warning"));
    assert_eq!(answer.ok(), Value::Null);
    let _ = ask(&new).await.problem(503);
    assert!(reads(&other.metrics().await, "stale") >= 2);

    app.stack
        .servers
        .lock()
        .await
        .postgres
        .start()
        .await
        .unwrap();
    until("it is noticed", async || {
        ask(&reader).await.headers.get("warning").is_none()
    })
    .await;
    assert_eq!(ask(&reader).await.ok()["stale"], false);
    check::everything(&app).await;
}
