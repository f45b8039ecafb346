//! The stream of events has limits. The oldest events leave it, so publishing never stops,
//! and the relay and the projections miss nothing.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::{Compression, Config, Stream};
use async_nats::jetstream::{self, Context};
use eventlog::read;
use futures::StreamExt;
use messaging::Subjects;
use serde_json::{Value, json};
use server::config::{Role, ServeArgs, StreamCompression};
use server::connect;
use sqlx::PgPool;
use tests::production_nats::ProductionNats;
use tests::reader::id;
use tests::stack::TestEnv;
use tests::{App, Stack, app, eventually, invariants, scaled, stream, until};
use uuid::Uuid;

async fn jetstream(env: &TestEnv) -> Context {
    connect::jetstream(&app::settings(env, &[]).nats)
        .await
        .unwrap()
}

async fn event_stream(env: &TestEnv) -> Stream {
    let name = Subjects::new(&env.nats_prefix).stream().to_owned();
    jetstream(env).await.get_stream(name).await.unwrap()
}

/// Starts a session and updates it, so that the log has `events` more events.
async fn append(app: &App, events: u32) {
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    for position in 1..events {
        let _ = reader.update(session, f64::from(position)).await.ok();
    }
}

/// The ids of the events after a global position.
async fn ids_after(pool: &PgPool, global_position: i64) -> Vec<String> {
    let events = read::after(pool, global_position, 10_000).await.unwrap();
    events.iter().map(eventlog::StoredEvent::id).collect()
}

/// Waits until the stream contains these events and no other ones.
async fn until_stream_contains(env: &TestEnv, expected: &[String]) {
    until("the expected events", app::SETTLE, async || {
        let published = stream::read_all(env).await;
        published.iter().map(|one| &one.message_id).eq(expected)
    })
    .await;
}

/// Waits until the relay has saved the end of the stream.
async fn until_cursor_is_saved(env: &TestEnv, global_position: i64) {
    until("the cursor is saved", app::SETTLE, async || {
        saved_cursor(env).await["global_position"] == global_position
    })
    .await;
}

async fn saved_cursor(env: &TestEnv) -> Value {
    let subjects = Subjects::new(&env.nats_prefix);
    let Ok(saved) = jetstream(env)
        .await
        .get_stream(subjects.cursor_stream())
        .await
    else {
        return Value::Null;
    };
    match saved
        .get_last_raw_message_by_subject(&subjects.cursor("relay"))
        .await
    {
        Ok(message) => serde_json::from_slice(&message.payload).unwrap(),
        Err(_) => Value::Null,
    }
}

/// Starts all roles again in the environment of a service that has stopped.
async fn start_again(stack: Arc<Stack>, env: TestEnv) -> App {
    let settings = app::settings(&env, &Role::ALL);
    App::run(stack, env, &settings).await
}

#[tokio::test]
async fn limit_beyond_the_space_of_nats_is_a_named_failure() {
    let app = App::with_settings(|settings| settings.stream.max_bytes = 1_000_000_000_000).await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    until("the failure is reported", app::SETTLE, async || {
        let ready = app.client.get(format!("{}/readyz", app.admin_url));
        let failures = ready.send().await.unwrap().text().await.unwrap();
        failures.contains("relay_stopped") && failures.contains("NATS_STREAM_MAX_BYTES")
    })
    .await;
}

