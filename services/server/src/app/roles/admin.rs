//! The admin listener of every process: probes and metrics, and the admin API if the process
//! can verify tokens.

use std::sync::Arc;

use api::admission::Admission;
use api::health::Readiness;
use api::routes::admin::access::Process;
use api::routes::admin::operation_queue::OperationQueue;
use api::routes::admin::recorded::RecordActions;
use api::routes::admin::{self, Handles};
use api::serve::ConnectionLimits;
use eventlog::clock;
use tokio::net::TcpListener;

use super::{ServiceBuilder, admission};
use crate::app::{Service, descriptors};
use crate::config::Role;
use crate::connect;
use crate::metrics::{AllocatorMetrics, BuildMetrics, HealthMetrics, NatsMetrics};

impl ServiceBuilder<'_> {
    /// Authentication for the admin API of a process without the role `api`.
    /// `None` if the process has the role `api`, no keys to verify tokens, or no
    /// Redis to count calls.
    pub(in crate::app) fn admission_without_api(&self) -> anyhow::Result<Option<Admission>> {
        let args = self.args;
        if args.has(Role::Api) || !args.auth.is_set() || !args.redis.is_set() {
            return Ok(None);
        }
        Ok(Some(admission(args, connect::cache(&args.redis)?)?))
    }

    /// Starts the admin listener, in every process. It serves probes and metrics,
    /// and with `admission` the admin API. It starts last, because it takes the
    /// registry with the metrics of all roles.
    pub(in crate::app) fn start_admin(
        mut self,
        listener: TcpListener,
        admission: Option<Admission>,
    ) -> anyhow::Result<Service> {
        let handles = match admission {
            Some(admission) => Some(self.admin_handles(admission)?),
            None => None,
        };
        self.register_process();
        let registry = std::mem::take(&mut self.registry);
        let readiness = Readiness {
            database: self.database_health.clone(),
            failures: self.failures.clone(),
            serves_requests: self.args.has(Role::Api),
        };
        let router = admin::router(readiness, handles, registry);
        let stop = self.service.listeners.token.clone();
        let health = self.database_health.clone();
        self.service.listeners.spawn(health.run(stop));
        let connections = ConnectionLimits {
            total: descriptors::MAX_ADMIN_CONNECTIONS,
            per_address: descriptors::MAX_ADMIN_CONNECTIONS,
            proxies: Arc::default(),
        };
        self.serve(listener, router, connections);
        Ok(self.service)
    }

    /// The dependencies of the admin API, and their tasks.
    fn admin_handles(&mut self, admission: Admission) -> anyhow::Result<Handles> {
        let args = self.args;
        let operations = connect::projection_ops(&args.database, &args.redis, self.zones.clone());
        let workers = &mut self.service.workers;
        let (operations, task) = OperationQueue::new(operations, workers.token.clone());
        workers.spawn(task);
        let pool = self.pools.track(connect::admin_pool(&args.database)?);
        let actions = RecordActions::new(pool.clone());
        let finishers = &mut self.service.finishers;
        let stop = finishers.token.clone();
        finishers.spawn(actions.clone().finish(stop));
        Ok(Handles {
            pool,
            live_pool: self.pools.track(connect::live_pool(&args.database)?),
            cache: connect::cache(&args.redis)?,
            operations,
            actions,
            admission,
            process: Process {
                name: self.service.holder.clone(),
                roles: args.roles.iter().map(|role| role.as_str()).collect(),
                started_at: domain::clock::normalize(clock::now()),
            },
            stop: self.service.listeners.token.clone(),
        })
    }

    /// The metrics that every process has.
    fn register_process(&mut self) {
        let registry = &mut self.registry;
        HealthMetrics::register(registry, self.failures.clone());
        BuildMetrics::register(registry, &self.args.roles);
        NatsMetrics::register(registry, self.jetstream.client());
        AllocatorMetrics::register(registry);
        #[cfg(target_os = "linux")]
        crate::metrics::ProcessMetrics::register(registry);
    }
}
