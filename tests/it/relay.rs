//! One relay leads at a time, and every commit wakes it. If it stops, another relay
//! takes over. No relay publishes an event twice.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use eventlog::read;
use futures::StreamExt;
use messaging::Subjects;
use serde_json::{Value, json};
use server::config::Role;
use server::connect;
use sqlx::PgPool;
use tests::app::SETTLE;
use tests::holding_proxy::HoldingProxy;
use tests::process::Process;
use tests::stack::TestEnv;
use tests::{App, Reader, Stack, app, eventually, invariants, scaled, stream, until};
use uuid::Uuid;

/// Longest time until another relay replaces one that does not respond.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(20);

/// The process ids of the relays' Postgres connections.
async fn relay_pids(pool: &PgPool) -> Vec<i32> {
    sqlx::query_scalar(
        "select pid from pg_stat_activity
        where datname = current_database() and application_name = 'reading-sessions-relay'",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// Waits until a relay holds the leader lock.
async fn until_a_relay_leads(pool: &PgPool) {
    until("a relay leads", app::SETTLE, async || {
    sqlx::query_scalar(
        "select exists (select from pg_locks where locktype = 'advisory' and objid = 7340002
            and granted and database = (select oid from pg_database where datname = current_database()))",
    )
    .fetch_one(pool)
    .await
    .unwrap()
    })
    .await;
}

async fn event_stream(env: &TestEnv) -> Stream {
    let jetstream = connect::jetstream(&app::settings(env, &[]).nats)
        .await
        .unwrap();
    let name = Subjects::new(&env.nats_prefix).stream().to_owned();
    jetstream.get_stream(name).await.unwrap()
}

#[tokio::test]
async fn relay_does_not_refill_an_empty_stream_without_a_saved_cursor() {
    let app = App::start().await;
    let (stack, env) = (app.stack.clone(), app.env.clone());
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    invariants::check(&app).await;
    app.stop().await;
    event_stream(&env).await.purge().await.unwrap();
    let jetstream = connect::jetstream(&app::settings(&env, &[]).nats)
        .await
        .unwrap();
    let subjects = Subjects::new(&env.nats_prefix);
    let deleted = jetstream.delete_stream(subjects.cursor_stream()).await;
    assert!(deleted.unwrap().success);

    // For each attempt, the relay requests the last message of the stream.
    let name = subjects.stream().to_owned();
    let subject = format!("$JS.API.STREAM.MSG.GET.{name}");
    let nats = jetstream.client();
    let attempts = nats.subscribe(subject).await.unwrap();
    nats.flush().await.unwrap();
    let app = App::run(stack, env.clone(), &app::settings(&env, &Role::ALL)).await;
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    let three = attempts.take(3).collect::<Vec<_>>();
    let three = tokio::time::timeout(scaled(TAKEOVER_TIMEOUT), three).await;
    assert_eq!(three.unwrap().len(), 3);
    assert_eq!(stream::read_all(&env).await.len(), 0);

    // The logged error names the remedy: delete the stream to publish the whole log.
    jetstream.delete_stream(name.clone()).await.unwrap();
    until("the relay creates the stream", app::SETTLE, async || {
        jetstream.get_stream(&name).await.is_ok()
    })
    .await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn commit_in_another_process_wakes_the_leading_relay() {
    let app = App::start().await;
    until_a_relay_leads(&app.pool).await;
    let other = app.alongside(&Role::ALL).await;
    let nats = connect::jetstream(&app::settings(&app.env, &[]).nats)
        .await
        .unwrap()
        .client();
    let wake = Subjects::new(&app.env.nats_prefix).wake().to_owned();
    let mut wakeups = nats.subscribe(wake).await.unwrap();
    nats.flush().await.unwrap();

    let _ = other.reader().start(Uuid::new_v4()).await.ok();
    let wakeup = tokio::time::timeout(scaled(app::SETTLE), wakeups.next()).await;
    assert!(wakeup.unwrap().is_some());
    invariants::check(&app).await;
}

#[tokio::test]
async fn hanging_relay_is_replaced_and_publishes_nothing_later() {
    let env = Stack::shared().await.new_env().await;
    let pool = app::pool(&env).await;
    let hung = Process::start(&env).await;
    let reader = Reader::with_id(Uuid::new_v4());
    let _ = reader.at(&hung.url).start(Uuid::new_v4()).await.ok();
    app::settled(&pool, &env).await;
    until_a_relay_leads(&pool).await;
    let leader = relay_pids(&pool).await;
    // The process is stopped while it publishes.
    let busy = reader.at(&hung.url);
    let work = tokio::spawn(async move {
        loop {
            let _ = busy.start(Uuid::new_v4()).await.ok();
        }
    });
    let head = read::head(&pool).await.unwrap();
    until("more events in the log", app::SETTLE, async || {
        read::head(&pool).await.unwrap() > head + 20
    })
    .await;
    hung.signal("-STOP").await;
    work.abort();

    let next = Process::start(&env).await;
    let _ = reader.at(&next.url).start(Uuid::new_v4()).await.ok();
    until("Postgres drops the leader", TAKEOVER_TIMEOUT, async || {
        let relays = relay_pids(&pool).await;
        !leader.iter().any(|pid| relays.contains(pid))
    })
    .await;
    app::settled(&pool, &env).await;
    invariants::check_env(&pool, &env).await;

    let before = relay_pids(&pool).await;
    hung.signal("-CONT").await;
    until("the old relay connects again", app::SETTLE, async || {
        let relays = relay_pids(&pool).await;
        relays.iter().any(|pid| !before.contains(pid))
    })
    .await;
    let _ = reader.at(&next.url).start(Uuid::new_v4()).await.ok();
    app::settled(&pool, &env).await;
    invariants::check_env(&pool, &env).await;
}

/// Messages of a relay that has stopped are still on their way. They arrive after the next one
/// has read the number of messages, and before it reads the last of them.
#[tokio::test]
async fn messages_that_arrive_while_a_relay_resumes_leave_no_gap() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let at = |proxy: &HoldingProxy| TestEnv {
        nats_url: proxy.url.clone(),
        ..env.clone()
    };
    let relay = async |env: TestEnv| {
        let settings = app::settings(&env, &[Role::Relay]);
        App::run(Arc::clone(&stack), env, &settings).await
    };
    let api = App::run(
        Arc::clone(&stack),
        env.clone(),
        &app::settings(&env, &[Role::Api]),
    )
    .await;
    let first_proxy = HoldingProxy::start(&env.nats_url, None).await;
    let first = relay(at(&first_proxy)).await;
    let reader = api.reader();
    let session = tests::reader::id(&reader.start(Uuid::new_v4()).await.ok());
    let jetstream = connect::jetstream(&app::settings(&env, &[]).nats).await;
    let jetstream = jetstream.unwrap();
    let name = Subjects::new(&env.nats_prefix).stream().to_owned();
    let stream = eventually("the stream of one event", SETTLE, async || {
        let stream = jetstream.get_stream(&name).await.ok()?;
        (stream.cached_info().state.messages == 1).then_some(stream)
    })
    .await;

    first_proxy.hold();
    // One command, so that all of them are in one window.
    let updates: Vec<Value> = (1..=40)
        .map(|page| json!({ "session_id": session, "current_position": page }))
        .collect();
    let _ = reader.batch(Value::from(updates)).await.ok();
    until("all updates on their way", SETTLE, async || {
        first_proxy.held("Nats-Msg-Id") >= 40
    })
    .await;
    first.stop().await;
    // More than the next relay believes to follow, so that one of them takes a free place.
    for page in 1..=100 {
        let _ = reader.update(session, f64::from(page % 90)).await.ok();
    }

    let second_proxy = HoldingProxy::start(&env.nats_url, Some("STREAM.MSG.GET.")).await;
    let second = relay(at(&second_proxy)).await;
    until(
        "the next relay has read the number of messages",
        SETTLE,
        async || second_proxy.held("STREAM.MSG.GET.") > 0,
    )
    .await;
    first_proxy.release();
    until("the messages have arrived", SETTLE, async || {
        stream.get_info().await.unwrap().state.messages == 41
    })
    .await;
    second_proxy.release();
    let log = invariants::read_log(&api.pool).await;
    let head = log.last().unwrap().global_position.to_string();
    until(
        "the relay has published the last event",
        SETTLE,
        async || {
            let last = stream::read_all(&env).await.pop().unwrap();
            last.event["globalposition"] == head.as_str()
        },
    )
    .await;
    invariants::stream_matches_the_log(&env, &log).await;
    second.stop().await;
    api.stop().await;
}
