//! Settings to handles: pools and clients, each with its timeouts.

use std::time::Duration;

use anyhow::Context;
use projections::cache::Cache;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use crate::config::RedisArgs;

mod nats;
mod pools;
mod usage;

pub use nats::jetstream;
pub use pools::{
    REPLICA_PATIENCE, api_pool, append_pool, maintenance_pool, operator_pool, projections_pool,
    pulse_pool, reach, reads_pool, relay_pool, replay_pool, upkeep_pool,
};
pub use usage::Usage;

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
