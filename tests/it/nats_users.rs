//! Each user of `nats/server.conf` has the permissions that its role needs, and
//! no more. The tests run a server with this file. Some add the user in
//! `nats/all-roles-user.conf`, for one process with all roles.

use std::sync::Arc;

use async_nats::jetstream;
use async_nats::jetstream::consumer::AckPolicy;
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use async_nats::jetstream::consumer::push::Config as PushConfig;
use async_nats::jetstream::stream::{Config as StreamConfig, StorageType};
use futures::StreamExt;
use server::config::Role;
use tests::production_nats::{Connection, ProductionNats, TIMEOUT, USERS, password};
use tests::{App, Stack, app, eventually, invariants, scaled};
use uuid::Uuid;

/// The subject prefix of the replies to a user.
fn inbox(user: &str) -> &'static str {
    match user {
        "operator" => "_INBOX_operator",
        "analytics" => "_INBOX_analytics",
        "api" => "_INBOX_api",
        _ => "_INBOX",
    }
}

async fn user(nats: &ProductionNats, user: &str) -> Connection {
    nats.user(user, inbox(user)).await
}

/// Waits until the stream contains at least `events` events; opened as the user
/// `operator`.
async fn filled(nats: &ProductionNats, events: u64) -> jetstream::stream::Stream {
    let operator = user(nats, "operator").await;
    let jetstream = jetstream::new(operator.client);
    eventually("a stream of all events", TIMEOUT, async || {
        let stream = jetstream.get_stream("READING").await.ok()?;
        (stream.cached_info().state.messages >= events).then_some(stream)
    })
    .await
}

/// Starts, updates and ends a session, `times` times: three events each.
async fn read(app: &App, times: usize) {
    let reader = app.reader();
    for _ in 0..times {
        let session = tests::reader::id(&reader.start(Uuid::new_v4()).await.ok());
        let _ = reader.update(session, 12.5).await.ok();
        let _ = reader.end(session, serde_json::json!({})).await.ok();
    }
}

#[tokio::test]
async fn each_role_works_with_its_own_nats_user() {
    let stack = Stack::shared().await;
    let nats = ProductionNats::with_all_roles_user(&stack).await;
    let env = stack.new_env().await;
    let role = async |user: &str, roles: &[Role]| {
        let env = nats.env_for(&env, user);
        let settings = app::settings(&env, roles);
        App::run(Arc::clone(&stack), env, &settings).await
    };
    let relay = role("relay", &[Role::Relay]).await;
    filled(&nats, 0).await;
    let projections = role("projections", &[Role::Projections]).await;
    let maintenance = role("api", &[Role::Jobs]).await;
    let api = role("api", &[Role::Api]).await;

    read(&api, 5).await;
    filled(&nats, 15).await;
    // The API asks the worker for the rows of a reader.
    let reader = api.reader();
    let started = reader.start(Uuid::new_v4()).await;
    let position = started.header("x-global-position");
    let history = reader.history(&format!("?min_position={position}")).await;
    assert_eq!(history.ok()["total"], 1);
    // One consumer exists: the projections receive their events by the stream.
    let mut operators = user(&nats, "operator").await;
    let stream = jetstream::new(operators.client.clone());
    let stream = stream.get_stream("READING").await.unwrap();
    assert_eq!(stream.consumer_names().count().await, 1);
    app::settled(&api.pool, &api.env).await;
    // The user `reading` has the permissions of all roles.
    invariants::check_env(&api.pool, &nats.env_for(&env, "reading")).await;
    for app in [api, projections, relay, maintenance] {
        app.stop().await;
    }
    assert_eq!(nats.violations(), Vec::<String>::new());

    // A refused publish does appear in the log of the server.
    let denied = "reading.sessions.started.p0";
    operators.client.publish(denied, "".into()).await.unwrap();
    assert!(operators.next_error().await.contains(denied));
    assert_eq!(nats.violations().len(), 1);
}

#[tokio::test]
async fn analytics_consumer_resumes_after_its_acknowledgements() {
    let stack = Stack::shared().await;
    let nats = ProductionNats::with_all_roles_user(&stack).await;
    let env = nats.env_for(&stack.new_env().await, "reading");
    let settings = app::settings(&env, &Role::ALL);
    let app = App::run(stack, env, &settings).await;
    read(&app, 5).await;
    filled(&nats, 15).await;

    let mut seen = Vec::new();
    for batch in [4, 11] {
        let connection = user(&nats, "analytics").await;
        let stream = jetstream::new(connection.client.clone());
        let stream = stream.get_stream("READING").await.unwrap();
        let config = PullConfig {
            durable_name: Some("minutes".to_owned()),
            filter_subject: "reading.sessions.>".to_owned(),
            ..PullConfig::default()
        };
        let consumer = stream.get_or_create_consumer("minutes", config).await;
        let consumer = consumer.unwrap();
        let mut messages = consumer
            .fetch()
            .max_messages(batch)
            .messages()
            .await
            .unwrap();
        while let Some(message) = messages.next().await {
            let message = message.unwrap();
            // Waits until the server confirms the acknowledgement.
            message.double_ack().await.unwrap();
            seen.push(message.info().unwrap().stream_sequence);
        }
        let info = stream.consumer_info("minutes").await.unwrap();
        assert_eq!(info.ack_floor.stream_sequence, seen.len() as u64);
    }
    assert_eq!(seen, (1..=15).collect::<Vec<u64>>());
    assert_eq!(nats.violations(), Vec::<String>::new());
}

