//! The tasks of the role `projections`: a worker for each projection, the fan-out that
//! feeds them, and the publication of dead letters.

use std::sync::Arc;

use async_nats::jetstream;
use eventlog::health::{Failure, HealthRegistry};
use futures::FutureExt;
use futures::future::BoxFuture;
use messaging::{FanOut, Subjects};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::worker::Worker;
use crate::zones::Zones;
use crate::{
    ActiveSessions, DailyStats, History, Projection, TableProjection, dead_letters, lease,
};

/// The connections of the tasks, and the rules that they apply.
pub struct TaskContext {
    pub pool: PgPool,
    pub cache: Cache,
    pub jetstream: jetstream::Context,
    pub subjects: Subjects,
    pub zones: Zones,
    /// Receives the failures of the workers.
    pub health: HealthRegistry,
    /// Identifies this process as the holder of leases.
    pub holder: Arc<str>,
}

/// Returns all tasks. The caller spawns each of them; they run until `shutdown`.
///
/// The futures are boxed so that this crate alone compiles them (decision 0020).
#[must_use]
pub fn all(context: TaskContext, shutdown: &CancellationToken) -> Vec<BoxFuture<'static, ()>> {
    let TaskContext {
        pool,
        cache,
        jetstream,
        subjects,
        zones,
        health,
        holder,
    } = context;
    let fan_out = FanOut::default();
    vec![
        worker(
            History::new(pool.clone(), &zones),
            &fan_out,
            &pool,
            &holder,
            &health,
            shutdown,
        ),
        worker(
            DailyStats::new(pool.clone(), &zones),
            &fan_out,
            &pool,
            &holder,
            &health,
            shutdown,
        ),
        worker(
            ActiveSessions::new(cache, pool.clone()),
            &fan_out,
            &pool,
            &holder,
            &health,
            shutdown,
        ),
        dead_letters::publish(pool, jetstream.clone(), subjects.clone(), shutdown.clone()).boxed(),
        fan_out.run(jetstream, subjects, shutdown.clone()),
    ]
}

fn worker<P: Projection + 'static>(
    projection: P,
    fan_out: &FanOut,
    pool: &PgPool,
    holder: &Arc<str>,
    health: &HealthRegistry,
    shutdown: &CancellationToken,
) -> BoxFuture<'static, ()> {
    let worker = Worker::live(projection, fan_out.subscribe(pool.clone()), pool.clone());
    let health = health.register(Failure::ProjectionFailing);
    let holder = Arc::clone(holder);
    lease::run(worker, pool.clone(), holder, health, shutdown.clone()).boxed()
}
