//! Connections from settings: pools and clients, each with its timeouts.

use std::sync::Arc;

use projections::operations::{Connections, ProjectionOps};
use projections::zones::Zones;

use crate::config::{DatabaseArgs, RedisArgs};

mod nats;
mod nats_permissions;
mod pools;
mod redis;

pub(crate) mod encryption;
mod tls;

pub use self::redis::cache;
pub(crate) use self::redis::redis_info;
pub(crate) use nats::check_nats;
pub use nats::{jetstream, jetstream_with_health, service_jetstream};
pub(crate) use pools::check_postgres;
pub use pools::{
    admin_pool, api_pool, append_pool, health_pool, jobs_pool, live_pool, migrations_pool,
    projections_pool, reads_pool, relay_pool, replay_pool,
};
pub(crate) use tls::read_certificates;

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