#[tokio::test]
async fn stream_gets_the_limits_of_the_settings() {
    let limited = |settings: &mut ServeArgs| {
        settings.stream.max_age_days = 7;
        settings.stream.max_bytes = 10_000_000;
        settings.stream.compression = StreamCompression::None;
    };
    let app = App::with_settings(limited).await;
    append(&app, 2).await;
    app.settled().await;
    let config = event_stream(&app.env).await.cached_info().config.clone();
    assert_eq!(config.max_age, Duration::from_hours(7 * 24));
    assert_eq!(config.max_bytes, 10_000_000);
    assert_ne!(config.compression, Some(Compression::S2));

    // Other settings change the existing stream, and its events stay.
    let (stack, env) = (app.stack.clone(), app.env.clone());
    app.stop().await;
    let app = start_again(stack, env).await;
    let config = eventually("the new limits", app::SETTLE, async || {
        let config = event_stream(&app.env).await.cached_info().config.clone();
        (config.max_age == Duration::from_hours(30 * 24)).then_some(config)
    })
    .await;
    assert_eq!(config.max_bytes, -1);
    assert_eq!(config.compression, Some(Compression::S2));
    append(&app, 2).await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn oldest_events_leave_a_full_stream_and_publishing_continues() {
    const MAX_BYTES: u64 = 20_000;
    let app = App::with_settings(|settings| settings.stream.max_bytes = MAX_BYTES).await;
    append(&app, 100).await;
    app.settled().await;
    let head = read::head(&app.pool).await.unwrap();
    until("the newest event is published", app::SETTLE, async || {
        let published = stream::read_all(&app.env).await;
        let last = published
            .last()
            .map(|last| last.event["globalposition"].clone());
        last == Some(json!(head.to_string()))
    })
    .await;
    let state = event_stream(&app.env).await.cached_info().state.clone();
    assert_eq!(state.last_sequence, 100);
    assert!(state.first_sequence > 50, "{state:?}");
    assert!(state.bytes <= MAX_BYTES, "{state:?}");

    until("the metrics of the stream", 2 * app::SETTLE, async || {
        let metrics = app.metrics().await;
        metrics.count("reading_sessions_stream_max_bytes") == MAX_BYTES
            && metrics.count("reading_sessions_stream_bytes") == state.bytes
            && metrics.count("reading_sessions_stream_messages") == state.messages
    })
    .await;
}

#[tokio::test]
async fn projections_read_events_that_have_left_the_stream_from_the_log() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let mut settings = app::settings(&env, &[Role::Api, Role::Relay]);
    settings.stream.max_bytes = 20_000;
    let app = App::run(stack.clone(), env.clone(), &settings).await;
    append(&app, 100).await;
    until("old events have left the stream", app::SETTLE, async || {
        let state = event_stream(&env).await.cached_info().state.clone();
        state.last_sequence == 100 && state.first_sequence > 50
    })
    .await;
    let settings = app::settings(&env, &[Role::Projections]);
    let projections = App::run(stack, env, &settings).await;
    append(&app, 10).await;
    projections.settled().await;
    let log = invariants::read_log(&app.pool).await;
    let sessions = invariants::fold(&log);
    invariants::history_matches_the_log(&app.pool, &sessions).await;
    invariants::statistics_match_the_log(&app.pool, &log).await;
    invariants::cache_matches_the_log(&app.env, &sessions).await;
}

/// Lets JetStream remove every message by its age, then restores the configuration.
async fn expire_all(env: &TestEnv) {
    let stream = event_stream(env).await;
    let original = stream.cached_info().config.clone();
    let short = Config {
        max_age: Duration::from_millis(500),
        duplicate_window: Duration::from_millis(500),
        ..original.clone()
    };
    let jetstream = jetstream(env).await;
    jetstream.update_stream(short).await.unwrap();
    until(
        "every message has left the stream",
        app::SETTLE,
        async || stream.get_info().await.unwrap().state.messages == 0,
    )
    .await;
    jetstream.update_stream(original).await.unwrap();
}

#[tokio::test]
async fn relay_resumes_without_gap_or_duplicate_after_all_events_have_expired() {
    let app = App::start().await;
    append(&app, 5).await;
    invariants::check(&app).await;
    let head = read::head(&app.pool).await.unwrap();
    until_cursor_is_saved(&app.env, head).await;
    let (stack, env) = (app.stack.clone(), app.env.clone());
    app.stop().await;
    expire_all(&env).await;

    let app = start_again(stack, env).await;
    append(&app, 3).await;
    let expected = ids_after(&app.pool, head).await;
    assert_eq!(expected.len(), 3);
    until_stream_contains(&app.env, &expected).await;
    let first = &stream::read_all(&app.env).await[0].event;
    assert_eq!(first["previousposition"], head.to_string());
    app.settled().await;
}

#[tokio::test]
async fn relay_resumes_while_it_leads_after_all_events_have_expired() {
    let app = App::start().await;
    append(&app, 2).await;
    invariants::check(&app).await;
    let head = read::head(&app.pool).await.unwrap();
    expire_all(&app.env).await;
    append(&app, 2).await;
    let expected = ids_after(&app.pool, head).await;
    until_stream_contains(&app.env, &expected).await;
}

