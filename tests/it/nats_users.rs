//! Each user of `nats/server.conf` can do its work and nothing else, by the word
//! of a server that runs with this very file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::consumer::AckPolicy;
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use async_nats::jetstream::consumer::push::Config as PushConfig;
use async_nats::jetstream::stream::{Config as StreamConfig, StorageType};
use futures::StreamExt;
use services::config::Role;
use tests::guarded_nats::{Connection, GuardedNats, LONGEST, USERS, password};
use tests::{App, Stack, app, check};
use uuid::Uuid;

/// Where a user's answers come.
fn inbox(user: &str) -> &'static str {
    match user {
        "operator" => "_INBOX_operator",
        "analytics" => "_INBOX_analytics",
        _ => "_INBOX",
    }
}

async fn user(nats: &GuardedNats, user: &str) -> Connection {
    nats.user(user, inbox(user)).await
}

/// The stream, with these many events in it.
async fn filled(nats: &GuardedNats, events: u64) -> jetstream::stream::Stream {
    let operator = user(nats, "operator").await;
    let jetstream = jetstream::new(operator.client);
    let started = Instant::now();
    loop {
        if let Ok(stream) = jetstream.get_stream("READING").await
            && stream.cached_info().state.messages >= events
        {
            return stream;
        }
        assert!(started.elapsed() < LONGEST, "no stream of {events} events");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts a book, reads on and ends, so many times: three events each.
async fn read(app: &App, times: usize) {
    let reader = app.reader();
    for _ in 0..times {
        let session = tests::reader::id(&reader.start(Uuid::new_v4()).await.ok());
        let _ = reader.update(session, 12.5).await.ok();
        let _ = reader.end(session, serde_json::json!({})).await.ok();
    }
}

#[tokio::test]
async fn each_role_does_its_work_as_its_own_user() {
    let stack = Stack::shared().await;
    let nats = GuardedNats::start(&stack).await;
    let corner = stack.corner().await;
    let role = async |user: &str, roles: &[Role]| {
        let corner = nats.corner(&corner, user);
        let settings = app::settings(&corner, roles);
        App::run(Arc::clone(&stack), corner, &settings).await
    };
    let relay = role("relay", &[Role::Relay]).await;
    filled(&nats, 0).await;
    let projections = role("projections", &[Role::Projections]).await;
    let maintenance = role("api", &[Role::Maintenance]).await;
    let api = role("api", &[Role::Api]).await;

    read(&api, 5).await;
    filled(&nats, 15).await;
    // The tail has a consumer: what projections see comes by the stream.
    let mut operators = user(&nats, "operator").await;
    let stream = jetstream::new(operators.client.clone());
    let stream = stream.get_stream("READING").await.unwrap();
    assert_eq!(stream.consumer_names().count().await, 1);
    app::settled(&api.pool, &api.corner).await;
    // The log, and the stream as one who may do all that roles do reads it.
    check::all(&api.pool, &nats.corner(&corner, "reading")).await;
    for app in [api, projections, relay, maintenance] {
        app.stop().await;
    }
    assert_eq!(nats.violations(), Vec::<String>::new());

    // Were something refused, the log would say so.
    let denied = "reading.sessions.started.p0";
    operators.client.publish(denied, "".into()).await.unwrap();
    assert!(operators.complaint().await.contains(denied));
    assert_eq!(nats.violations().len(), 1);
}

#[tokio::test]
async fn an_analytics_consumer_reads_and_acknowledges_and_goes_on_from_there() {
    let stack = Stack::shared().await;
    let nats = GuardedNats::start(&stack).await;
    let corner = nats.corner(&stack.corner().await, "reading");
    let settings = app::settings(&corner, &Role::ALL);
    let app = App::run(stack, corner, &settings).await;
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
            // The answer says that it was taken.
            message.double_ack().await.unwrap();
            seen.push(message.info().unwrap().stream_sequence);
        }
        let info = stream.consumer_info("minutes").await.unwrap();
        assert_eq!(info.ack_floor.stream_sequence, seen.len() as u64);
    }
    assert_eq!(seen, (1..=15).collect::<Vec<u64>>());
    assert_eq!(nats.violations(), Vec::<String>::new());
}

