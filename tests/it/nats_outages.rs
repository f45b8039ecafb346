//! NATS, with its production configuration, is restarted, emptied or unreachable
//! for a long time. Each role resumes with the permissions of its own user and
//! logs the outage.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::Stream;
use futures::StreamExt;
use server::config::Role;
use tests::process::Process;
use tests::production_nats::{ProductionNats, password};
use tests::reader::id;
use tests::stack::TestEnv;
use tests::{App, Reader, Stack, app, eventually, invariants, until};
use uuid::Uuid;

/// Time limit until NATS delivers events again. A client needs up to two
/// heartbeats to detect that its consumer is gone.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(40);

/// Starts, updates and ends a session, `times` times: three events each.
async fn read(reader: &Reader, times: usize) {
    for _ in 0..times {
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        let _ = reader.update(session, 12.5).await.ok();
        let _ = reader.end(session, serde_json::json!({})).await.ok();
    }
}

/// Waits until the stream contains at least `events` events; opened as the user
/// `operator`.
async fn filled(nats: &ProductionNats, events: u64) -> Stream {
    let operator = nats.user("operator", "_INBOX_operator").await;
    let jetstream = jetstream::new(operator.client);
    eventually("a stream of all events", RECOVERY_TIMEOUT, async || {
        let stream = jetstream.get_stream("READING").await.ok()?;
        (stream.cached_info().state.messages >= events).then_some(stream)
    })
    .await
}

/// The consumer of the stream that waits for new events.
async fn follower(stream: &Stream) -> Info {
    eventually("a waiting consumer", RECOVERY_TIMEOUT, async || {
        let consumers: Vec<_> = stream.consumers().collect().await;
        let mut waiting = consumers.into_iter().flatten();
        waiting.find(|consumer| consumer.num_waiting > 0)
    })
    .await
}

/// Waits until the consumer has delivered at least `events` events.
async fn delivered(stream: &Stream, consumer: &str, events: u64) {
    until("delivered events", RECOVERY_TIMEOUT, async || {
        let info = stream.consumer_info(consumer).await.unwrap();
        info.delivered.consumer_sequence >= events
    })
    .await;
}

/// One service per role, each connected as its own NATS user.
struct Roles {
    api: App,
    others: Vec<App>,
    env: TestEnv,
}

impl Roles {
    async fn start(stack: &Arc<Stack>, nats: &ProductionNats) -> Self {
        let env = stack.new_env().await;
        let role = async |user: &str, role: Role| {
            let env = nats.env_for(&env, user);
            let settings = app::settings(&env, &[role]);
            App::run(Arc::clone(stack), env, &settings).await
        };
        let relay = role("relay", Role::Relay).await;
        let _ = filled(nats, 0).await;
        let projections = role("projections", Role::Projections).await;
        Self {
            api: role("api", Role::Api).await,
            others: vec![relay, projections],
            env: nats.env_for(&env, "reading"),
        }
    }

    async fn check(&self) {
        self.api.settled().await;
        invariants::check_env(&self.api.pool, &self.env).await;
    }

    async fn stop(self) {
        self.api.stop().await;
        for app in self.others {
            app.stop().await;
        }
    }
}

#[tokio::test]
async fn projections_resume_after_their_consumer_was_deleted() {
    let stack = Stack::shared().await;
    let nats = ProductionNats::with_all_roles_user(&stack).await;
    let roles = Roles::start(&stack, &nats).await;
    read(&roles.api.reader(), 2).await;
    let stream = filled(&nats, 6).await;
    let first = follower(&stream).await;

    stream.delete_consumer(&first.name).await.unwrap();
    let next = follower(&stream).await;
    assert_ne!(next.name, first.name);
    read(&roles.api.reader(), 2).await;
    delivered(&stream, &next.name, 6).await;
    roles.check().await;
    roles.stop().await;
    assert_eq!(nats.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn emptied_nats_is_refilled_without_a_new_command() {
    let stack = Stack::shared().await;
    let mut nats = ProductionNats::with_all_roles_user(&stack).await;
    let roles = Roles::start(&stack, &nats).await;
    read(&roles.api.reader(), 2).await;
    let stream = filled(&nats, 6).await;
    let _ = follower(&stream).await;

    nats.kill().await;
    nats.delete_streams();
    nats.start_again().await;
    let stream = filled(&nats, 6).await;
    let consumer = follower(&stream).await;
    read(&roles.api.reader(), 2).await;
    delivered(&stream, &consumer.name, 6).await;
    roles.check().await;
    roles.stop().await;
    assert_eq!(nats.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn service_resumes_after_a_nats_restart() {
    let stack = Stack::shared().await;
    let mut nats = ProductionNats::with_all_roles_user(&stack).await;
    let env = nats.env_for(&stack.new_env().await, "reading");
    let settings = app::settings(&env, &Role::ALL);
    let app = App::run(stack, env, &settings).await;
    read(&app.reader(), 5).await;
    invariants::check(&app).await;
    let stream = filled(&nats, 15).await;
    let _ = follower(&stream).await;

    nats.restart().await;
    let stream = filled(&nats, 15).await;
    let consumer = follower(&stream).await;
    read(&app.reader(), 5).await;
    delivered(&stream, &consumer.name, 15).await;
    invariants::check(&app).await;
    app.stop().await;
    assert_eq!(nats.violations(), Vec::<String>::new());
}

/// The lines of a log that contain `words`.
fn lines(log: &str, words: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains(words));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn nats_outage_is_logged_once_and_without_secrets() {
    let stack = Stack::shared().await;
    let mut nats = ProductionNats::with_all_roles_user(&stack).await;
    let env = nats.env_for(&stack.new_env().await, "reading");
    let file = nats.temp_file("service");
    let process = Process::start_with_log(&env, &file).await;
    let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
    let log = || std::fs::read_to_string(&file).unwrap();
    read(&reader, 2).await;
    let stream = filled(&nats, 6).await;
    let _ = follower(&stream).await;

    nats.kill().await;
    let line = async |words: &str| {
        eventually(words, RECOVERY_TIMEOUT, async || lines(&log(), words).pop()).await
    };
    let lost = line("lost; reconnecting").await;
    assert!(
        lost.contains("WARN") && lost.contains(&nats.address()),
        "{lost}"
    );
    read(&reader, 2).await;
    let waiting = "publishing events failed";
    until(
        "the number of waiting events",
        RECOVERY_TIMEOUT,
        async || {
            let logged = lines(&log(), waiting);
            logged.len() > 1 && logged[logged.len() - 1].contains("waiting_at_most=6")
        },
    )
    .await;
    // The outage lasts until the projections have dropped their consumer.
    line("missed idle heartbeat").await;

    nats.start_again().await;
    line("NATS available again").await;
    line("publishing events resumed").await;
    let stream = filled(&nats, 12).await;
    let consumer = follower(&stream).await;
    read(&reader, 2).await;
    delivered(&stream, &consumer.name, 6).await;
    assert!(process.terminate().await.success());
    let log = log();
    assert!(!log.contains(&password("reading")), "{log}");
    for once in [
        "lost; reconnecting",
        "NATS available again",
        "publishing events resumed",
    ] {
        assert_eq!(lines(&log, once).len(), 1, "{log}");
    }
    // The outage lasts about 15 seconds, with about 100 connection attempts.
    assert!(lines(&log, "WARN").len() < 12, "{log}");
    assert_eq!(nats.violations(), Vec::<String>::new());
}
