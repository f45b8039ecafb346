//! Queries of read tables go to a replica, as long as there is one that answers;
//! what becomes of it is nobody's concern.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use services::config::{Role, Secret};
use sqlx::Executor;
use tests::app::{self, SETTLE};
use tests::process::command;
use tests::reader::id;
use tests::replica::Replica;
use tests::{App, Reader, Stack, check, wire};
use uuid::Uuid;

/// How long a read may take, whatever becomes of the replica: its patience, and
/// a busy machine.
const BOUND: Duration = Duration::from_secs(4);

/// A service that reads at an address.
async fn reading_at(stack: &Arc<Stack>, app: &App, url: String) -> App {
    let mut settings = app::settings(&app.corner, &[Role::Api]);
    settings.replica.database_read_url = Some(Secret::from(url));
    App::run(Arc::clone(stack), app.corner.clone(), &settings).await
}

/// A stack, a service that writes and projects there, a replica, and a service
/// that reads at it, as who may read only.
async fn replicated() -> (App, Replica, App) {
    let stack = Stack::own().await;
    let app = App::on(Arc::clone(&stack)).await;
    app.pool
        .execute(
            "create role reads login password 'reads';
            grant usage on schema read to reads;
            grant select on all tables in schema read to reads",
        )
        .await
        .unwrap();
    let replica = Replica::of(&stack).await;
    let url = replica.url(&app.corner);
    let (_, server) = url.split_once('@').unwrap();
    let url = format!("postgres://reads:reads@{server}");
    let reads = reading_at(&stack, &app, url).await;
    (app, replica, reads)
}

async fn read_by_the_replica(app: &App) -> u64 {
    let metrics = app.metrics().await;
    metrics.count("reading_sessions_replica_reads_total")
}

async fn fallbacks(app: &App, reason: &str) -> u64 {
    let name = format!(r#"reading_sessions_replica_fallbacks_total{{reason="{reason}"}}"#);
    app.metrics().await.count(&name)
}

/// Reads at the replica until it answers, and then once more.
async fn answers_again(reads: &App, reader: &Reader) {
    let (since, before) = (Instant::now(), read_by_the_replica(reads).await);
    while read_by_the_replica(reads).await < before + 2 {
        let _ = reader.history("").await.ok();
        assert!(since.elapsed() < SETTLE, "the replica is never asked again");
    }
}

fn total(history: &Value) -> u64 {
    history["total"].as_u64().unwrap()
}

#[tokio::test]
async fn reads_come_from_the_replica_unless_they_must_include_what_it_does_not_have() {
    let (app, replica, reads) = replicated().await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;
    replica.caught_up(&app.pool).await;
    replica.hold().await;

    let started = reader.start(Uuid::new_v4()).await;
    let position = started.header("x-global-position").to_owned();
    app.settled().await;
    let reader = reads.reader_with_id(reader.id);
    assert_eq!(total(&reader.history("").await.ok()), 1, "that is older");
    for (path, sessions) in [("/stats/daily", 1), ("/stats/weekly", 1)] {
        let stats = reader.call(Method::GET, path, None).await.ok();
        assert_eq!(stats["days"][0]["sessions"], sessions, "{path}");
    }
    for path in ["/stats/streak", "/stats/patterns"] {
        let _ = reader.call(Method::GET, path, None).await.ok();
    }
    assert_eq!(read_by_the_replica(&reads).await, 5);

    let newest = format!("?min_position={position}");
    assert_eq!(total(&reader.history(&newest).await.ok()), 2);
    let daily = format!("/stats/daily{newest}");
    let daily = reader.call(Method::GET, &daily, None).await.ok();
    assert_eq!(daily["days"][0]["sessions"], 2);
    assert_eq!(fallbacks(&reads, "behind").await, 2);
    let bad = reader.history("?min_position=-1").await;
    let _ = bad.problem(422);

    replica.go_on().await;
    replica.caught_up(&app.pool).await;
    assert_eq!(total(&reader.history("").await.ok()), 2);
    assert_eq!(total(&reader.history(&newest).await.ok()), 2);
    assert_eq!(read_by_the_replica(&reads).await, 7);
}

/// Reads without a pause until it is told to stop; tells how often, and how long
/// the longest took.
async fn read_on(
    reader: Reader,
    expected: u64,
    done: Arc<AtomicBool>,
    reads: Arc<AtomicU32>,
) -> Duration {
    let mut longest = Duration::ZERO;
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let history = reader.history("?page_size=100").await.ok();
        longest = longest.max(begun.elapsed());
        assert_eq!(total(&history), expected);
        assert_eq!(
            history["sessions"].as_array().unwrap().len() as u64,
            expected
        );
        reads.fetch_add(1, Ordering::Relaxed);
    }
    longest
}

