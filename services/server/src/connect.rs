//! Connections from settings: pools and clients, each with its timeouts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use projections::cache::Cache;
use projections::operations::{Connections, ProjectionOps};
use projections::zones::Zones;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use crate::config::{DatabaseArgs, RedisArgs};

mod nats;
mod nats_permissions;
mod pool_metrics;
mod pools;

pub(crate) use nats::check_nats;
pub use nats::{jetstream, jetstream_with_health};
pub use pool_metrics::PoolMetrics;
pub(crate) use pools::check_postgres;
pub use pools::{
    admin_pool, api_pool, append_pool, health_pool, jobs_pool, migrations_pool, projections_pool,
    reads_pool, relay_pool, replay_pool,
};

/// A longer pause between attempts would delay recovery.
const REDIS_MAX_RECONNECT_DELAY: Duration = Duration::from_millis(500);

const REDIS_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// For calls without a shorter deadline of their own.
const REDIS_RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Commands that wait for the connection at most.
const REDIS_MAX_PIPELINED: usize = 1_024;

/// A client of Redis, which need not run yet.
///
/// # Errors
/// When the address is missing or invalid.
pub fn cache(args: &RedisArgs) -> anyhow::Result<Cache> {
    let url = args.url()?;
    let client = redis::Client::open(url.expose()).map_err(|_| {
        anyhow!(
            "REDIS_URL is not an address of Redis: {}",
            url.redacted_url()
        )
    })?;
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_max_delay(REDIS_MAX_RECONNECT_DELAY)
        .set_connection_timeout(Some(REDIS_CONNECT_TIMEOUT))
        .set_response_timeout(Some(REDIS_RESPONSE_TIMEOUT))
        .set_pipeline_buffer_size(REDIS_MAX_PIPELINED);
    let connection = ConnectionManager::new_lazy_with_config(client, config)
        .context("cannot create a client of Redis")?;
    Ok(Cache::new(connection))
}

/// Opens the connections of replays, verifications and warm-ups when they start.
#[must_use]
pub fn projection_ops(database: &DatabaseArgs, redis: &RedisArgs, zones: Zones) -> ProjectionOps {
    let (for_migrations, for_projections) = (database.clone(), database.clone());
    let (for_replay, redis) = (database.clone(), redis.clone());
    let connections = Connections {
        migrations: Arc::new(move || Ok(migrations_pool(&for_migrations)?)),
        projections: Arc::new(move || Ok(projections_pool(&for_projections)?)),
        replay: Arc::new(move |schema| Ok(replay_pool(&for_replay, schema)?)),
        cache: Arc::new(move || Ok(cache(&redis)?)),
    };
    ProjectionOps::new(connections, zones)
}
