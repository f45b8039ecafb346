//! Queries of read tables use a replica while it is reachable. A failure of the
//! replica never causes an error or a long wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use api::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Role;
use sqlx::Executor;
use tests::app::{self, SETTLE};
use tests::process::command;
use tests::reader::id;
use tests::replica::Replica;
use tests::{App, Reader, Stack, invariants, proxy, scaled, until};
use uuid::Uuid;

/// Longest time of a read while the replica fails.
const MAX_READ_TIME: Duration = Duration::from_secs(4);

/// Starts an API service that uses the replica at `url`.
async fn start_with_replica(stack: &Arc<Stack>, app: &App, url: String) -> App {
    let mut settings = app::settings(&app.env, &[Role::Api]);
    settings.replica.database_read_url = Some(Secret::from(url));
    App::run(Arc::clone(stack), app.env.clone(), &settings).await
}

/// Starts a service on a dedicated stack, a replica, and an API service that uses the
/// replica as a read-only user.
async fn start_replicated() -> (App, Replica, App) {
    let stack = Stack::dedicated().await;
    let app = App::on(Arc::clone(&stack)).await;
    app.pool
        .execute(
            "create role reads login password 'reads';
            grant usage on schema read to reads;
            grant select on all tables in schema read to reads",
        )
        .await
        .unwrap();
    let replica = Replica::start(&stack).await;
    let url = replica.url(&app.env);
    let (_, server) = url.split_once('@').unwrap();
    let url = format!("postgres://reads:reads@{server}");
    let reads = start_with_replica(&stack, &app, url).await;
    (app, replica, reads)
}

async fn replica_reads(app: &App) -> u64 {
    let metrics = app.metrics().await;
    metrics.count("reading_sessions_replica_reads_total")
}