/// Eight readers of so many sessions each, which the replica has too.
async fn eight(app: &App, replica: &Replica, sessions: u64) -> Vec<Reader> {
    let readers: Vec<_> = (0..8).map(|_| app.reader()).collect();
    for reader in &readers {
        for _ in 0..sessions {
            let session = id(&reader.start(Uuid::new_v4()).await.ok());
            let _ = reader.end(session, json!({})).await.ok();
        }
    }
    app.settled().await;
    replica.caught_up(&app.pool).await;
    readers
}

/// Does something while readers of so many sessions each read without a pause
/// elsewhere. Nobody gets an error or a wrong answer, or waits long.
async fn while_they_read(
    readers: Vec<Reader>,
    sessions: u64,
    at: &App,
    something: impl AsyncFnOnce(&Reading),
) {
    let reading = Reading::default();
    let done = Arc::new(AtomicBool::new(false));
    let one = |reader: Reader| {
        let reader = at.reader_with_id(reader.id);
        tokio::spawn(read_on(
            reader,
            sessions,
            Arc::clone(&done),
            Arc::clone(&reading.count),
        ))
    };
    let reads: Vec<_> = readers.into_iter().map(one).collect();
    something(&reading).await;
    done.store(true, Ordering::Relaxed);
    for read in reads {
        let longest = read.await.unwrap();
        assert!(longest < BOUND, "a read took {longest:?}");
    }
}

/// What they have read.
#[derive(Default)]
struct Reading {
    count: Arc<AtomicU32>,
}

impl Reading {
    /// Waits until they have read some more.
    async fn go_on(&self) {
        let (since, before) = (Instant::now(), self.count.load(Ordering::Relaxed));
        while self.count.load(Ordering::Relaxed) < before + 100 {
            assert!(since.elapsed() < SETTLE, "they do not go on reading");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn nobody_notices_that_the_replica_is_killed_or_hangs_and_it_is_asked_again_afterwards() {
    let (app, mut replica, reads) = replicated().await;
    let reader = reads.reader();
    let readers = eight(&app, &replica, 2).await;
    while_they_read(readers, 2, &reads, async |reading| {
        for _ in 0..2 {
            reading.go_on().await;
            replica.server().kill().unwrap();
            reading.go_on().await;
            replica.server().start().await.unwrap();
            answers_again(&reads, &reader).await;
        }
        replica.server().pause().unwrap();
        reading.go_on().await;
        replica.server().resume().unwrap();
        answers_again(&reads, &reader).await;
    })
    .await;
    assert!(fallbacks(&reads, "away").await > 0);
    assert!(fallbacks(&reads, "resting").await > 0);
}

#[tokio::test]
async fn a_replay_is_not_noticed_at_the_replica() {
    let (app, replica, reads) = replicated().await;
    let readers = eight(&app, &replica, 5).await;
    while_they_read(readers, 5, &reads, async |reading| {
        for projection in ["history", "daily_stats", "history"] {
            let replay = command(&app.corner).args(["replay", projection]).output();
            let replay = replay.await.unwrap();
            assert!(replay.status.success(), "{replay:?}");
            reading.go_on().await;
            replica.caught_up(&app.pool).await;
            reading.go_on().await;
        }
    })
    .await;
    assert!(read_by_the_replica(&reads).await > 100);
    check::everything(&app).await;
}

#[tokio::test]
async fn a_replica_that_is_not_there_or_not_ours_is_none() {
    let app = App::start().await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let (server, _) = app.corner.database_url.rsplit_once('/').unwrap();
    let nobody = wire::nobody().await;
    for (url, reason) in [
        (format!("postgres://reads:reads@{nobody}/reading"), "away"),
        // One without our tables.
        (format!("{server}/postgres"), "refused"),
    ] {
        let reads = reading_at(&app.stack, &app, url).await;
        let reader = reads.reader_with_id(reader.id);
        for _ in 0..3 {
            assert_eq!(total(&reader.history("").await.ok()), 1);
        }
        assert!(fallbacks(&reads, reason).await > 0, "{reason}");
        assert!(fallbacks(&reads, "resting").await > 0);
        assert_eq!(read_by_the_replica(&reads).await, 0);
        reads.stop().await;
    }
}
