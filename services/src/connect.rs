//! Settings to handles: pools and clients, each with its timeouts.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use eventlog::deadline::within;
use projections::cache::Cache;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Executor, PgConnection, PgPool};

use crate::config::{DatabaseArgs, RedisArgs};

mod nats;

pub use nats::jetstream;

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

/// How long the appender waits for a connection: all commands wait with it,
/// and a server that is there accepts at once.
const APPEND_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection that comes back to a pool may take to answer.
const RELEASE_DEADLINE: Duration = Duration::from_secs(1);

/// How long an append may take. Shorter than an API statement: all commands
/// wait behind it.
const APPEND_TIMEOUT: &str = "5s";

/// How long a person waits for Postgres, and for one of its answers.
const OPERATOR_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const OPERATOR_TIMEOUT: &str = "30s";

/// How long the relay that leads may be silent. One that waits for a slow NATS
/// for so long loses its session too, and starts over; that is harmless, since
/// whoever leads begins at the stream's end.
const RELAY_SILENCE: &str = "10s";

/// Connections of the relay's and the appender's pools; each takes one for
/// good and reconnects now and then.
const SINGLE: u32 = 2;

/// Connections of the projections: one each to write, one each to read ahead
/// when there is far to go, and two for leases and dead letters.
const PROJECTIONS: u32 = 8;

/// Connections of a replay or a comparison: one to write, one to read ahead, and one to report.
const REPLAY: u32 = 3;

/// Connections of upkeep: its jobs run beside each other, and each says now and
/// then that it goes on.
const UPKEEP: u32 = 4;

/// What statements of projections run with (see [`projections_pool`]).
const PROJECTING: [(&str, &str); 4] = [
    ("statement_timeout", "30s"),
    ("synchronous_commit", "off"),
    ("enable_seqscan", "off"),
    // A scan all the same would seem dear enough to compile the statement.
    ("jit", "off"),
];

/// A pool for the API's queries.
///
/// # Errors
/// When the address is not valid. Postgres itself need not be there yet.
pub fn api_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let statement_timeout = format!("{}ms", args.database_statement_timeout.as_millis());
    let options = options(args, "api")?.options([("statement_timeout", statement_timeout)]);
    Ok(pool(args, args.database_pool_size).connect_lazy_with(options))
}

/// A pool for the appending task.
///
/// # Errors
/// When the address is not valid.
pub fn append_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let options = options(args, "append")?.options([("statement_timeout", APPEND_TIMEOUT)]);
    Ok(pool(args, SINGLE)
        .acquire_timeout(APPEND_CONNECT_TIMEOUT)
        .connect_lazy_with(options))
}

/// A pool for the relay. A session that leads asks for events twice a second;
/// one that is silent has lost its relay, and must not keep the lead.
///
/// # Errors
/// When the address is not valid.
pub fn relay_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let options = options(args, "relay")?.options([
        ("statement_timeout", "10s"),
        ("idle_session_timeout", RELAY_SILENCE),
    ]);
    Ok(pool(args, SINGLE).connect_lazy_with(options))
}

/// A pool for the projections. Their commits need not be on disk at once: the
/// checkpoint stands in the same commit, so after a crash both are where they
/// were and the log is applied again. Their statements look rows up by key; a
/// table that is new, and has no statistics, must not be scanned for that.
///
/// # Errors
/// When the address is not valid.
pub fn projections_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let options = options(args, "projections")?.options(PROJECTING);
    Ok(pool(args, PROJECTIONS).connect_lazy_with(options))
}

/// A pool for a replay or a comparison: as that of the projections, but it looks for read
/// tables in another schema.
///
/// # Errors
/// When the address is not valid.
pub fn replay_pool(args: &DatabaseArgs, schema: &str) -> anyhow::Result<PgPool> {
    let options = options(args, "replay")?
        .options(PROJECTING)
        .options([("search_path", format!("{schema},public"))]);
    Ok(pool(args, REPLAY).connect_lazy_with(options))
}

