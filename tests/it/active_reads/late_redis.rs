//! Redis is late on a saturated machine, or it hangs. A late one still serves reads. While
//! it hangs, reads use the log without taking the connections of commands.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Method;
use server::config::Role;
use tests::app::{SETTLE, settings};
use tests::proxy::Proxy;
use tests::reader::id;
use tests::stack::TestEnv;
use tests::{App, Stack, eventually_ok, invariants, scaled, until};
use uuid::Uuid;

use super::{active_reader, reads};

/// Longer than the deadline of a check of the rate limit.
const DELAY: Duration = Duration::from_millis(15);

#[tokio::test]
async fn late_redis_serves_most_reads() {
    const READS: u64 = 200;
    let app = App::start().await;
    let (reader, session) = active_reader(&app).await;
    let proxy = Proxy::start_delayed(&app.env.redis_url, DELAY).await;
    let env = TestEnv {
        redis_url: proxy.url,
        ..app.env.clone()
    };
    let mut settings = settings(&env, &[Role::Api]);
    // As in production. Each check of the limit times out, which must not disable Redis
    // for reads.
    settings.rate_limit.deadline = Duration::from_millis(10);
    let late = App::run(Arc::clone(&app.stack), env, &settings).await;
    let reader = reader.at(&late.url);
    for _ in 0..READS / 10 {
        let read = async |_| id(&reader.active().await.ok());
        let found = join_all((0..10).map(read)).await;
        assert_eq!(found, [session; 10]);
    }
    let metrics = late.metrics().await;
    let hits = reads(&metrics, "hit");
    assert!(hits > READS * 3 / 4, "{hits} of {READS}: {metrics:?}");
    assert_eq!(reads(&metrics, "redis_away"), 0);
    invariants::check(&app).await;
}

/// Redis answers after the deadline of a read alone, which is 100 ms, and before that of a
/// check of the rate limit. A read that needed a second round trip would time out.
#[tokio::test]
async fn limit_and_active_session_take_one_round_trip() {
    const READS: u32 = 5;
    let app = App::start().await;
    let (reader, session) = active_reader(&app).await;
    let delay = Duration::from_millis(200);
    let proxy = Proxy::start_delayed(&app.env.redis_url, delay).await;
    let env = TestEnv {
        redis_url: proxy.url,
        ..app.env.clone()
    };
    let mut settings = settings(&env, &[Role::Api]);
    settings.rate_limit.deadline = Duration::from_secs(10);
    // The start counts too.
    settings.rate_limit.normal = NonZeroU32::new(READS + 1).unwrap();
    let late = App::run(Arc::clone(&app.stack), env, &settings).await;
    let reader = reader.at(&late.url);
    for _ in 0..READS {
        assert_eq!(id(&reader.active().await.ok()), session);
    }
    let _ = reader.active().await.problem(429);
    let metrics = late.metrics().await;
    assert_eq!(reads(&metrics, "hit"), u64::from(READS), "{metrics:?}");
    invariants::check(&app).await;
}

#[tokio::test]
async fn hanging_redis_leaves_connections_for_other_requests() {
    const READERS: usize = 40;
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let mut settings = settings(&env, &Role::ALL);
    settings.rate_limit.deadline = Duration::from_millis(10);
    let max_reads = i64::from(settings.database.database_pool_size / 2);
    let app = App::run(stack, env, &settings).await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let reader = app.reader();
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        readers.push((reader, session));
    }
    app.settled().await;
    app.stack.servers.lock().await.redis.pause().unwrap();
    // Reads of active sessions need this table. They wait until `lock_timeout`.
    let mut lock = app.pool.begin().await.unwrap();
    sqlx::query("lock claims")
        .execute(&mut *lock)
        .await
        .unwrap();
    let began_at = Instant::now();
    let (reader, session) = readers[0].clone();
    let all = tokio::spawn(async move {
        join_all(
            readers
                .iter()
                .map(async |(reader, _)| reader.active().await),
        )
        .await
    });
    // In a transaction of its own: a transaction reads this view once.
    let waiting = async || -> i64 {
        sqlx::query_scalar(
            "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'
                and application_name = 'reading-sessions-api'",
        )
        .fetch_one(&app.pool)
        .await
        .unwrap()
    };
    eventually_ok("as many reads as possible", SETTLE, async || {
        let count = waiting().await;
        if count == max_reads {
            Ok(())
        } else {
            Err(count)
        }
    })
    .await;
    // A query of a session needs a connection, and not the table.
    let path = format!("/{session}");
    let found = reader.call(Method::GET, &path, None).await.ok();
    assert_eq!(id(&found), session);
    assert_eq!(waiting().await, max_reads);
    for response in all.await.unwrap() {
        assert!(response.headers.contains_key("retry-after"));
        let _ = response.problem(503);
    }
    let took = began_at.elapsed();
    assert!(took < scaled(Duration::from_secs(10)), "{took:?}");
    lock.rollback().await.unwrap();

    assert_eq!(id(&reader.active().await.ok()), session);
    app.stack.servers.lock().await.redis.resume().unwrap();
    until("reads hit the cache again", 2 * SETTLE, async || {
        assert_eq!(id(&reader.active().await.ok()), session);
        reads(&app.metrics().await, "hit") >= 1
    })
    .await;
    invariants::check(&app).await;
}
