//! Reads of the active session stay fast and correct whatever Redis does.
//! Concurrent misses for one reader share one read of the log. While Redis hangs,
//! one request per half second waits for its deadline. While Postgres is down,
//! cached sessions are served and marked as stale.

use std::time::{Duration, Instant};

use futures::future::join_all;
use redis::AsyncCommands;
use reqwest::Method;
use serde_json::{Value, json};
use server::config::{Role, ServeArgs};
use tests::app::{Metrics, SETTLE, settings};
use tests::reader::{Reader, id};
use tests::{App, Stack, eventually_ok, invariants, until};
use uuid::Uuid;

mod late_redis;

fn reads(metrics: &Metrics, result: &str) -> u64 {
    let name = "reading_sessions_active_reads_total";
    metrics.count(&format!(r#"{name}{{result="{result}"}}"#))
}

fn fills(metrics: &Metrics, result: &str) -> u64 {
    let name = "reading_sessions_cache_fills_total";
    metrics.count(&format!(r#"{name}{{result="{result}"}}"#))
}

async fn redis(app: &App) -> redis::aio::MultiplexedConnection {
    let redis = redis::Client::open(app.env.redis_url.as_str()).unwrap();
    redis.get_multiplexed_async_connection().await.unwrap()
}

fn key(reader: &Reader) -> String {
    format!("reading_session:active:{}", reader.id)
}

/// A reader with an active session, which all projections contain.
async fn active_reader(app: &App) -> (Reader, Uuid) {
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    (reader, session)
}

#[tokio::test]
async fn cache_miss_is_filled_and_next_read_hits() {
    let app = App::start().await;
    let (reader, session) = active_reader(&app).await;
    let _: () = redis(&app).await.del(key(&reader)).await.unwrap();
    until("the miss fills the cache", 2 * SETTLE, async || {
        // A read that exceeds the Redis deadline fills nothing.
        assert_eq!(id(&reader.active().await.ok()), session);
        fills(&app.metrics().await, "taken") >= 1
    })
    .await;
    until("a read hits the cache", 2 * SETTLE, async || {
        assert_eq!(id(&reader.active().await.ok()), session);
        reads(&app.metrics().await, "hit") >= 1
    })
    .await;
    assert!(reads(&app.metrics().await, "miss") >= 1);
    invariants::check(&app).await;
}

#[tokio::test]
async fn concurrent_misses_share_one_log_read() {
    const READERS: u64 = 40;
    let app = App::start().await;
    let (reader, session) = active_reader(&app).await;
    // The warm-up at the start would write the entry again.
    app.warmed_up().await;
    // The first process remembers the start, so its reads would not miss.
    let app = app.alongside(&[Role::Api]).await;
    let reader = reader.at(&app.url);
    let _: () = redis(&app).await.del(key(&reader)).await.unwrap();
    let mut lock = app.pool.begin().await.unwrap();
    sqlx::query("lock claims")
        .execute(&mut *lock)
        .await
        .unwrap();
    let all = tokio::spawn(async move {
        let read = |_| async { id(&reader.active().await.ok()) };
        join_all((0..READERS).map(read)).await
    });
    let joined = "reading_sessions_active_reads_joined_total";
    until("all other reads join the first", 2 * SETTLE, async || {
        let metrics = app.metrics().await;
        let started =
            reads(&metrics, "miss") + reads(&metrics, "redis_late") + reads(&metrics, "redis_away");
        started == READERS && metrics.count(joined) == READERS - 1
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
async fn readers_see_their_own_starts_and_ends() {
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
    // The absence of an active session is cached too.
    let other = app.alongside(&[Role::Api]).await;
    until("the absence is read from Redis", 2 * SETTLE, async || {
        assert_eq!(reader.at(&other.url).active().await.ok(), Value::Null);
        reads(&other.metrics().await, "hit") >= 1
    })
    .await;
    invariants::check(&app).await;
}

/// Each update makes its session active and supersedes the session of the other device.
#[tokio::test]
async fn alternating_devices_read_the_session_of_the_last_update() {
    let app = App::start().await;
    let other = app.alongside(&[Role::Api]).await;
    let reader = app.reader();
    let elsewhere = reader.at(&other.url);
    let phone = id(&reader.start(Uuid::new_v4()).await.ok());
    let tablet = id(&reader.start(Uuid::new_v4()).await.ok());
    for position in 1..=15 {
        for session in [phone, tablet] {
            let _ = reader.update(session, f64::from(position)).await.ok();
            let read = async |reader: &Reader| {
                let active = reader.active().await.ok();
                (id(&active), active["end_position"].as_f64())
            };
            let expected = (session, Some(f64::from(position)));
            assert_eq!(read(&reader).await, expected);
            // This process does not know of the update before Redis does.
            until("the other process reads the update", SETTLE, async || {
                read(&elsewhere).await == expected
            })
            .await;
        }
    }
    until("reads hit the cache again", 2 * SETTLE, async || {
        assert_eq!(id(&elsewhere.active().await.ok()), tablet);
        let metrics = other.metrics().await;
        reads(&metrics, "hit") > reads(&metrics, "miss")
    })
    .await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn flushed_redis_accepts_fills_without_new_events() {
    // Without background jobs, no warm-up fills the cache.
    let without = |settings: &mut ServeArgs| {
        settings.roles.retain(|role| *role != Role::Jobs);
    };
    let app = App::with_settings(without).await;
    let (reader, session) = active_reader(&app).await;
    let mut redis = redis(&app).await;
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.unwrap();
    let hits = reads(&app.metrics().await, "hit");
    until(
        "the cache is initialised and filled",
        2 * SETTLE,
        async || {
            assert_eq!(id(&reader.active().await.ok()), session);
            let metrics = app.metrics().await;
            reads(&metrics, "hit") > hits && fills(&metrics, "taken") >= 1
        },
    )
    .await;
}

#[tokio::test]
async fn hanging_redis_delays_one_request_per_half_second() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let mut settings = settings(&env, &Role::ALL);
    settings.rate_limit.deadline = Duration::from_millis(10);
    let app = App::run(stack, env, &settings).await;
    let (reader, session) = active_reader(&app).await;
    let since = Instant::now();
    app.stack.servers.lock().await.redis.pause().unwrap();
    for _ in 0..200 {
        assert_eq!(id(&reader.active().await.ok()), session);
    }
    // The rate limiter calls Redis first. After its timeout, the read skips Redis.
    let half_seconds = u64::try_from(since.elapsed().as_millis() / 500).unwrap();
    let metrics = app.metrics().await;
    let late = reads(&metrics, "redis_late");
    assert!(late <= half_seconds + 1, "{late} reads waited for Redis");
    assert_eq!(late + reads(&metrics, "redis_away"), 200);
    app.stack.servers.lock().await.redis.resume().unwrap();
    until("reads hit the cache again", 2 * SETTLE, async || {
        assert_eq!(id(&reader.active().await.ok()), session);
        reads(&app.metrics().await, "hit") >= 1
    })
    .await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn without_postgres_cached_sessions_are_served_as_stale() {
    let app = App::on(Stack::dedicated().await).await;
    let (reader, idle, new) = (app.reader(), app.reader(), app.reader());
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let ended = id(&idle.start(Uuid::new_v4()).await.ok());
    let _ = idle.end(ended, json!({})).await.ok();
    app.settled().await;
    // The process that wrote reads its recent writes from Postgres, so use another.
    let other = app.alongside(&[Role::Api]).await;
    let (reader, idle, new) = (
        reader.at(&other.url),
        idle.at(&other.url),
        new.at(&other.url),
    );
    let get = async |reader: &Reader| reader.call(Method::GET, "/active", None).await;
    let tag = get(&reader).await.header("etag").to_owned();
    until("a read hits the cache", 2 * SETTLE, async || {
        let response = get(&reader).await;
        assert_eq!(response.headers.get("warning"), None);
        assert_eq!(response.ok()["stale"], false);
        reads(&other.metrics().await, "hit") >= 1
    })
    .await;

    app.stack.servers.lock().await.postgres.kill().unwrap();
    until("the outage is detected", 2 * SETTLE, async || {
        let response = get(&reader).await;
        // If Redis exceeds its deadline too, the read fails.
        response.status == 200 && response.headers.contains_key("warning")
    })
    .await;
    let get_cached = async |reader: &Reader| {
        eventually_ok("a response from the cache", SETTLE, async || {
            let response = get(reader).await;
            if response.status == 200 {
                Ok(response)
            } else {
                Err(response.body)
            }
        })
        .await
    };
    let response = get_cached(&reader).await;
    assert_eq!(response.headers["warning"], "110 - \"Response is Stale\"");
    // A stale response must not match the ETag of a fresh one.
    assert_ne!(response.header("etag"), tag);
    let body = response.ok();
    assert_eq!((id(&body), &body["stale"]), (session, &json!(true)));
    let response = get_cached(&idle).await;
    assert!(response.headers.contains_key("warning"));
    assert_eq!(response.ok(), Value::Null);
    let _ = get(&new).await.problem(503);
    assert!(reads(&other.metrics().await, "stale") >= 2);

    app.stack
        .servers
        .lock()
        .await
        .postgres
        .start()
        .await
        .unwrap();
    until("the recovery is detected", 2 * SETTLE, async || {
        get(&reader).await.headers.get("warning").is_none()
    })
    .await;
    assert_eq!(get(&reader).await.ok()["stale"], false);
    invariants::check(&app).await;
}