/// The stream of dead letters, made by one who may.
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
async fn what_an_analytics_consumer_has_sent_elsewhere_reaches_no_stream() {
    let stack = Stack::shared().await;
    let nats = GuardedNats::start(&stack).await;
    let corner = nats.corner(&stack.corner().await, "reading");
    let settings = app::settings(&corner, &Role::ALL);
    let app = App::run(stack, corner, &settings).await;
    read(&app, 2).await;
    let stream = filled(&nats, 6).await;
    let projections = user(&nats, "projections").await;
    let dead = dead_letters(&jetstream::new(projections.client.clone())).await;

    let operator = user(&nats, "operator").await;
    let wakeups = operator.client.subscribe("reading.wake").await.unwrap();
    operator.client.flush().await.unwrap();
    let analytics = user(&nats, "analytics").await;
    let jetstream = jetstream::new(analytics.client.clone());
    // The last is heard: by then the others were too, if by anybody.
    for (name, target) in [
        ("into", "reading.sessions.started.p0"),
        ("dead", "reading.dead.history"),
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
        let made = jetstream.create_consumer_on_stream(config, "READING").await;
        assert_eq!(made.is_err(), name == "into", "{name}");
    }
    let heard = wakeups.take(6).collect::<Vec<_>>();
    assert_eq!(tokio::time::timeout(LONGEST, heard).await.unwrap().len(), 6);
    for name in ["dead", "purge", "delete"] {
        let info = stream.consumer_info(name).await.unwrap();
        assert_eq!(info.delivered.consumer_sequence, 0, "{name}");
    }
    assert_eq!(dead.get_info().await.unwrap().state.messages, 0);
    check::everything(&app).await;
    app.stop().await;
}

#[tokio::test]
async fn projections_tell_of_what_they_cannot_apply_and_operators_read_it() {
    let stack = Stack::shared().await;
    let nats = GuardedNats::start(&stack).await;
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

/// What nobody may do.
const FORBIDDEN: [&str; 9] = [
    "$JS.API.STREAM.DELETE.READING",
    "$JS.API.STREAM.PURGE.READING",
    "$JS.API.STREAM.UPDATE.READING",
    "$JS.API.STREAM.MSG.DELETE.READING",
    "$JS.API.STREAM.DELETE.READING_DEAD",
    "$JS.API.STREAM.PURGE.READING_DEAD",
    "$JS.API.STREAM.CREATE.OTHER",
    "$SYS.REQ.SERVER.PING",
    "elsewhere",
];

/// What only these users may do.
const SOME_MAY: [(&str, &[&str]); 11] = [
    ("reading.sessions.started.p0", &["relay", "reading"]),
    ("$JS.API.STREAM.CREATE.READING", &["relay", "reading"]),
    (
        "$JS.API.STREAM.INFO.READING",
        &["relay", "reading", "operator", "analytics"],
    ),
    ("reading.wake", &["api", "reading"]),
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

/// What these users may listen to, and nobody else.
const HEARD: [(&str, &[&str]); 6] = [
    ("_INBOX.x.y", &["relay", "projections", "reading"]),
    ("_INBOX_operator.x.y", &["operator"]),
    ("_INBOX_analytics.x.y", &["analytics"]),
    ("reading.wake", &["relay", "reading", "operator"]),
    ("reading.sessions.>", &["operator"]),
    (">", &[]),
];

#[tokio::test]
async fn nobody_can_do_what_is_not_theirs() {
    let stack = Stack::shared().await;
    let nats = GuardedNats::start(&stack).await;
    let corner = nats.corner(&stack.corner().await, "reading");
    let settings = app::settings(&corner, &Role::ALL);
    let app = App::run(stack, corner.clone(), &settings).await;
    read(&app, 2).await;
    check::everything(&app).await;

    let mut refused = 0;
    for (name, _) in USERS {
        let mut connection = user(&nats, name).await;
        let others = SOME_MAY.iter().filter(|(_, users)| !users.contains(&name));
        let denied = FORBIDDEN.iter().chain(others.map(|(subject, _)| subject));
        for subject in denied {
            let client = &connection.client;
            client.publish(*subject, "".into()).await.unwrap();
            let complaint = connection.complaint().await;
            let expected = format!("Permissions Violation for Publish to \"{subject}\"");
            assert_eq!(complaint, expected, "{name}");
            refused += 1;
        }
        for (subject, _) in HEARD.iter().filter(|(_, users)| !users.contains(&name)) {
            let _heard = connection.client.subscribe(*subject).await.unwrap();
            let complaint = connection.complaint().await;
            let expected = format!("Permissions Violation for Subscription to \"{subject}\"");
            assert_eq!(complaint, expected, "{name}");
            refused += 1;
        }
    }
    assert_eq!(nats.violations().len(), refused);
    // All of it left nothing behind.
    check::everything(&app).await;
}

#[tokio::test]
async fn who_has_no_password_is_not_let_in() {
    let stack = Stack::shared().await;
    let nats = GuardedNats::start(&stack).await;
    for (name, password) in [
        ("relay", String::new()),
        ("relay", password("analytics")),
        ("nobody", password("relay")),
        ("", String::new()),
    ] {
        let refused = nats.connect(name, &password, "_INBOX").await;
        let kind = refused.err().expect("a refusal").kind();
        assert_eq!(kind, async_nats::ConnectErrorKind::AuthorizationViolation);
    }
}
