//! The tasks of each role, with its pools, its clients and its metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use api::admission::Admission;
use api::auth::TokenVerifier;
use api::health::Readiness;
use api::rate_limit::Limiter;
use api::routes::admin::access::Process;
use api::routes::admin::operation_queue::OperationQueue;
use api::routes::admin::recorded::RecordActions;
use api::routes::queries::active::ActiveReads;
use api::routes::queries::replica::Replica;
use api::routes::queries::{QueryMetrics, ReadTable};
use api::serve::{self, ConnectionLimits};
use async_nats::jetstream;
use chrono::TimeDelta;
use commands::CommandService;
use commands::repository::Repository;
use domain::session::Rules;
use eventlog::commit_feed::{self, CommitFeed, CommitSubscription};
use eventlog::database_health::DatabaseHealth;
use eventlog::health::{Failure, HealthRegistry};
use eventlog::trace::Traces;
use eventlog::{Appender, Pool, clock};
use futures::FutureExt;
use futures::future::BoxFuture;
use jobs::metrics::JobMetrics;
use jobs::scheduler;
use jobs::tasks::JobContext;
use messaging::Subjects;
use messaging::relay::{self, Relay};
use projections::cache::Cache;
use projections::checkpoint::CheckpointWaiter;
use projections::flush::FlushClient;
use projections::tasks::TaskContext;
use projections::zones::Zones;
use projections::{DailyStats, History, Projection};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::descriptors;
use super::{DRAIN_TIMEOUT, Service, bind};
use crate::config::{DatabaseArgs, JobArgs, RedisArgs, Role, RuleArgs, ServeArgs};
use crate::connect;
use crate::metrics::{
    AllocatorMetrics, AppendMetrics, BuildMetrics, HealthMetrics, LossMetrics, NatsMetrics,
    PoolMetrics, ProjectionGauges, RelayGauges, StreamGauges,
};
use crate::telemetry;

/// Starts the roles of a service. All pools and metrics of a role are created in
/// this type.
pub(super) struct ServiceBuilder<'a> {
    args: &'a ServeArgs,
    service: Service,
    registry: Registry,
    pools: PoolMetrics,
    /// The pool `api`.
    pool: Pool,
    database_health: DatabaseHealth,
    /// The failures of all roles.
    failures: HealthRegistry,
    jetstream: jetstream::Context,
    subjects: Subjects,
    zones: Zones,
    traces: Traces,
}

impl<'a> ServiceBuilder<'a> {
    pub(super) async fn new(args: &'a ServeArgs, admin: SocketAddr) -> anyhow::Result<Self> {
        let zones = Zones::load();
        tracing::info!(
            version = zones.version(),
            source = %zones.source(),
            "time zone rules loaded: version {} ({})",
            zones.version(),
            zones.source()
        );
        let mut registry = Registry::default();
        let pools = PoolMetrics::new(&mut registry);
        let pool = pools.track_waits(connect::api_pool(&args.database)?);
        let failures = HealthRegistry::default();
        let health_pool = pools.track(connect::health_pool(&args.database)?);
        let database_health = DatabaseHealth::new(health_pool, &failures);
        let mut service = Service::new(admin);
        let traces = match telemetry::traces::start(args, &service.holder, &mut registry)? {
            Some((traces, exporter)) => {
                let stop = service.finishers.token.clone();
                service.finishers.spawn(exporter.run(stop));
                traces
            }
            None => Traces::default(),
        };
        let nats_refused = failures.register(Failure::NatsPermissionRefused);
        Ok(Self {
            args,
            service,
            registry,
            pools,
            pool,
            database_health,
            failures,
            jetstream: connect::service_jetstream(args, nats_refused).await?,
            subjects: Subjects::new(&args.nats.nats_prefix),
            zones,
            traces,
        })
    }

    /// Starts the appender, for the roles `api` and `jobs`.
    pub(super) fn start_commands(&mut self, feed: CommitFeed) -> anyhow::Result<CommandService> {
        let append = self.pools.track(connect::append_pool(&self.args.database)?);
        let metrics = AppendMetrics::new(&mut self.registry);
        let on_batch = move |batch| metrics.record(batch);
        let (appender, task) = Appender::new(append, feed, on_batch);
        let commands = commands(appender, &self.args.rules, self.pool.clone())?;
        self.service.writers.spawn(task);
        LossMetrics::register(&mut self.registry, commands.losses());
        Ok(commands)
    }

