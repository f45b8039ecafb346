//! NATS with the configuration of production is restarted, emptied or away for
//! long: each role goes on with what its user may do, and says so in the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::Stream;
use futures::StreamExt;
use services::config::Role;
use tests::guarded_nats::{GuardedNats, password};
use tests::process::Process;
use tests::reader::id;
use tests::stack::Corner;
use tests::{App, Reader, Stack, app, check};
use uuid::Uuid;

/// How long it may take until events come by NATS again: a client notices
/// within two heartbeats that its consumer is gone.
const LONGEST: Duration = Duration::from_secs(40);

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(started.elapsed() < LONGEST, "{what}: not in {LONGEST:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Starts a book, reads on and ends, so many times: three events each.
async fn read(reader: &Reader, times: usize) {
    for _ in 0..times {
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        let _ = reader.update(session, 12.5).await.ok();
        let _ = reader.end(session, serde_json::json!({})).await.ok();
    }
}

/// The stream as operators see it, once it holds so many events.
async fn filled(nats: &GuardedNats, events: u64) -> Stream {
    let operator = nats.user("operator", "_INBOX_operator").await;
    let jetstream = jetstream::new(operator.client);
    until("a stream of all events", async || {
        let stream = jetstream.get_stream("READING").await.ok()?;
        (stream.cached_info().state.messages >= events).then_some(stream)
    })
    .await
}

/// The stream's consumer that takes what is written.
async fn follower(stream: &Stream) -> Info {
    until("a consumer that waits", async || {
        let consumers: Vec<_> = stream.consumers().collect().await;
        let mut waiting = consumers.into_iter().flatten();
        waiting.find(|consumer| consumer.num_waiting > 0)
    })
    .await
}

/// Waits until so many events came to projections by their consumer.
async fn delivered(stream: &Stream, consumer: &str, events: u64) {
    until("events by the stream", async || {
        let info = stream.consumer_info(consumer).await.unwrap();
        (info.delivered.consumer_sequence >= events).then_some(())
    })
    .await;
}

/// Roles, each as its own user.
struct Roles {
    api: App,
    others: Vec<App>,
    corner: Corner,
}

impl Roles {
    async fn start(stack: &Arc<Stack>, nats: &GuardedNats) -> Self {
        let corner = stack.corner().await;
        let role = async |user: &str, role: Role| {
            let corner = nats.corner(&corner, user);
            let settings = app::settings(&corner, &[role]);
            App::run(Arc::clone(stack), corner, &settings).await
        };
        let relay = role("relay", Role::Relay).await;
        let _ = filled(nats, 0).await;
        let projections = role("projections", Role::Projections).await;
        Self {
            api: role("api", Role::Api).await,
            others: vec![relay, projections],
            corner: nats.corner(&corner, "reading"),
        }
    }

    async fn check(&self) {
        self.api.settled().await;
        check::all(&self.api.pool, &self.corner).await;
    }

    async fn stop(self) {
        self.api.stop().await;
        for app in self.others {
            app.stop().await;
        }
    }
}

#[tokio::test]
async fn projections_follow_again_when_their_consumer_is_gone() {
    let stack = Stack::shared().await;
    let nats = GuardedNats::start(&stack).await;
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
async fn an_emptied_nats_is_filled_and_followed_again_without_a_command() {
    let stack = Stack::shared().await;
    let mut nats = GuardedNats::start(&stack).await;
    let roles = Roles::start(&stack, &nats).await;
    read(&roles.api.reader(), 2).await;
    let stream = filled(&nats, 6).await;
    let _ = follower(&stream).await;

    nats.kill().await;
    nats.wipe();
    nats.revive().await;
    let stream = filled(&nats, 6).await;
    let consumer = follower(&stream).await;
    read(&roles.api.reader(), 2).await;
    delivered(&stream, &consumer.name, 6).await;
    roles.check().await;
    roles.stop().await;
    assert_eq!(nats.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn one_process_goes_on_after_a_restart_of_nats() {
    let stack = Stack::shared().await;
    let mut nats = GuardedNats::start(&stack).await;
    let corner = nats.corner(&stack.corner().await, "reading");
    let settings = app::settings(&corner, &Role::ALL);
    let app = App::run(stack, corner, &settings).await;
    read(&app.reader(), 5).await;
    check::everything(&app).await;
    let stream = filled(&nats, 15).await;
    let _ = follower(&stream).await;

    nats.restart().await;
    let stream = filled(&nats, 15).await;
    let consumer = follower(&stream).await;
    read(&app.reader(), 5).await;
    delivered(&stream, &consumer.name, 15).await;
    check::everything(&app).await;
    app.stop().await;
    assert_eq!(nats.violations(), Vec::<String>::new());
}

/// The lines of a log that have these words.
fn lines(log: &str, words: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains(words));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_log_tells_of_an_outage_what_there_is_to_know_and_no_more() {
    let stack = Stack::shared().await;
    let mut nats = GuardedNats::start(&stack).await;
    let corner = nats.corner(&stack.corner().await, "reading");
    let file = nats.scratch("service");
    let process = Process::logging(&corner, &file).await;
    let reader = Reader::of(Uuid::new_v4()).at(&process.url);
    let log = || std::fs::read_to_string(&file).unwrap();
    read(&reader, 2).await;
    let stream = filled(&nats, 6).await;
    let _ = follower(&stream).await;

    nats.kill().await;
    let lost = until("lost", async || lines(&log(), "NATS is lost").pop()).await;
    assert!(
        lost.contains("WARN") && lost.contains(&nats.address()),
        "{lost}"
    );
    read(&reader, 2).await;
    let waiting = "events are not published";
    until("how many wait", async || {
        let told = lines(&log(), waiting);
        (told.len() > 1 && told.last()?.contains("waiting_at_most=6")).then_some(())
    })
    .await;
    // So long that projections gave their consumer up.
    until("no heartbeats", async || {
        lines(&log(), "missed idle heartbeat").pop()
    })
    .await;

    nats.revive().await;
    until("back", async || lines(&log(), "NATS is back").pop()).await;
    until("published", async || {
        lines(&log(), "events are published again").pop()
    })
    .await;
    let stream = filled(&nats, 12).await;
    let consumer = follower(&stream).await;
    read(&reader, 2).await;
    delivered(&stream, &consumer.name, 6).await;
    assert!(process.terminate().await.success());
    let log = log();
    assert!(!log.contains(&password("reading")), "{log}");
    for once in ["NATS is lost", "NATS is back", "events are published again"] {
        assert_eq!(lines(&log, once).len(), 1, "{log}");
    }
    // Some 15 seconds, and a hundred attempts to connect.
    assert!(lines(&log, "WARN").len() < 12, "{log}");
    assert_eq!(nats.violations(), Vec::<String>::new());
}
