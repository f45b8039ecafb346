//! Connection pools to Postgres, one for each kind of work, so that no kind
//! waits for another. docs/reference/connection-pools.md lists them.
//!
//! Creating a pool opens no connection.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use api::routes::queries::replica::REPLICA_TIMEOUT;
use api::secret::Secret;
use eventlog::deadline::with_deadline;
use eventlog::error::error_chain;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool};

use super::tls::{self, TlsSettings};
use crate::config::{DatabaseArgs, ReplicaArgs};

const TLS: TlsSettings = TlsSettings {
    server: "Postgres",
    url: "DATABASE_URL",
    authorities: "sslrootcert in DATABASE_URL",
    client: "sslcert and sslkey in DATABASE_URL",
    enable: "set sslmode=verify-full in DATABASE_URL",
    disable: "remove sslmode from DATABASE_URL",
};

/// The settings of a pool.
struct PoolSpec<'a> {
    /// The suffix of `application_name` after `reading-sessions-`, and the label
    /// `pool` of the metrics.
    name: &'a str,
    max_connections: u32,
    /// The longest wait for a connection, connecting included.
    acquire_timeout: Duration,
    /// `None` for no limit.
    statement_timeout: Option<Duration>,
    /// Run-time parameters of Postgres besides those that all pools share.
    parameters: &'a [(&'a str, &'a str)],
}

/// For work that no client waits for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The appender and the relay each detach their connection from their pool, so the
/// pool does not count it. The pool opens its replacement and, during an outage, the
/// connection with which the relay counts the waiting events.
const REPLACEMENTS: u32 = 2;

/// Commands wait for the appender. Connecting must therefore be fast, and the
/// statement must time out earlier than a request's.
const APPEND: PoolSpec = PoolSpec {
    name: "append",
    max_connections: REPLACEMENTS,
    acquire_timeout: Duration::from_secs(2),
    statement_timeout: Some(Duration::from_secs(5)),
    parameters: &[],
};

/// The leading relay polls twice a second. A session that is idle for 10 s has
/// lost its relay and must not keep the leader lock. A relay that waits that
/// long for NATS loses its session too and starts again. It loses nothing,
/// because each leader starts at the end of the stream.
const RELAY: PoolSpec = PoolSpec {
    name: "relay",
    max_connections: REPLACEMENTS,
    acquire_timeout: CONNECT_TIMEOUT,
    statement_timeout: Some(Duration::from_secs(10)),
    parameters: &[("idle_session_timeout", "10s")],
};

/// For each of three workers, one connection to write and one to read ahead
/// during a catch-up; and two for leases and dead letters.
const PROJECTIONS: PoolSpec = PoolSpec {
    name: "projections",
    max_connections: 8,
    acquire_timeout: CONNECT_TIMEOUT,
    statement_timeout: Some(Duration::from_secs(30)),
    parameters: &PROJECTION_PARAMETERS,
};

/// One connection to write, one to read ahead, and one to report progress.
const REPLAY: PoolSpec = PoolSpec {
    name: "replay",
    max_connections: 3,
    ..PROJECTIONS
};

/// Postgres plans a prepared statement once per connection. Otherwise it plans the statements
/// of partitioned tables in each call if it estimates that a plan for the arguments is
/// cheaper. Planning the load of a session took a millisecond, and running it a fifth of that.
const PLAN_ONCE: (&str, &str) = ("plan_cache_mode", "force_generic_plan");

/// For statements that find rows by an index.
const INDEXED_READS: [(&str, &str); 3] = [
    // The planner must not scan a new table because it has no statistics of it yet.
    ("enable_seqscan", "off"),
    // With `enable_seqscan` off, a remaining scan has so high a cost that Postgres would
    // compile the statement.
    ("jit", "off"),
    PLAN_ONCE,
];

/// A commit contains its checkpoint. After a crash both are at their previous state, and the
/// worker applies the log again from there.
const ASYNCHRONOUS: (&str, &str) = ("synchronous_commit", "off");