    /// Starts the role `api`.
    pub(super) async fn start_api(
        &mut self,
        commands: CommandService,
    ) -> anyhow::Result<Admission> {
        let args = self.args;
        let listener = bind(args.http.http_addr, "HTTP_ADDR")?;
        // Connects now, so that the first request does not wait for it.
        drop(self.pool.acquire().await?);
        self.service.http = Some(listener.local_addr()?);
        // All requests share one client and its circuit breaker.
        let cache = connect::cache(&args.redis)?;
        let admission = admission(args, cache.clone())?;
        let queries = QueryMetrics::new(&mut self.registry);
        let active = ActiveReads::new(
            commands.clone(),
            cache.clone(),
            self.database_health.clone(),
            max_log_reads(&args.database),
            queries.clone(),
            &mut self.registry,
        );
        let replica = connect::reads_pool(&args.database, &args.replica)?;
        let replica = replica
            .map(|replica| Replica::new(self.pools.track_waits(replica), &mut self.registry));
        let flush = FlushClient::new(self.jetstream.client(), self.subjects.clone());
        let table = |projection| ReadTable {
            primary: self.pool.clone(),
            checkpoint: CheckpointWaiter::new(self.pool.clone(), projection, flush.clone()),
            replica: replica.clone(),
            zones: self.zones.clone(),
            metrics: queries.clone(),
        };
        let handles = api::Handles {
            commands,
            active,
            cache,
            history: table(History::NAME),
            daily_stats: table(DailyStats::NAME),
            zones: self.zones.clone(),
            traces: self.traces.clone(),
        };
        let origins = &args.http.cors_origins;
        let router = api::router(handles, &admission, origins, &mut self.registry);
        let connections = self.connection_limits()?;
        self.serve(listener, router, connections);
        Ok(admission)
    }

    /// Wakes the relays of other processes after each commit. Only for a process
    /// without a relay.
    pub(super) fn announce_commits(&mut self, commits: &CommitSubscription) {
        let stop = self.service.workers.token.clone();
        self.service.workers.spawn(relay::announce_commits(
            self.jetstream.client(),
            self.subjects.clone(),
            commits.last_committed.clone(),
            stop,
        ));
    }

    /// Starts the role `relay`.
    pub(super) fn start_relay(&mut self, commits: CommitSubscription) -> anyhow::Result<()> {
        let (status, status_receiver) = watch::channel(relay::RelayStatus::default());
        let (size, size_receiver) = watch::channel(None);
        let relay = Relay {
            pool: self.pools.track(connect::relay_pool(&self.args.database)?),
            jetstream: self.jetstream.clone(),
            subjects: self.subjects.clone(),
            commits,
            status,
            stopped: self.failures.register(Failure::RelayStopped),
            limits: self.args.stream.limits(),
            size,
            traces: self.traces.clone(),
        };
        let gauges = RelayGauges::new(&mut self.registry, relay.pool.clone(), status_receiver);
        StreamGauges::register(&mut self.registry, size_receiver);
        let workers = &mut self.service.workers;
        let stop = workers.token.clone();
        workers.spawn(gauges.follow(stop.clone()));
        workers.spawn(relay.run(stop));
        Ok(())
    }

    /// Starts the role `projections`.
    pub(super) fn start_projections(&mut self) -> anyhow::Result<()> {
        let pool = connect::projections_pool(&self.args.database)?;
        let pool = self.pools.track(pool);
        let cache = connect::cache(&self.args.redis)?;
        let gauges = ProjectionGauges::new(&mut self.registry);
        let context = TaskContext {
            pool: pool.clone(),
            cache,
            jetstream: self.jetstream.clone(),
            subjects: self.subjects.clone(),
            zones: self.zones.clone(),
            coalesce_window: self.args.projections.coalesce_window,
            health: self.failures.clone(),
            holder: self.service.holder.clone(),
            traces: self.traces.clone(),
        };
        let workers = &mut self.service.workers;
        let stop = workers.token.clone();
        for task in projections::tasks::all(context, &stop) {
            workers.spawn(task);
        }
        workers.spawn(gauges.poll(pool, stop));
        Ok(())
    }

    /// Starts the role `jobs`. Jobs append events like requests, so they stop with
    /// the listeners, before the appender.
    pub(super) fn start_jobs(&mut self, commands: CommandService) -> anyhow::Result<()> {
        let args = self.args;
        let context = JobContext {
            pool: self.pools.track(connect::jobs_pool(&args.database)?),
            commands,
            operations: connect::projection_ops(&args.database, &args.redis, self.zones.clone()),
            settings: args.jobs.settings(),
        };
        let metrics = JobMetrics::new(&mut self.registry);
        let holder = self.service.holder.clone();
        let stop = self.service.listeners.token.clone();
        let health = self.failures.register(Failure::JobsNotRunning);
        let scheduler = scheduler::run(Arc::new(context), holder, metrics, health, stop);
        self.service.listeners.spawn(scheduler);
        Ok(())
    }