/// Connects once and closes. A pool tries again until its time is over, and then
/// does not say what was in its way.
///
/// # Errors
/// When the address is not valid, or Postgres does not let us in.
pub async fn reach(args: &DatabaseArgs) -> anyhow::Result<()> {
    let options = options(args, "operator")?;
    let address = args.url()?.as_address();
    let connecting = within(
        OPERATOR_CONNECT_TIMEOUT,
        PgConnection::connect_with(&options),
    );
    let connection = connecting.await;
    let connection =
        connection.with_context(|| format!("Postgres does not answer at {address}"))?;
    Ok(connection.close().await?)
}

/// A pool to find out whether Postgres is there.
///
/// # Errors
/// When the address is not valid.
pub fn pulse_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    Ok(pool(args, 1).connect_lazy_with(options(args, "pulse")?))
}

/// A pool for an operator's command: a few small statements, by a person who
/// would rather know at once that Postgres does not answer.
///
/// # Errors
/// When the address is not valid.
pub fn operator_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let options = options(args, "operator")?.options([("statement_timeout", OPERATOR_TIMEOUT)]);
    Ok(pool(args, SINGLE)
        .acquire_timeout(OPERATOR_CONNECT_TIMEOUT)
        .connect_lazy_with(options))
}

/// A pool for the jobs of upkeep, of which several may be run at the same time.
///
/// # Errors
/// When the address is not valid.
pub fn upkeep_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let options = options(args, "upkeep")?.options([("search_path", "public")]);
    Ok(pool(args, UPKEEP).connect_lazy_with(options))
}

/// A pool for migrations, which take the time they take and name
/// the schemas they mean.
///
/// # Errors
/// When the address is not valid.
pub fn maintenance_pool(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let options = options(args, "maintenance")?.options([("search_path", "public")]);
    Ok(pool(args, 1).connect_lazy_with(options))
}

fn options(args: &DatabaseArgs, role: &str) -> anyhow::Result<PgConnectOptions> {
    let url = args.url()?;
    let options = PgConnectOptions::from_str(url.expose()).map_err(|_| {
        anyhow::anyhow!(
            "DATABASE_URL is not an address of Postgres: {}",
            url.as_address()
        )
    })?;
    Ok(options
        .application_name(&format!("reading-sessions-{role}"))
        .options([
            // Read tables are found by name, so that a replay can swap them.
            ("search_path", "read,public"),
            ("lock_timeout", LOCK_TIMEOUT),
            (
                "idle_in_transaction_session_timeout",
                IDLE_IN_TRANSACTION_TIMEOUT,
            ),
            // A `rollback` that has nothing to do (see `pool`) is no news.
            ("client_min_messages", "error"),
        ])
        .options(KEEPALIVE))
}

fn pool(args: &DatabaseArgs, size: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(args.database_pool_timeout)
        // A connection that broke is found out by the statement it breaks; a
        // round trip before each one is too dear for that.
        .test_before_acquire(false)
        // What comes back in the middle of a statement, or half open, is
        // closed: the pool asks it too, but waits for the answer without end.
        .after_release(|connection, _| {
            Box::pin(async move {
                within(RELEASE_DEADLINE, connection.execute("rollback")).await?;
                Ok(true)
            })
        })
        .max_lifetime(Duration::from_hours(1))
}

/// Redis. It need not be there yet.
///
/// # Errors
/// When the address is not valid.
pub fn cache(args: &RedisArgs) -> anyhow::Result<Cache> {
    let url = args.url()?;
    let client = redis::Client::open(url.expose()).map_err(|_| {
        anyhow::anyhow!("REDIS_URL is not an address of Redis: {}", url.as_address())
    })?;
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_max_delay(Duration::from_millis(500))
        .set_connection_timeout(Some(Duration::from_secs(1)))
        .set_response_timeout(Some(Duration::from_secs(2)))
        .set_pipeline_buffer_size(1_024);
    let connection =
        ConnectionManager::new_lazy_with_config(client, config).context("cannot use Redis")?;
    Ok(Cache::new(connection))
}