/// A relay that was killed may have published events after it saved its cursor.
#[tokio::test]
async fn relay_counts_the_events_after_an_old_cursor() {
    let app = App::start().await;
    append(&app, 2).await;
    app.settled().await;
    let old_head = read::head(&app.pool).await.unwrap();
    until_cursor_is_saved(&app.env, old_head).await;
    let old = saved_cursor(&app.env).await;
    append(&app, 7).await;
    invariants::check(&app).await;
    let head = read::head(&app.pool).await.unwrap();
    let (stack, env) = (app.stack.clone(), app.env.clone());
    app.stop().await;
    let subject = Subjects::new(&env.nats_prefix).cursor("relay");
    let payload = serde_json::to_vec(&old).unwrap();
    let jetstream = jetstream(&env).await;
    let published = jetstream.publish(subject, payload.into()).await;
    let _ = published.unwrap().await.unwrap();
    event_stream(&env).await.purge().await.unwrap();

    let app = start_again(stack, env).await;
    append(&app, 2).await;
    let expected = ids_after(&app.pool, head).await;
    assert_eq!(expected.len(), 2);
    until_stream_contains(&app.env, &expected).await;
}

/// The cursor of a deleted stream is not the end of the one that replaced it.
#[tokio::test]
async fn relay_ignores_the_cursor_of_another_stream() {
    let app = App::start().await;
    append(&app, 4).await;
    app.settled().await;
    let head = read::head(&app.pool).await.unwrap();
    until_cursor_is_saved(&app.env, head).await;
    let (stack, env) = (app.stack.clone(), app.env.clone());
    app.stop().await;
    let config = event_stream(&env).await.cached_info().config.clone();
    let jetstream = jetstream(&env).await;
    jetstream.delete_stream(&config.name).await.unwrap();
    let stream = jetstream.create_stream(&config).await.unwrap();
    let subject = config.subjects[0].replace('>', "started.p0");
    for _ in 0..5 {
        let published = jetstream.publish(subject.clone(), "{}".into()).await;
        let _ = published.unwrap().await.unwrap();
    }
    stream.purge().await.unwrap();

    // For each attempt, the relay requests the last message of the stream.
    let attempts = format!("$JS.API.STREAM.MSG.GET.{}", config.name);
    let attempts = jetstream.client().subscribe(attempts).await.unwrap();
    jetstream.client().flush().await.unwrap();
    let app = start_again(stack, env).await;
    append(&app, 2).await;
    let three = attempts.take(3).collect::<Vec<_>>();
    let three = tokio::time::timeout(scaled(app::SETTLE), three).await;
    assert_eq!(three.unwrap().len(), 3);
    assert_eq!(stream.get_info().await.unwrap().state.messages, 0);
}

/// The relay's user may not change the stream: its limits remain until an operator changes
/// them.
#[tokio::test]
async fn relay_publishes_to_a_stream_whose_limits_only_an_operator_may_change() {
    let stack = Stack::shared().await;
    let nats = ProductionNats::with_all_roles_user(&stack).await;
    let env = nats.env_for(&stack.new_env().await, "reading");
    let settings = app::settings(&env, &Role::ALL);
    let app = App::run(stack.clone(), env.clone(), &settings).await;
    append(&app, 2).await;
    invariants::check(&app).await;
    app.stop().await;
    assert_eq!(nats.violations(), Vec::<String>::new());

    let mut settings = app::settings(&env, &Role::ALL);
    settings.stream.max_age_days = 7;
    let app = App::run(stack, env, &settings).await;
    append(&app, 2).await;
    invariants::check(&app).await;
    assert!(nats.violations()[0].contains("$JS.API.STREAM.UPDATE.READING"));
    // The refusal is no failure of the relay.
    let metrics = app.metrics().await;
    let refused = "reading_sessions_failure{name=\"nats_permission_refused\"}";
    assert!(metrics.has("reading_sessions_failure"));
    assert_eq!(metrics.count(refused), 0);

    let operator = nats.user("operator", "_INBOX_operator").await;
    let operator = jetstream::new(operator.client);
    let stream = operator.get_stream("READING").await.unwrap();
    let config = stream.cached_info().config.clone();
    assert_eq!(config.max_age, Duration::from_hours(30 * 24));
    let wanted = Config {
        max_age: settings.stream.limits().max_age,
        ..config
    };
    let updated = operator.update_stream(wanted).await.unwrap();
    assert_eq!(updated.config.max_age, Duration::from_hours(7 * 24));
    invariants::check(&app).await;
}