const PROJECTION_PARAMETERS: [(&str, &str); 4] = [
    ASYNCHRONOUS,
    INDEXED_READS[0],
    INDEXED_READS[1],
    INDEXED_READS[2],
];

/// The batches of a replay are large, and worth a plan of their own.
const REPLAY_PARAMETERS: [(&str, &str); 3] = [ASYNCHRONOUS, INDEXED_READS[0], INDEXED_READS[1]];

/// A few small statements for each admin call or command, and at most sixteen
/// admin calls at a time.
const ADMIN: PoolSpec = PoolSpec {
    name: "admin",
    max_connections: 8,
    acquire_timeout: Duration::from_secs(5),
    statement_timeout: Some(Duration::from_secs(30)),
    parameters: &[],
};

/// The poller of the live streams, which must not delay admin calls. Its time limit for a
/// snapshot is 5 s.
const LIVE: PoolSpec = PoolSpec {
    name: "live",
    max_connections: 1,
    acquire_timeout: Duration::from_secs(2),
    statement_timeout: Some(Duration::from_secs(2)),
    parameters: &[],
};

/// The health check has a deadline of its own.
const HEALTH: PoolSpec = PoolSpec {
    name: "health",
    max_connections: 1,
    acquire_timeout: CONNECT_TIMEOUT,
    statement_timeout: Some(Duration::from_secs(1)),
    parameters: &[],
};

/// Several jobs run at a time, and each renews its lease.
const JOBS: PoolSpec = PoolSpec {
    name: "jobs",
    max_connections: 4,
    ..MIGRATIONS
};

/// Migrations and table swaps take any time, and qualify the names of tables in
/// other schemas.
const MIGRATIONS: PoolSpec = PoolSpec {
    name: "migrations",
    max_connections: 1,
    acquire_timeout: CONNECT_TIMEOUT,
    statement_timeout: None,
    parameters: &[("search_path", "public")],
};

/// Half of a read's time at the replica. A read that has no connection by then
/// goes to the primary.
const REPLICA_ACQUIRE_TIMEOUT: Duration = Duration::from_millis(500);

/// Limits every wait for a lock, also for the lock that orders appends.
const LOCK_TIMEOUT: &str = "2s";

/// A client that stalls in a transaction must not block all others.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "5s";

/// Postgres drops a client whose machine is gone after three unanswered probes,
/// or if the client does not acknowledge data for 10 s. Then it releases the
/// client's locks. The defaults of the kernel are hours.
const KEEPALIVE: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "10s"),
];

/// An older connection is replaced. This releases the memory of its server
/// process, and follows a change of the server behind a DNS name.
const MAX_LIFETIME: Duration = Duration::from_hours(1);

/// A connection that was idle for longer is pinged before it is used. A ping
/// before every statement would add a round trip to each. If a connection broke
/// within this time, the statement fails.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);

/// Also for the check of a returned connection.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The pool of the API's requests.
///
/// # Errors
/// Like all functions of this module, when the address is missing or invalid.
pub fn api_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let spec = PoolSpec {
        name: "api",
        max_connections: args.database_pool_size,
        acquire_timeout: args.database_pool_timeout,
        statement_timeout: Some(args.database_statement_timeout),
        parameters: &INDEXED_READS,
    };
    primary(args, &spec)
}

/// The pool of reads from the replica; `None` without a replica.
pub fn reads_pool(args: &DatabaseArgs, replica: &ReplicaArgs) -> anyhow::Result<Option<PgPool>> {
    let Some(url) = replica.url()? else {
        return Ok(None);
    };
    // The server must give up before the client, so that the connection stays
    // usable.
    let statement_timeout = REPLICA_TIMEOUT.saturating_sub(Duration::from_millis(100));
    let size = replica.database_read_pool_size;
    let spec = PoolSpec {
        name: "reads",
        max_connections: size.unwrap_or(args.database_pool_size),
        acquire_timeout: REPLICA_ACQUIRE_TIMEOUT,
        statement_timeout: Some(statement_timeout),
        parameters: &INDEXED_READS,
    };
    let pool = pool(&url, &spec).context("invalid DATABASE_READ_URL")?;
    Ok(Some(pool))
}

