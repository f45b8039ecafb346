//! Settings to handles: pools and clients, each with its timeouts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use projections::cache::Cache;
use projections::operations::{Connections, ProjectionOps};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use crate::config::{DatabaseArgs, RedisArgs};

mod nats;
mod pools;
mod pool_metrics;

pub use nats::jetstream;
pub use pools::{
    api_pool, append_pool, migrations_pool, operator_pool, projections_pool,
    health_pool, reach, reads_pool, relay_pool, replay_pool, jobs_pool,
};
pub use pool_metrics::PoolMetrics;

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

/// Opens what replays, comparisons and warm-ups need.
#[must_use]
pub fn projection_ops(database: &DatabaseArgs, redis: &RedisArgs) -> ProjectionOps {
    let (for_migrations, for_projections) = (database.clone(), database.clone());
    let (for_replay, redis) = (database.clone(), redis.clone());
    ProjectionOps::new(Connections {
        migrations: Arc::new(move || migrations_pool(&for_migrations)),
        projections: Arc::new(move || projections_pool(&for_projections)),
        replay: Arc::new(move |schema| replay_pool(&for_replay, schema)),
        cache: Arc::new(move || cache(&redis)),
    })
}
