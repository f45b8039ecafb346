//! The pools of connections to Postgres, one for each kind of work, so that
//! none waits for another's; docs/operations.md shows them as a table. Nothing
//! connects before it is needed, so Postgres need not be there yet.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use eventlog::deadline::with_deadline;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool};

use api::routes::queries::replica::REPLICA_PATIENCE;
use api::secret::Secret;

use crate::config::{DatabaseArgs, ReplicaArgs};

/// A kind of work, and the pool that it needs.
struct PoolSpec<'a> {
    /// Postgres shows its connections as `reading-sessions-` and this.
    name: &'a str,
    /// Connections at most.
    size: u32,
    /// How long one may be waited for, connecting included.
    wait: Duration,
    /// How long a statement may take; `None` for as long as it takes.
    statement: Option<Duration>,
    /// What its statements run with besides.
    with: &'a [(&'a str, &'a str)],
}

/// How long connecting may take where nobody waits for an answer.
const CONNECT: Duration = Duration::from_secs(10);

/// One connection, which is taken for good, and room for its successor: a pool
/// takes a moment to notice that one is gone.
const SINGLE: u32 = 2;

/// All commands wait with the appender: a server that is there accepts at once,
/// and a statement must be shorter than one of the API.
const APPEND: PoolSpec = PoolSpec {
    name: "append",
    size: SINGLE,
    wait: Duration::from_secs(2),
    statement: Some(Duration::from_secs(5)),
    with: &[],
};

/// A session that leads asks for events twice a second; one that is silent has
/// lost its relay, and must not keep the lead. One that waits for a slow NATS
/// for so long loses its session too, and starts over; that is harmless, since
/// whoever leads begins at the stream's end.
const RELAY: PoolSpec = PoolSpec {
    name: "relay",
    size: SINGLE,
    wait: CONNECT,
    statement: Some(Duration::from_secs(10)),
    with: &[("idle_session_timeout", "10s")],
};

/// One each to write, one each to read ahead when there is far to go, and two
/// for leases and dead letters.
const PROJECTIONS: PoolSpec = PoolSpec {
    name: "projections",
    size: 8,
    wait: CONNECT,
    statement: Some(Duration::from_secs(30)),
    with: &PROJECTING,
};

/// One to write, one to read ahead, and one to report.
const REPLAY: PoolSpec = PoolSpec {
    name: "replay",
    size: 3,
    ..PROJECTIONS
};

/// Commits of projections need not be on disk at once: the checkpoint stands in
/// the same commit, so after a crash both are where they were and the log is
/// applied again. Their statements look rows up by key; a table that is new,
/// and has no statistics, must not be scanned for that.
const PROJECTING: [(&str, &str); 3] = [
    ("synchronous_commit", "off"),
    ("enable_seqscan", "off"),
    // A scan all the same would seem dear enough to compile the statement.
    ("jit", "off"),
];

/// A few small statements each, by people who would rather know at once that
/// Postgres does not answer; over HTTP up to sixteen at a time.
const OPERATOR: PoolSpec = PoolSpec {
    name: "operator",
    size: 8,
    wait: Duration::from_secs(5),
    statement: Some(Duration::from_secs(30)),
    with: &[],
};

/// To find out whether Postgres is there; who asks has a deadline of its own.
const HEALTH: PoolSpec = PoolSpec {
    name: "health",
    size: 1,
    wait: CONNECT,
    statement: Some(Duration::from_secs(1)),
    with: &[],
};

/// Jobs of upkeep run beside each other, and each says now and then that it goes
/// on.
const JOBS: PoolSpec = PoolSpec {
    name: "jobs",
    size: 4,
    ..MIGRATIONS
};

/// Migrations and replays take the time they take, and name the schemas they mean.
const MIGRATIONS: PoolSpec = PoolSpec {
    name: "migrations",
    size: 1,
    wait: CONNECT,
    statement: None,
    with: &[("search_path", "public")],
};

/// How long of that it may take to get a connection: where there is none, the
/// rest of the patience is of no use.
const REPLICA_WAIT: Duration = Duration::from_millis(500);

/// How long a writer waits for the log's order lock, and how long anyone may
/// sit in a transaction: a holder that hangs must not stop all others.
const LOCK_TIMEOUT: &str = "2s";
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "5s";

/// When Postgres gives up a client whose machine is gone, and with it the
/// client's locks: after three probes without an answer, or when it does not
/// take what it is sent. Without these, the kernel's hours.
const KEEPALIVE: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "10s"),
];

/// After this a connection is replaced: it must not hold memory, or a server
/// behind a name, for ever.
const LIFETIME: Duration = Duration::from_hours(1);

/// A connection that was idle for longer is asked whether it is still there
/// before it is used. A round trip before each statement would be too dear; one
/// that broke a moment ago is found out by the statement it breaks.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long a connection may take to answer that, and when it comes back.
const PING_DEADLINE: Duration = Duration::from_secs(1);