    /// Authentication for the admin API of a process without the role `api`.
    /// `None` if the process has the role `api`, no keys to verify tokens, or no
    /// Redis to count calls.
    pub(super) fn admission_without_api(&self) -> anyhow::Result<Option<Admission>> {
        let args = self.args;
        if args.has(Role::Api) || !args.auth.is_set() || !args.redis.is_set() {
            return Ok(None);
        }
        Ok(Some(admission(args, connect::cache(&args.redis)?)?))
    }

    /// Starts the admin listener, in every process. It serves probes and metrics,
    /// and with `admission` the admin API. It starts last, because it takes the
    /// registry with the metrics of all roles.
    pub(super) fn start_admin(
        mut self,
        listener: TcpListener,
        admission: Option<Admission>,
    ) -> anyhow::Result<Service> {
        let args = self.args;
        let handles = match admission {
            Some(admission) => {
                let zones = self.zones.clone();
                let operations = connect::projection_ops(&args.database, &args.redis, zones);
                let stop = self.service.workers.token.clone();
                let (operations, task) = OperationQueue::new(operations, stop);
                self.service.workers.spawn(task);
                let pool = self.pools.track(connect::admin_pool(&args.database)?);
                let actions = RecordActions::new(pool.clone());
                let finishers = &mut self.service.finishers;
                let stop = finishers.token.clone();
                finishers.spawn(actions.clone().finish(stop));
                Some(api::routes::admin::Handles {
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
            None => None,
        };
        self.register_process();
        let registry = std::mem::take(&mut self.registry);
        let readiness = Readiness {
            database: self.database_health.clone(),
            failures: self.failures.clone(),
            serves_requests: args.has(Role::Api),
        };
        let router = api::routes::admin::router(readiness, handles, registry);
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

    fn serve(
        &mut self,
        listener: TcpListener,
        router: axum::Router,
        connections: ConnectionLimits,
    ) {
        let listeners = &mut self.service.listeners;
        let stop = listeners.token.clone();
        let options = serve::Options {
            timeouts: self.args.http.timeouts,
            connections,
            drain: DRAIN_TIMEOUT,
        };
        listeners.spawn(serve::run(listener, router, options, stop));
    }

    /// The bounds on client connections, from the limit of open files and the settings.
    fn connection_limits(&self) -> anyhow::Result<ConnectionLimits> {
        let args = self.args;
        let pool = args.database.database_pool_size;
        let replica = args.replica.database_read_pool_size.unwrap_or(pool);
        let pools = u64::from(pool) + u64::from(replica);
        let limit = descriptors::raise_limit(pools);
        let total = descriptors::client_connections(limit, pools)?;
        let http = &args.http;
        let mut limits = ConnectionLimits::new(total, &http.trusted_proxies);
        if let Some(per_address) = http.connections_per_address {
            limits.per_address = per_address.get();
        }
        tracing::info!(
            total,
            per_address = limits.per_address,
            "at most {total} client connections, {} of them from one address",
            limits.per_address
        );
        Ok(limits)
    }
}

/// The number of reads of active sessions that may use the log at once: half of the
/// connections for requests. The others remain for commands and other queries.
fn max_log_reads(args: &DatabaseArgs) -> usize {
    (args.database_pool_size as usize / 2).max(1)
}

/// Authentication and rate limits.
fn admission(args: &ServeArgs, cache: Cache) -> anyhow::Result<Admission> {
    Ok(Admission::new(
        TokenVerifier::new(&args.auth.settings()?)?,
        Limiter::new(&args.rate_limit.limits(), cache),
        &args.http.trusted_proxies,
    ))
}

fn commands(appender: Appender, rules: &RuleArgs, pool: Pool) -> anyhow::Result<CommandService> {
    let rules = Rules {
        active_gap: TimeDelta::from_std(rules.active_gap)?,
    };
    Ok(CommandService::new(Repository::new(pool, appender), rules))
}

/// Jobs outside a running service.
pub struct Jobs {
    pub context: JobContext,
    /// Appends the events of the jobs. Completes when `context` is dropped.
    pub appender: BoxFuture<'static, ()>,
}

/// Connects jobs that run outside a running service.
///
/// # Errors
/// When an address is missing or invalid.
pub fn jobs(
    database: &DatabaseArgs,
    redis: &RedisArgs,
    rules: &RuleArgs,
    jobs: &JobArgs,
) -> anyhow::Result<Jobs> {
    // Relays also poll the log, so the commits need no announcement.
    let (feed, _) = commit_feed::channel();
    let pool = connect::jobs_pool(database)?;
    let append = connect::append_pool(database)?;
    let (appender, task) = Appender::new(append, feed, |_| {});
    let commands = commands(appender, rules, pool.clone().into())?;
    Ok(Jobs {
        context: JobContext {
            pool,
            commands,
            operations: connect::projection_ops(database, redis, Zones::load()),
            settings: jobs.settings(),
        },
        appender: task.boxed(),
    })
}
