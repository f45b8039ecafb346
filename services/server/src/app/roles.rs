//! The tasks of each role, with its pools, its clients and its metrics. The submodule
//! `admin` starts the listener that every process has.

use std::net::SocketAddr;
use std::sync::Arc;

use api::admission::Admission;
use api::auth::TokenVerifier;
use api::rate_limit::Limiter;
use api::routes::queries::active::ActiveReads;
use api::routes::queries::replica::Replica;
use api::routes::queries::{QueryMetrics, ReadTable};
use api::serve::{self, ConnectionLimits};
use async_nats::jetstream;
use chrono::TimeDelta;
use commands::CommandService;
use commands::repository::Repository;
use domain::session::Rules;
use eventlog::commit_feed::{CommitFeed, CommitSubscription};
use eventlog::database_health::DatabaseHealth;
use eventlog::health::{Failure, HealthRegistry};
use eventlog::trace::Traces;
use eventlog::{Appender, Pool};
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
use crate::config::{DatabaseArgs, RuleArgs, ServeArgs};
use crate::connect;
use crate::metrics::{
    AppendMetrics, LossMetrics, PoolMetrics, ProjectionGauges, RelayGauges, StreamGauges,
};
use crate::telemetry;

mod admin;

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

pub(super) fn commands(
    appender: Appender,
    rules: &RuleArgs,
    pool: Pool,
) -> anyhow::Result<CommandService> {
    let rules = Rules {
        active_gap: TimeDelta::from_std(rules.active_gap)?,
    };
    Ok(CommandService::new(Repository::new(pool, appender), rules))
}