/// Creates the stream of dead letters, if there is none.
async fn dead_letters(jetstream: &jetstream::Context) -> jetstream::stream::Stream {
    let config = StreamConfig {
        name: "READING_DEAD".to_owned(),
        subjects: vec!["reading.dead.>".to_owned()],
        storage: StorageType::File,
        ..StreamConfig::default()
    };
    jetstream.get_or_create_stream(config).await.unwrap()
}

#[tokio::test]
async fn analytics_push_consumer_cannot_write_to_a_stream() {
    let stack = Stack::shared().await;
    let nats = ProductionNats::with_all_roles_user(&stack).await;
    let env = nats.env_for(&stack.new_env().await, "reading");
    let settings = app::settings(&env, &Role::ALL);
    let app = App::run(stack, env, &settings).await;
    read(&app, 2).await;
    let stream = filled(&nats, 6).await;
    let projections = user(&nats, "projections").await;
    let dead = dead_letters(&jetstream::new(projections.client.clone())).await;

    let operator = user(&nats, "operator").await;
    let wakeups = operator.client.subscribe("reading.wake").await.unwrap();
    operator.client.flush().await.unwrap();
    let analytics = user(&nats, "analytics").await;
    let jetstream = jetstream::new(analytics.client.clone());
    // The wake-ups of the last consumer arrive. By then the messages of the
    // other consumers would have arrived, too.
    for (name, target) in [
        ("into", "reading.sessions.started.p0"),
        ("dead", "reading.dead.history"),
        ("cursor", "reading.cursor.relay"),
        ("purge", "$JS.API.STREAM.PURGE.READING"),
        ("delete", "$JS.API.STREAM.DELETE.READING"),
        ("wake", "reading.wake"),
    ] {
        let config = PushConfig {
            name: Some(name.to_owned()),
            deliver_subject: target.to_owned(),
            ack_policy: AckPolicy::None,
            headers_only: true,
            ..PushConfig::default()
        };
        let created = jetstream.create_consumer_on_stream(config, "READING").await;
        assert_eq!(created.is_err(), name == "into", "{name}");
    }
    let received = wakeups.take(6).collect::<Vec<_>>();
    assert_eq!(
        tokio::time::timeout(scaled(TIMEOUT), received)
            .await
            .unwrap()
            .len(),
        6
    );
    for name in ["dead", "cursor", "purge", "delete"] {
        let info = stream.consumer_info(name).await.unwrap();
        assert_eq!(info.delivered.consumer_sequence, 0, "{name}");
    }
    assert_eq!(dead.get_info().await.unwrap().state.messages, 0);
    invariants::check(&app).await;
    app.stop().await;
}

#[tokio::test]
async fn projections_publish_dead_letters_and_operators_read_them() {
    let stack = Stack::shared().await;
    let nats = ProductionNats::start(&stack).await;
    let projections = user(&nats, "projections").await;
    let jetstream = jetstream::new(projections.client.clone());
    let stream = dead_letters(&jetstream).await;
    let stored = jetstream.publish("reading.dead.history", "{}".into()).await;
    assert_eq!(stored.unwrap().await.unwrap().sequence, 1);
    let read = stream.get_raw_message(1).await.unwrap();
    assert_eq!(read.subject.as_str(), "reading.dead.history");

    let operator = user(&nats, "operator").await;
    let stream = jetstream::new(operator.client.clone());
    let stream = stream.get_stream("READING_DEAD").await.unwrap();
    let consumer = stream.create_consumer(PullConfig::default()).await.unwrap();
    let mut messages = consumer.fetch().max_messages(1).messages().await.unwrap();
    messages
        .next()
        .await
        .unwrap()
        .unwrap()
        .double_ack()
        .await
        .unwrap();
    assert_eq!(nats.violations(), Vec::<String>::new());
}