async fn fallbacks(app: &App, reason: &str) -> u64 {
    let name = format!(r#"reading_sessions_replica_fallbacks_total{{reason="{reason}"}}"#);
    app.metrics().await.count(&name)
}

/// Sends reads until the replica has served two of them.
async fn until_replica_serves(reads: &App, reader: &Reader) {
    let before = replica_reads(reads).await;
    until("the replica serves reads again", SETTLE, async || {
        let _ = reader.history("").await.ok();
        replica_reads(reads).await >= before + 2
    })
    .await;
}

fn total(history: &Value) -> u64 {
    history["total"].as_u64().unwrap()
}

#[tokio::test]
async fn lagging_replica_serves_reads_without_min_position() {
    let (app, replica, reads) = start_replicated().await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;
    replica.caught_up(&app.pool).await;
    replica.pause_replay().await;

    let started = reader.start(Uuid::new_v4()).await;
    let global_position = started.header("x-global-position").to_owned();
    app.settled().await;
    let reader = reads.reader_with_id(reader.id);
    assert_eq!(total(&reader.history("").await.ok()), 1, "an older state");
    for (path, sessions) in [("/stats/daily", 1), ("/stats/weekly", 1)] {
        let stats = reader.call(Method::GET, path, None).await.ok();
        assert_eq!(stats["days"][0]["sessions"], sessions, "{path}");
    }
    for path in ["/stats/streak", "/stats/patterns"] {
        let _ = reader.call(Method::GET, path, None).await.ok();
    }
    assert_eq!(replica_reads(&reads).await, 5);

    let newest = format!("?min_position={global_position}");
    assert_eq!(total(&reader.history(&newest).await.ok()), 2);
    let daily = format!("/stats/daily{newest}");
    let daily = reader.call(Method::GET, &daily, None).await.ok();
    assert_eq!(daily["days"][0]["sessions"], 2);
    assert_eq!(fallbacks(&reads, "behind").await, 2);
    let invalid = reader.history("?min_position=-1").await;
    let _ = invalid.problem(422);

    replica.resume_replay().await;
    replica.caught_up(&app.pool).await;
    assert_eq!(total(&reader.history("").await.ok()), 2);
    assert_eq!(total(&reader.history(&newest).await.ok()), 2);
    assert_eq!(replica_reads(&reads).await, 7);
}

/// Reads without a pause until `done`, and counts the reads. Returns the time of the
/// slowest one.
async fn read_until_done(
    reader: Reader,
    expected: u64,
    done: Arc<AtomicBool>,
    reads: Arc<AtomicU32>,
) -> Duration {
    let mut longest = Duration::ZERO;
    while !done.load(Ordering::Relaxed) {
        let started = Instant::now();
        let history = reader.history("?page_size=100").await.ok();
        longest = longest.max(started.elapsed());
        assert_eq!(total(&history), expected);
        assert_eq!(
            history["sessions"].as_array().unwrap().len() as u64,
            expected
        );
        reads.fetch_add(1, Ordering::Relaxed);
    }
    longest
}

/// Creates eight readers with `sessions` sessions each, and waits until the replica
/// has them.
async fn eight_readers(app: &App, replica: &Replica, sessions: u64) -> Vec<Reader> {
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

/// Runs `fault` while the readers read without a pause. Fails if a read returns an
/// error or a wrong result, or takes too long.
async fn while_reading(
    readers: Vec<Reader>,
    sessions: u64,
    at: &App,
    fault: impl AsyncFnOnce(&Reading),
) {
    let reading = Reading::default();
    let done = Arc::new(AtomicBool::new(false));
    let spawn = |reader: Reader| {
        let reader = at.reader_with_id(reader.id);
        tokio::spawn(read_until_done(
            reader,
            sessions,
            Arc::clone(&done),
            Arc::clone(&reading.count),
        ))
    };
    let reads: Vec<_> = readers.into_iter().map(spawn).collect();
    fault(&reading).await;
    done.store(true, Ordering::Relaxed);
    for read in reads {
        let longest = read.await.unwrap();
        assert!(longest < scaled(MAX_READ_TIME), "a read took {longest:?}");
    }
}

/// The number of reads so far.
#[derive(Default)]
struct Reading {
    count: Arc<AtomicU32>,
}

impl Reading {
    /// Waits for 100 more reads.
    async fn progress(&self) {
        let before = self.count.load(Ordering::Relaxed);
        until("100 more reads", SETTLE, async || {
            self.count.load(Ordering::Relaxed) >= before + 100
        })
        .await;
    }
}

#[tokio::test]
async fn killed_or_hanging_replica_causes_no_read_errors() {
    let (app, mut replica, reads) = start_replicated().await;
    let reader = reads.reader();
    let readers = eight_readers(&app, &replica, 2).await;
    while_reading(readers, 2, &reads, async |reading| {
        for _ in 0..2 {
            reading.progress().await;
            replica.server().kill().unwrap();
            reading.progress().await;
            replica.server().start().await.unwrap();
            until_replica_serves(&reads, &reader).await;
        }
        replica.server().pause().unwrap();
        reading.progress().await;
        replica.server().resume().unwrap();
        until_replica_serves(&reads, &reader).await;
    })
    .await;
    assert!(fallbacks(&reads, "away").await > 0);
    assert!(fallbacks(&reads, "resting").await > 0);
}

#[tokio::test]
async fn replay_causes_no_read_errors_on_the_replica() {
    let (app, replica, reads) = start_replicated().await;
    let readers = eight_readers(&app, &replica, 5).await;
    while_reading(readers, 5, &reads, async |reading| {
        for projection in ["history", "daily_stats", "history"] {
            let replay = command(&app.env).args(["replay", projection]).output();
            let replay = replay.await.unwrap();
            assert!(replay.status.success(), "{replay:?}");
            reading.progress().await;
            replica.caught_up(&app.pool).await;
            reading.progress().await;
        }
    })
    .await;
    assert!(replica_reads(&reads).await > 100);
    invariants::check(&app).await;
}

#[tokio::test]
async fn unreachable_or_foreign_replica_is_not_used() {
    let app = App::start().await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let (server, _) = app.env.database_url.rsplit_once('/').unwrap();
    let unused = proxy::unused_address().await;
    for (url, reason) in [
        (format!("postgres://reads:reads@{unused}/reading"), "away"),
        // A database without the read tables.
        (format!("{server}/postgres"), "refused"),
    ] {
        let reads = start_with_replica(&app.stack, &app, url).await;
        let reader = reads.reader_with_id(reader.id);
        for _ in 0..3 {
            assert_eq!(total(&reader.history("").await.ok()), 1);
        }
        assert!(fallbacks(&reads, reason).await > 0, "{reason}");
        assert!(fallbacks(&reads, "resting").await > 0);
        assert_eq!(replica_reads(&reads).await, 0);
        reads.stop().await;
    }
}
