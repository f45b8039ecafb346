//! Faults for the alerts. Each function makes a fault, waits until its alerts fire, and
//! repairs it. It does not wait until they resolve: the next fault begins meanwhile.

use std::time::Duration;

use eventlog::roles::DatabaseRole;
use jobs::Job;
use messaging::Subjects;
use projections::dead_letters::{self, DeadLetterId};
use redis::aio::MultiplexedConnection;
use server::connect;
use sqlx::{Connection, Executor, PgConnection};
use tests::log_loss::SavedLog;
use tests::process::command;
use tests::reader::id;
use tests::{Reader, app, future_events, open_files};
use tokio::process::Command;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::site::Site;
use super::traffic::Traffic;

/// Time between two repetitions of something that keeps a fault alive.
const REPEAT_INTERVAL: Duration = Duration::from_millis(100);

/// More than the threshold of `RelayBehind`.
const GAP: i64 = 20_000;

/// Runs a future again and again until the result is dropped.
fn repeat<F: Future<Output = ()> + Send>(
    mut action: impl FnMut() -> F + Send + 'static,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            action().await;
            tokio::time::sleep(REPEAT_INTERVAL).await;
        }
    });
    tasks
}

async fn signal(signal: &str, pid: u32) {
    let sent = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(sent.await.unwrap().success());
}

/// Changes the soft limit of a running process.
async fn limit_open_files(pid: u32, limit: u64) {
    let mut change = Command::new("prlimit");
    change.args(["--pid", &pid.to_string(), &format!("--nofile={limit}:")]);
    assert!(change.status().await.unwrap().success());
}