pub fn append_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &APPEND)
}

pub fn relay_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &RELAY)
}

pub fn projections_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &PROJECTIONS)
}

/// The pool of a replay or a verification: it finds read tables in `schema`
/// first.
pub fn replay_pool(args: &DatabaseArgs, schema: &str) -> anyhow::Result<PgPool> {
    let search_path = format!("{schema},public");
    let search_path = [("search_path", search_path.as_str())];
    let parameters = [&REPLAY_PARAMETERS[..], &search_path].concat();
    let spec = PoolSpec {
        parameters: &parameters,
        ..REPLAY
    };
    primary(args, &spec)
}

/// The pool of admin calls and of commands.
pub fn admin_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &ADMIN)
}

/// The pool of the live streams of the admin API.
pub fn live_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &LIVE)
}

/// The pool of the health check.
pub fn health_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &HEALTH)
}

/// The pool of background jobs.
pub fn jobs_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &JOBS)
}

/// The pool of migrations and of the table swaps of replays.
pub fn migrations_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    primary(args, &MIGRATIONS)
}

/// Connects once, to report why Postgres is unreachable: a pool retries until
/// its timeout and then loses the cause.
///
/// # Errors
/// When the address is missing or invalid, or Postgres refuses the connection or
/// does not respond.
pub(crate) async fn check_postgres(args: &DatabaseArgs) -> anyhow::Result<()> {
    let url = args.url()?;
    let options = options(&url, &ADMIN).context("invalid DATABASE_URL")?;
    let connect = PgConnection::connect_with(&options);
    let connection = with_deadline(ADMIN.acquire_timeout, connect)
        .await
        .map_err(|error| {
            anyhow!(
                "cannot connect to Postgres at {}, the address in DATABASE_URL: {}",
                url.redacted_url(),
                tls::with_advice(&error_chain(&error), TLS)
            )
        })?;
    Ok(connection.close().await?)
}

fn primary(args: &DatabaseArgs, spec: &PoolSpec) -> anyhow::Result<PgPool> {
    pool(&args.url()?, spec).context("invalid DATABASE_URL")
}

fn pool(url: &Secret, spec: &PoolSpec) -> anyhow::Result<PgPool> {
    let options = options(url, spec)?;
    let pool = PgPoolOptions::new()
        .max_connections(spec.max_connections)
        .acquire_timeout(spec.acquire_timeout)
        .max_lifetime(MAX_LIFETIME)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > PING_AFTER_IDLE {
                    with_deadline(PING_TIMEOUT, connection.ping()).await?;
                }
                Ok(true)
            })
        })
        // A connection that is returned during a statement, or half open, must
        // be closed. The pool's own ping of it would wait without a limit. The
        // rollback ends an abandoned transaction; the `begin` keeps Postgres from
        // logging a warning if there is none.
        .after_release(|connection, _| {
            Box::pin(async move {
                with_deadline(PING_TIMEOUT, connection.execute("begin; rollback")).await?;
                Ok(true)
            })
        });
    Ok(pool.connect_lazy_with(options))
}

fn options(url: &Secret, spec: &PoolSpec) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url.expose())
        .map_err(|_| anyhow!("not an address of Postgres: {}", url.redacted_url()))?;
    tls::check_postgres_files(url)?;
    // 0 disables the timeout.
    let statement_timeout = spec.statement_timeout.unwrap_or_default().as_millis();
    Ok(options
        .application_name(&format!("reading-sessions-{}", spec.name))
        .options([
            // Statements do not qualify read tables, so that a replay can swap
            // them.
            ("search_path", "read,public"),
            ("lock_timeout", LOCK_TIMEOUT),
            (
                "idle_in_transaction_session_timeout",
                IDLE_IN_TRANSACTION_TIMEOUT,
            ),
        ])
        .options([("statement_timeout", format!("{statement_timeout}ms"))])
        .options(KEEPALIVE)
        .options(spec.parameters.iter().copied())
        // Postgres logs slow statements itself (`log_min_duration_statement`).
        .disable_statement_logging())
}