/// Subjects to which no user may publish.
const FORBIDDEN: [&str; 10] = [
    "$JS.API.STREAM.DELETE.READING",
    "$JS.API.STREAM.PURGE.READING",
    "$JS.API.STREAM.MSG.DELETE.READING",
    "$JS.API.STREAM.DELETE.READING_CURSOR",
    "$JS.API.STREAM.PURGE.READING_CURSOR",
    "$JS.API.STREAM.DELETE.READING_DEAD",
    "$JS.API.STREAM.PURGE.READING_DEAD",
    "$JS.API.STREAM.CREATE.OTHER",
    "$SYS.REQ.SERVER.PING",
    "elsewhere",
];

/// Subjects to which only the listed users may publish.
const RESTRICTED: [(&str, &[&str]); 15] = [
    ("reading.sessions.started.p0", &["relay", "reading"]),
    ("$JS.API.STREAM.CREATE.READING", &["relay", "reading"]),
    (
        "$JS.API.STREAM.INFO.READING",
        &["relay", "reading", "operator", "analytics"],
    ),
    ("$JS.API.STREAM.UPDATE.READING", &["operator"]),
    ("reading.cursor.relay", &["relay", "reading"]),
    (
        "$JS.API.STREAM.CREATE.READING_CURSOR",
        &["relay", "reading"],
    ),
    ("reading.wake", &["api", "reading"]),
    ("reading.flush.history", &["api", "reading"]),
    ("reading.dead.history", &["projections", "reading"]),
    (
        "$JS.API.STREAM.CREATE.READING_DEAD",
        &["projections", "reading"],
    ),
    (
        "$JS.API.STREAM.MSG.GET.READING_DEAD",
        &["projections", "reading", "operator"],
    ),
    (
        "$JS.API.CONSUMER.CREATE.READING",
        &["projections", "reading", "operator"],
    ),
    (
        "$JS.API.CONSUMER.CREATE.READING.x",
        &["operator", "analytics"],
    ),
    ("$JS.API.CONSUMER.DELETE.READING.x", &["operator"]),
    ("$JS.ACK.READING.x.1.1.1.1.0", &["operator", "analytics"]),
];

/// Subjects to which only the listed users may subscribe.
const SUBSCRIBABLE: [(&str, &[&str]); 8] = [
    ("_INBOX.x.y", &["relay", "projections", "reading"]),
    ("_INBOX_api.x.y", &["api"]),
    ("_INBOX_operator.x.y", &["operator"]),
    ("_INBOX_analytics.x.y", &["analytics"]),
    ("reading.wake", &["relay", "reading", "operator"]),
    (
        "reading.flush.history",
        &["projections", "reading", "operator"],
    ),
    ("reading.sessions.>", &["operator"]),
    (">", &[]),
];

#[tokio::test]
async fn each_user_is_denied_the_subjects_of_other_users() {
    let stack = Stack::shared().await;
    let nats = ProductionNats::with_all_roles_user(&stack).await;
    let env = nats.env_for(&stack.new_env().await, "reading");
    let settings = app::settings(&env, &Role::ALL);
    let app = App::run(stack, env.clone(), &settings).await;
    read(&app, 2).await;
    invariants::check(&app).await;

    let mut refused = 0;
    for (name, _) in USERS {
        let mut connection = user(&nats, name).await;
        let others = RESTRICTED
            .iter()
            .filter(|(_, users)| !users.contains(&name));
        let denied = FORBIDDEN.iter().chain(others.map(|(subject, _)| subject));
        for subject in denied {
            let client = &connection.client;
            client.publish(*subject, "".into()).await.unwrap();
            let complaint = connection.next_error().await;
            let expected = format!("Permissions Violation for Publish to \"{subject}\"");
            assert_eq!(complaint, expected, "{name}");
            refused += 1;
        }
        for (subject, _) in SUBSCRIBABLE
            .iter()
            .filter(|(_, users)| !users.contains(&name))
        {
            let _subscription = connection.client.subscribe(*subject).await.unwrap();
            let complaint = connection.next_error().await;
            let expected = format!("Permissions Violation for Subscription to \"{subject}\"");
            assert_eq!(complaint, expected, "{name}");
            refused += 1;
        }
    }
    assert_eq!(nats.violations().len(), refused);
    // The refused requests changed nothing.
    invariants::check(&app).await;
}

#[tokio::test]
async fn wrong_credentials_are_rejected() {
    let stack = Stack::shared().await;
    let nats = ProductionNats::start(&stack).await;
    for (name, password) in [
        // Only one process with all roles needs this user.
        ("reading", password("reading")),
        ("relay", String::new()),
        ("relay", password("analytics")),
        ("unknown", password("relay")),
        ("", String::new()),
    ] {
        let refused = nats.connect(name, &password, "_INBOX").await;
        let kind = refused.err().expect("a refusal").kind();
        assert_eq!(kind, async_nats::ConnectErrorKind::AuthorizationViolation);
    }
}
