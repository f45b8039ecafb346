//! A reader can store a bounded number of bytes a day. A reader without a budget affects
//! neither other readers nor the disks.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use domain::{ReaderId, SessionEvent, SessionId};
use eventlog::append::{Append, NewEvent};
use eventlog::stored_bytes::{EVENT_OVERHEAD, StoredBytes};
use eventlog::{Appender, commit_feed};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use server::config::{Role, ServeArgs};
use sqlx::PgPool;
use tests::reader::id;
use tests::stack::TestEnv;
use tests::{ApiResponse, App, Reader, Stack, app, invariants, scaled, stream, until};
use uuid::Uuid;

const DAY: u64 = 24 * 60 * 60;

fn budget(bytes: u64) -> impl FnOnce(&mut ServeArgs) {
    move |settings| settings.rate_limit.daily_bytes = bytes
}

fn retry_after(response: &ApiResponse) -> u64 {
    response.header("retry-after").parse().unwrap()
}

/// The number of events in the log.
async fn events(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from events")
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn redis(env: &TestEnv) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(env.redis_url.as_str()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

fn counter(reader: &Reader) -> String {
    format!("rate_limit:stored_bytes:user:{}", reader.id)
}

/// Updates a session until the budget is used up. Returns the refused response.
async fn use_up(reader: &Reader, session: Uuid) -> ApiResponse {
    for position in 0..100 {
        let response = reader.update(session, f64::from(position)).await;
        if response.status == 429 {
            return response;
        }
        assert_eq!(response.status, 200);
    }
    panic!("no command was refused");
}

#[tokio::test]
async fn commands_beyond_the_daily_budget_return_429_and_change_nothing() {
    let app = App::with_settings(budget(5_000)).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let refused = use_up(&reader, session).await;
    assert!((1..=DAY).contains(&retry_after(&refused)));
    assert!(!refused.header("x-ratelimit-limit").is_empty());
    assert_eq!(refused.problem_code(429), "quota");

    let before = events(&app.pool).await;
    let version = reader.session(session).await.ok()["version"].clone();
    let key = [("idempotency-key", "a-key")];
    let path = format!("/{session}");
    let update = json!({ "current_position": 99 });
    let at = eventlog::clock::now();
    let sync = json!({
        "sent_at": at,
        "sessions": [{ "session_id": Uuid::now_v7(), "book_id": Uuid::new_v4(), "started_at": at }],
    });
    let batch = json!({ "updates": [{ "session_id": session, "current_position": 99 }] });
    for (method, path, body) in [
        (
            Method::POST,
            "/start".to_owned(),
            json!({ "book_id": Uuid::new_v4() }),
        ),
        (Method::PUT, format!("{path}/update"), update.clone()),
        (Method::PUT, format!("{path}/end"), json!({})),
        (Method::POST, "/batch-update".to_owned(), batch),
        (Method::POST, "/sync".to_owned(), sync),
        (Method::PATCH, path.clone(), json!({ "active_seconds": 1 })),
    ] {
        let response = reader.call_with(method, &path, &key, Some(body)).await;
        assert_eq!(response.problem_code(429), "quota", "{path}");
    }
    assert_eq!(events(&app.pool).await, before);
    assert_eq!(reader.session(session).await.ok()["version"], version);

    // The refused command was not decided: its key is free.
    let _: i64 = redis::cmd("DEL")
        .arg(counter(&reader))
        .query_async(&mut redis(&app.env).await)
        .await
        .unwrap();
    let path = format!("/{session}/update");
    let renewed = reader
        .call_with(Method::PUT, &path, &key, Some(update))
        .await;
    assert!(!renewed.headers.contains_key("idempotent-replayed"));
    assert_eq!(renewed.ok()["end_position"], 99);
    invariants::check(&app).await;
}

#[tokio::test]
async fn reader_without_a_budget_can_read_export_and_erase() {
    let app = App::with_settings(budget(5_000)).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = use_up(&reader, session).await;
    assert_eq!(reader.active().await.status, 200);
    assert_eq!(reader.history("").await.status, 200);
    assert_eq!(reader.call(Method::GET, "/export", None).await.status, 200);
    assert_eq!(reader.delete(&format!("/{session}")).await.status, 204);
    assert_eq!(reader.erase().await.status, 202);
    assert_eq!(
        reader.start(Uuid::new_v4()).await.problem_code(429),
        "quota"
    );
    invariants::check(&app).await;
}

#[tokio::test]
async fn budget_renews_a_day_after_its_first_byte() {
    let app = App::with_settings(budget(5_000)).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let refused = use_up(&reader, session).await;
    assert!(retry_after(&refused) > DAY - 600);

    let mut redis = redis(&app.env).await;
    let _: bool = redis::cmd("PEXPIRE")
        .arg(counter(&reader))
        .arg(1_500)
        .query_async(&mut redis)
        .await
        .unwrap();
    let refused = reader.update(session, 50.0).await;
    let wait = retry_after(&refused);
    assert!((1..=2).contains(&wait), "{wait}");
    assert_eq!(refused.problem_code(429), "quota");
    until("the budget renews", Duration::from_secs(5), async || {
        reader.update(session, 51.0).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn processes_share_one_budget() {
    let app = App::with_settings(budget(20_000)).await;
    let mut settings = app::settings(&app.env, &[Role::Api]);
    budget(20_000)(&mut settings);
    let other = App::run(app.stack.clone(), app.env.clone(), &settings).await;
    let here = app.reader();
    let there = here.at(&other.url);
    let session = id(&here.start(Uuid::new_v4()).await.ok());
    let mut accepted = 0;
    for position in 0..100 {
        let reader = if position % 2 == 0 { &here } else { &there };
        accepted += i32::from(reader.update(session, f64::from(position)).await.status == 200);
    }
    // An update stores between 400 and 1,000 bytes.
    assert!((20..=50).contains(&accepted), "{accepted}");
    for reader in [here, there] {
        let refused = reader.update(session, 1.0).await;
        assert_eq!(refused.problem_code(429), "quota");
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn without_redis_each_process_counts_stored_bytes() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let mut settings = app::settings(&env, &Role::ALL);
    budget(5_000)(&mut settings);
    settings.rate_limit.deadline = Duration::from_millis(10);
    let app = App::run(stack, env, &settings).await;
    app.stack.servers.lock().await.redis.pause().unwrap();
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let refused = use_up(&reader, session).await;
    assert!(retry_after(&refused) > DAY - 600);
    assert_eq!(refused.problem_code(429), "quota");

    // The shared count takes over. It lacks the bytes that were on their way when Redis
    // stopped responding.
    app.stack.servers.lock().await.redis.resume().unwrap();
    until("Redis has counted the bytes", app::SETTLE, async || {
        let response = reader.update(session, 1.0).await;
        let counted: Option<u64> = redis::cmd("GET")
            .arg(counter(&reader))
            .query_async(&mut redis(&app.env).await)
            .await
            .unwrap();
        response.status == 429 && counted >= Some(5_000)
    })
    .await;
}

/// A command continues after its client has disconnected, and so does the count.
#[tokio::test]
async fn stored_bytes_count_also_if_the_caller_has_gone() {
    let env = Stack::shared().await.new_env().await;
    let pool = app::pool(&env).await;
    let (feed, _commits) = commit_feed::channel();
    let (appender, task) = Appender::new(pool.clone(), feed, |_| {});
    tokio::spawn(task);
    let stored = StoredBytes::default();
    let reader_id = ReaderId::from(Uuid::new_v4());
    let now = eventlog::clock::now();
    let append = Append {
        events: vec![NewEvent {
            session_id: SessionId::new(now),
            sequence: 1,
            event: SessionEvent::SessionErased(domain::event::SessionErased {
                reader_id,
                erased_at: now,
            }),
            metadata: "{}".to_owned(),
        }],
        meter: Some(stored.meter(reader_id)),
        ..Append::default()
    };
    // The queue has the command after the first poll of this future.
    let gone = appender.append(append);
    assert!(futures::FutureExt::now_or_never(gone).is_none());
    let mut taken = None;
    until("the bytes are recorded", app::SETTLE, async || {
        taken = stored.take(reader_id);
        taken.is_some()
    })
    .await;
    assert!(taken.unwrap().bytes() > EVENT_OVERHEAD);
    assert_eq!(events(&pool).await, 1);
}

/// The size of all tables and indexes, in bytes.
async fn database_size(pool: &PgPool) -> i64 {
    sqlx::query_scalar(
        "select sum(pg_total_relation_size(oid))::bigint from pg_class
        where relkind = 'r' and relnamespace in ('public'::regnamespace, 'read'::regnamespace)",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// A batch with 14 long locators, which Postgres can hardly compress. It is almost as large
/// as a body may be.
fn large_batch(session: Uuid) -> Value {
    let locator = || -> String {
        (0..125)
            .map(|_| Uuid::new_v4().simple().to_string())
            .collect()
    };
    let updates = (0..14).map(|position| {
        json!({ "session_id": session, "current_position": position, "locator": locator() })
    });
    json!({ "updates": updates.collect::<Vec<_>>() })
}

#[tokio::test]
async fn flood_of_one_reader_affects_neither_other_readers_nor_the_disks() {
    const BUDGET: u64 = 1_000_000;
    const CALLS: usize = 200;
    const CONCURRENT: usize = 4;
    let app = App::with_settings(|settings| {
        budget(BUDGET)(settings);
        settings.rate_limit.high_frequency = NonZeroU32::new(100_000).unwrap();
    })
    .await;
    let (flooder, other) = (app.reader(), app.reader());
    let target = id(&flooder.start(Uuid::new_v4()).await.ok());
    let read = id(&other.start(Uuid::new_v4()).await.ok());
    let before = database_size(&app.pool).await;

    let flood = join_all((0..CONCURRENT).map(async |task| {
        let mut refused = 0;
        for n in (task..CALLS).step_by(CONCURRENT) {
            let name = format!("key-{n}");
            let key = [("idempotency-key", name.as_str())];
            let body = Some(large_batch(target));
            let response = flooder
                .call_with(Method::POST, "/batch-update", &key, body)
                .await;
            if response.status == 200 {
                assert_eq!(response.body["success_count"], 14);
            } else {
                assert_eq!(response.problem_code(429), "quota");
                refused += 1;
            }
        }
        refused
    }));
    let reading = async {
        for position in 1..=50 {
            let updated = other.update(read, f64::from(position)).await;
            assert_eq!(updated.ok()["end_position"], position);
        }
    };
    let (refused, ()) = tokio::join!(flood, reading);
    // 200 batches of 56 KB are more than ten times the budget.
    let refused: usize = refused.into_iter().sum();
    assert!(refused > CALLS * 4 / 5, "{refused}");

    // Besides the budget, only the commands that were in progress when it was used up are
    // stored. The log and the read tables, with their indexes and free space, take less
    // than four times as much; without a budget they would take more than ten times.
    app.settled().await;
    let grown = database_size(&app.pool).await - before;
    assert!(grown < 4 * 1_000_000, "{grown} bytes");
    let in_stream: usize = stream::read_all(&app.env)
        .await
        .iter()
        .map(|event| event.text.len())
        .sum();
    assert!(in_stream < 3 * 1_000_000, "{in_stream} bytes");
    let history = tokio::time::timeout(scaled(Duration::from_secs(1)), other.history(""));
    assert_eq!(history.await.unwrap().ok()["total"], 1);
    invariants::check(&app).await;
}

#[tokio::test]
async fn without_a_budget_no_command_is_refused() {
    let app = App::with_settings(budget(0)).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let reader = Arc::new(reader);
    let updates = (0..50).map(|position| reader.update(session, f64::from(position)));
    assert!(join_all(updates).await.iter().all(|one| one.status == 200));
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("rate_limit:stored_bytes:*")
        .query_async(&mut redis(&app.env).await)
        .await
        .unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}