/// A pool for the API's requests.
///
/// # Errors
/// When the address is not valid.
pub fn api_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let work = PoolSpec {
        name: "api",
        size: args.database_pool_size,
        wait: args.database_pool_timeout,
        statement: Some(args.database_statement_timeout),
        with: &[],
    };
    primary(args, &work)
}

/// A pool for the API's reads of read tables at a replica, when there is one.
///
/// # Errors
/// When its address is not valid.
pub fn reads_pool(args: &DatabaseArgs, replica: &ReplicaArgs) -> anyhow::Result<Option<PgPool>> {
    let Some(url) = replica.url()? else {
        return Ok(None);
    };
    let size = replica.database_read_pool_size;
    let work = PoolSpec {
        name: "reads",
        size: size.unwrap_or(args.database_pool_size),
        wait: REPLICA_WAIT,
        // The server gives up first: then its connection is good.
        statement: Some(REPLICA_PATIENCE.saturating_sub(Duration::from_millis(100))),
        with: &[],
    };
    let pool = pool(&url, &work).context("DATABASE_READ_URL")?;
    Ok(Some(pool))
}

/// A pool for the appending task.
///
/// # Errors
/// When the address is not valid.
pub fn append_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &APPEND)
}

/// A pool for the relay.
///
/// # Errors
/// When the address is not valid.
pub fn relay_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &RELAY)
}

/// A pool for the projections.
///
/// # Errors
/// When the address is not valid.
pub fn projections_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &PROJECTIONS)
}

/// A pool for a replay or a comparison: as that of the projections, but it looks
/// for read tables in another schema.
///
/// # Errors
/// When the address is not valid.
pub fn replay_pool(args: &DatabaseArgs, schema: &str) -> anyhow::Result<PgPool> {
    let path = format!("{schema},public");
    let with = [&PROJECTING[..], &[("search_path", &path)]].concat();
    let work = PoolSpec {
        with: &with,
        ..REPLAY
    };
    primary(args, &work)
}

/// A pool for an operator's calls or command.
///
/// # Errors
/// When the address is not valid.
pub fn operator_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &OPERATOR)
}

/// A pool to find out whether Postgres is there.
///
/// # Errors
/// When the address is not valid.
pub fn health_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &HEALTH)
}

/// A pool for the jobs of upkeep.
///
/// # Errors
/// When the address is not valid.
pub fn jobs_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &JOBS)
}

/// A pool for migrations and replays.
///
/// # Errors
/// When the address is not valid.
pub fn migrations_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &MIGRATIONS)
}

/// Connects once and closes. A pool tries again until its time is over, and then
/// does not say what was in its way.
///
/// # Errors
/// When the address is not valid, or Postgres does not let us in.
pub async fn reach(args: &DatabaseArgs) -> anyhow::Result<()> {
    let url = args.url()?;
    let options = options(&url, &OPERATOR).context("DATABASE_URL")?;
    let connection = with_deadline(OPERATOR.wait, PgConnection::connect_with(&options)).await;
    let connection =
        connection.with_context(|| format!("Postgres does not answer at {}", url.as_address()))?;
    Ok(connection.close().await?)
}

fn options(url: &Secret, work: &PoolSpec) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url.expose())
        .map_err(|_| anyhow::anyhow!("not an address of Postgres: {}", url.as_address()))?;
    let statement = work.statement.unwrap_or_default().as_millis();
    Ok(options
        .application_name(&format!("reading-sessions-{}", work.name))
        .options([
            // Read tables are found by name, so that a replay can swap them.
            ("search_path", "read,public"),
            ("lock_timeout", LOCK_TIMEOUT),
            (
                "idle_in_transaction_session_timeout",
                IDLE_IN_TRANSACTION_TIMEOUT,
            ),
        ])
        .options([("statement_timeout", format!("{statement}ms"))])
        .options(KEEPALIVE)
        .options(work.with.iter().copied())
        // Postgres itself tells of slow ones (`log_min_duration_statement`).
        .disable_statement_logging())
}

fn primary(args: &DatabaseArgs, work: &PoolSpec) -> anyhow::Result<PgPool> {
    pool(&args.url()?, work).context("DATABASE_URL")
}

fn pool(url: &Secret, work: &PoolSpec) -> anyhow::Result<PgPool> {
    let options = options(url, work)?;
    let pool = PgPoolOptions::new()
        .max_connections(work.size)
        .acquire_timeout(work.wait)
        .max_lifetime(LIFETIME)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TRUSTED_IDLE {
                    with_deadline(PING_DEADLINE, connection.ping()).await?;
                }
                Ok(true)
            })
        })
        // What comes back in the middle of a statement, or half open, is
        // closed: the pool asks it too, but waits for the answer without end.
        // A transaction that was begun and forgotten is over, and Postgres does
        // not write into its log that mostly there is none.
        .after_release(|connection, _| {
            Box::pin(async move {
                with_deadline(PING_DEADLINE, connection.execute("begin; rollback")).await?;
                Ok(true)
            })
        });
    Ok(pool.connect_lazy_with(options))
}
