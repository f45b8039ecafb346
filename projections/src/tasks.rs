//! The tasks of the role `projections`: a worker for each projection, the fan-out that
//! feeds them, the requests to them, and the publication of dead letters.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use eventlog::health::{Failure, HealthRegistry};
use eventlog::trace::Traces;
use futures::FutureExt;
use futures::future::BoxFuture;
use messaging::{FanOut, Subjects};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::worker::{ControlHandle, Worker};
use crate::zones::Zones;
use crate::{
    ActiveSessions, DailyStats, History, Projection, TableProjection, dead_letters, flush, lease,
};

/// The connections of the tasks, and the rules that they apply.
pub struct TaskContext {
    pub pool: PgPool,
    pub cache: Cache,
    pub jetstream: jetstream::Context,
    pub subjects: Subjects,
    pub zones: Zones,
    /// How long the row of a position update waits for further ones. 0 writes every row at
    /// once.
    pub coalesce_window: Duration,
    /// Receives the failures of the workers.
    pub health: HealthRegistry,
    /// Identifies this process as the holder of leases.
    pub holder: Arc<str>,
    pub traces: Traces,
}

/// Returns all tasks. The caller spawns each of them; they run until `shutdown`.
///
/// The futures are boxed so that this crate alone compiles them (decision 0020).
#[must_use]
pub fn all(context: TaskContext, shutdown: &CancellationToken) -> Vec<BoxFuture<'static, ()>> {
    let mut tasks = Tasks {
        fan_out: FanOut::default(),
        controls: Vec::new(),
        futures: Vec::new(),
        context,
        shutdown,
    };
    let TaskContext {
        pool, cache, zones, ..
    } = &tasks.context;
    let history = History::new(pool.clone(), zones);
    let daily_stats = DailyStats::new(pool.clone(), zones);
    let active_sessions = ActiveSessions::new(cache.clone(), pool.clone());
    tasks.add_worker(history);
    tasks.add_worker(daily_stats);
    tasks.add_worker(active_sessions);
    let Tasks {
        fan_out,
        controls,
        mut futures,
        context:
            TaskContext {
                pool,
                jetstream,
                subjects,
                ..
            },
        ..
    } = tasks;
    let nats = jetstream.client();
    futures.push(flush::serve(nats, subjects.clone(), controls, shutdown.clone()).boxed());
    futures.push(
        dead_letters::publish(pool, jetstream.clone(), subjects.clone(), shutdown.clone()).boxed(),
    );
    futures.push(fan_out.run(jetstream, subjects, shutdown.clone()));
    futures
}

struct Tasks<'a> {
    context: TaskContext,
    fan_out: FanOut,
    controls: Vec<(&'static str, ControlHandle)>,
    futures: Vec<BoxFuture<'static, ()>>,
    shutdown: &'a CancellationToken,
}

impl Tasks<'_> {
    /// Adds the worker of a projection, which runs while this process holds its lease.
    fn add_worker<P: Projection + 'static>(&mut self, projection: P) {
        let TaskContext {
            pool,
            health,
            holder,
            coalesce_window,
            traces,
            ..
        } = &self.context;
        let subscription = self.fan_out.subscribe(pool.clone());
        let (worker, controls) =
            Worker::live(projection, subscription, pool.clone(), *coalesce_window);
        let run = lease::run(
            worker.with_traces(traces.clone()),
            pool.clone(),
            Arc::clone(holder),
            controls.window_closed.clone(),
            health.register(Failure::ProjectionFailing),
            self.shutdown.clone(),
        );
        self.controls.push((P::NAME, controls));
        self.futures.push(run.boxed());
    }
}