async fn operate(site: &Site, arguments: &[&str]) {
    let output = command(&site.env).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// Faults whose thresholds are 30 s. Other faults happen meanwhile.
pub struct SlowFaults {
    unreadable: i64,
}

const SLOW: [&str; 7] = [
    "ProjectionPaused",
    "ProjectionBehind",
    "DeadLetters",
    "NatsDisconnected",
    "NoRelayLeader",
    "EventsUnpublished",
    "RelayBehind",
];

impl SlowFaults {
    /// A projection is paused, an event cannot be read, and NATS is unavailable.
    pub async fn begin(site: &Site) -> Self {
        operate(site, &["projections", "pause", "history"]).await;
        let reader = Reader::with_id(Uuid::new_v4()).at(&site.urls()[0]);
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        let unreadable = future_events::append_unreadable(&site.pool, session).await;
        site.stack.servers.lock().await.nats.kill().unwrap();
        // Global positions have gaps, for example after a rollback.
        sqlx::query(
            "select setval('events_global_position', nextval('events_global_position') + $1)",
        )
        .bind(GAP)
        .execute(&site.pool)
        .await
        .unwrap();
        Self { unreadable }
    }

    pub async fn end(self, site: &mut Site) {
        site.until_firing(&SLOW).await;
        site.stack.servers.lock().await.nats.start().await.unwrap();
        future_events::make_readable(&site.pool, self.unreadable).await;
        operate(site, &["projections", "resume", "history"]).await;
        let letters = dead_letters::list(&site.pool, None, None, None, 100);
        for letter in letters.await.unwrap() {
            let id = DeadLetterId {
                projection: letter.projection,
                global_position: letter.global_position,
            };
            dead_letters::retry(&site.pool, &id).await.unwrap();
        }
    }
}

/// A lock makes requests wait, the replica and nginx are frozen, and a process has hardly
/// more files than it has open.
pub async fn requests_wait(site: &mut Site) {
    let names = [
        "HighErrorRate",
        "HighLatency",
        "ConnectionPoolNearlyExhausted",
        "ConnectionPoolExhausted",
        "ReplicaUnavailable",
        "NginxDown",
        "OpenFilesNearlyExhausted",
    ];
    let mut holder = PgConnection::connect(&site.env.admin_url).await.unwrap();
    let mut lock = holder.begin().await.unwrap();
    let tables = "lock table events in exclusive mode; lock table read.history_totals";
    lock.execute(tables).await.unwrap();
    let queries = Traffic::of_query(&site.urls()[0], "/history", 8);
    site.replica.cut();
    signal("-STOP", site.nginx.pid).await;
    let process = site.first.pid().unwrap();
    let many = open_files::soft_limit(process);
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    limit_open_files(process, open.count() as u64 * 11 / 10).await;

    site.until_firing(&names).await;
    limit_open_files(process, many).await;
    signal("-CONT", site.nginx.pid).await;
    site.replica.restore();
    queries.stop().await;
    lock.rollback().await.unwrap();
}

/// A process is killed, its DNS name disappears, and it restarts twice. An exporter ends.
pub async fn processes_end(site: &mut Site) {
    site.exporter("host").kill().await;
    site.kill_second().await;
    site.until_firing(&["ReadingSessionsDown", "ExporterDown"])
        .await;
    site.exporter("host").start().await;
    site.set_processes(false);
    site.until_resolved(&["ReadingSessionsDown", "ExporterDown"])
        .await;
    site.until_firing(&["ProcessesMissing"]).await;

    site.set_processes(true);
    site.start_second().await;
    site.kill_second().await;
    site.start_second().await;
    site.until_firing(&["ProcessRestarting"]).await;
}

/// Statements are slow, connections run out, and Redis has too little memory.
pub async fn servers_are_overloaded(site: &mut Site) {
    let names = [
        "SlowStatements",
        "PostgresConnectionsNearlyExhausted",
        "RedisMemoryNearlyFull",
        "RedisEvicting",
    ];
    let service = site.env.as_role(DatabaseRole::Service).database_url;
    let mut statements = JoinSet::new();
    statements.spawn(async move {
        let mut connection = PgConnection::connect(&service).await.unwrap();
        loop {
            connection.execute("select pg_sleep(0.3)").await.unwrap();
        }
    });
    let mut redis = connect_to_redis(site).await;
    let used = used_memory(&mut redis).await;
    set_max_memory(&mut redis, used + (1 << 20)).await;
    let fillers = {
        let redis = redis.clone();
        repeat(move || fill(redis.clone()))
    };
    let connections = site.take_connections(30).await;

    site.until_firing(&names).await;
    for connection in connections {
        connection.close().await.unwrap();
    }
    drop((statements, fillers));
    set_max_memory(&mut redis, 256 << 20).await;
}

async fn connect_to_redis(site: &Site) -> MultiplexedConnection {
    let client = redis::Client::open(site.env.redis_url.as_str()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn used_memory(redis: &mut MultiplexedConnection) -> u64 {
    let mut info = redis::cmd("INFO");
    let info: String = info.arg("memory").query_async(redis).await.unwrap();
    let mut lines = info.lines();
    let used = lines.find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}

async fn set_max_memory(redis: &mut MultiplexedConnection, bytes: u64) {
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("maxmemory").arg(bytes);
    let (): () = set.query_async(redis).await.unwrap();
}

/// Writes keys that Redis may evict.
async fn fill(mut redis: MultiplexedConnection) {
    let filler = "x".repeat(50_000);
    for _ in 0..10 {
        let key = format!("filler:{}", Uuid::new_v4());
        let mut set = redis::cmd("SET");
        set.arg(key).arg(&filler).arg("EX").arg(60);
        let _: redis::RedisResult<()> = set.query_async(&mut redis).await;
    }
}

pub async fn redis_is_unavailable(site: &mut Site) {
    let names = [
        "RedisDown",
        "RedisUnavailable",
        "LowCacheHitRate",
        "ProjectionStopped",
        "JobFailing",
    ];
    site.stack.servers.lock().await.redis.kill().unwrap();
    // A job that fails would run again after a minute.
    let pool = site.pool.clone();
    let requests = repeat(move || {
        let pool = pool.clone();
        async move { jobs::store::request(&pool, Job::WarmUp).await.unwrap() }
    });
    site.until_firing(&names).await;
    drop(requests);
    site.stack.servers.lock().await.redis.start().await.unwrap();
}

pub async fn postgres_is_unavailable(site: &mut Site) {
    let names = ["PostgresDown", "StaleReads", "RoleFailing"];
    // Stale reads come from Redis, which has been empty.
    let hits = r#"sum(rate(reading_sessions_active_reads_total{result="hit"}[5s])) > 1"#;
    site.until_returned(hits).await;
    site.stack.servers.lock().await.postgres.kill().unwrap();
    site.until_firing(&names).await;
    let mut servers = site.stack.servers.lock().await;
    servers.postgres.start().await.unwrap();
    drop(servers);
}

/// An operator empties the stream, which has reached its limit.
pub async fn stream_is_emptied(site: &Site) {
    let settings = app::settings(&site.env, &[]);
    let jetstream = connect::jetstream(&settings.nats).await.unwrap();
    let name = Subjects::new(&site.env.nats_prefix).stream().to_owned();
    let stream = jetstream.get_stream(name).await.unwrap();
    stream.purge().await.unwrap();
}

/// Postgres fails over to a server that lacks the last events.
pub async fn log_loses_events(site: &mut Site) {
    let reader = Reader::with_id(Uuid::new_v4()).at(&site.urls()[0]);
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let saved = SavedLog::save(&site.pool).await;
    let _ = reader.update(session, 10.0).await.ok();
    saved.reset(&site.pool).await;
    let _ = reader.update(session, 20.0).await.ok();
    site.until_firing(&["LogLostEvents"]).await;
    site.until_resolved(&["LogLostEvents"]).await;
}
