//! What each role starts. A role takes its pools, its clients and its metrics
//! here, and nowhere else.

use std::net::SocketAddr;
use std::sync::Arc;

use api::admission::Admission;
use api::auth::TokenVerifier;
use api::rate_limit::Limiter;
use api::routes::admin::replay_queue::ReplayQueue;
use api::routes::queries::ReadTable;
use api::routes::queries::active::ActiveReads;
use api::routes::queries::replica::Replica;
use api::serve::ClientTimeouts;
use async_nats::jetstream;
use chrono::TimeDelta;
use commands::CommandService;
use commands::repository::Repository;
use domain::session::Rules;
use eventlog::commit_feed::{self, CommitFeed, CommitSubscription};
use eventlog::database_health::DatabaseHealth;
use eventlog::{Appender, Pool};
use jobs::metrics::JobMetrics;
use jobs::scheduler;
use jobs::tasks::JobContext;
use messaging::fan_out::FanOut;
use messaging::relay::{self, Relay};
use messaging::Subjects;
use projections::cache::Cache;
use projections::checkpoint::CheckpointWaiter;
use projections::worker::Worker;
use projections::{
    ActiveSessions, DailyStats, History, TableProjection, Projection, dead_letters, lease,
};
use prometheus_client::registry::Registry;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{DRAIN_TIMEOUT, Service, bind};
use crate::config::{DatabaseArgs, RedisArgs, Role, RuleArgs, ServeArgs, JobArgs};
use crate::connect::{self, PoolMetrics};
use crate::lag_metrics::{self, ProjectionLag, RelayGauges};

/// A service whose roles are being started.
pub(super) struct Starting<'a> {
    args: &'a ServeArgs,
    service: Service,
    registry: Registry,
    pools: PoolMetrics,
    /// For the statements of requests.
    pool: Pool,
    health: DatabaseHealth,
    jetstream: jetstream::Context,
    subjects: Subjects,
}

impl<'a> Starting<'a> {
    pub(super) async fn new(args: &'a ServeArgs, admin: SocketAddr) -> anyhow::Result<Self> {
        let mut registry = Registry::default();
        let pools = PoolMetrics::new(&mut registry);
        let pool = pools.time(connect::api_pool(&args.database)?);
        let health = DatabaseHealth::new(pools.show(connect::health_pool(&args.database)?));
        Ok(Self {
            args,
            service: Service::new(admin),
            registry,
            pools,
            pool,
            health,
            jetstream: connect::jetstream(&args.nats).await?,
            subjects: Subjects::new(&args.nats.nats_prefix),
        })
    }

    /// The command side, for the roles `api` and `jobs`.
    pub(super) fn commands(&mut self, feed: CommitFeed) -> anyhow::Result<CommandService> {
        let append = self.pools.show(connect::append_pool(&self.args.database)?);
        let (commands, appender) = commands(append, &self.args.rules, self.pool.clone(), feed)?;
        self.service.writers.spawn(appender);
        Ok(commands)
    }

    /// The role `api`: client apps.
    pub(super) async fn api(&mut self, commands: CommandService) -> anyhow::Result<Admission> {
        let args = self.args;
        let listener = bind(args.http.http_addr, "HTTP_ADDR")?;
        // So that the first request need not connect.
        drop(self.pool.acquire().await?);
        self.service.http = Some(listener.local_addr()?);
        // One for all requests, so that they share its circuit breaker.
        let cache = connect::cache(&args.redis)?;
        let admission = admission(args, cache.clone())?;
        let active = ActiveReads::new(
            commands.clone(),
            cache.clone(),
            self.health.clone(),
            &mut self.registry,
        );
        let replica = connect::reads_pool(&args.database, &args.replica)?;
        let replica =
            replica.map(|replica| Replica::new(self.pools.time(replica), &mut self.registry));
        let table = |projection| ReadTable {
            primary: self.pool.clone(),
            checkpoint: CheckpointWaiter::new(self.pool.clone(), projection),
            replica: replica.clone(),
        };
        let handles = api::Handles {
            sessions: commands,
            active,
            cache,
            history: table(History::NAME),
            daily_stats: table(DailyStats::NAME),
        };
        let origins = &args.http.cors_origins;
        let router = api::router(handles, &admission, origins, &mut self.registry);
        self.serve(listener, router, args.http.limits);
        Ok(admission)
    }

    /// Wakes the relays of other processes after each commit.
    pub(super) fn announce(&mut self, commits: &CommitSubscription) {
        let stop = self.service.workers.token.clone();
        self.service.workers.spawn(relay::announce_commits(
            self.jetstream.client(),
            self.subjects.clone(),
            commits.head.clone(),
            stop,
        ));
    }

    /// The role `relay`: the log to NATS.
    pub(super) fn relay(&mut self, commits: CommitSubscription) -> anyhow::Result<()> {
        let (status, status_receiver) = watch::channel(relay::RelayStatus::default());
        let relay = Relay {
            pool: self.pools.show(connect::relay_pool(&self.args.database)?),
            jetstream: self.jetstream.clone(),
            subjects: self.subjects.clone(),
            commits,
            status,
        };
        let gauges = RelayGauges::new(&mut self.registry);
        let workers = &mut self.service.workers;
        let stop = workers.token.clone();
        workers.spawn(lag_metrics::relay(status_receiver, gauges, stop.clone()));
        workers.spawn(relay.run(stop));
        Ok(())
    }

    /// The role `projections`: the read tables and the cache.
    pub(super) fn projections(&mut self) -> anyhow::Result<()> {
        let pool = connect::projections_pool(&self.args.database)?;
        let pool = self.pools.show(pool);
        let cache = connect::cache(&self.args.redis)?;
        let lag = ProjectionLag::new(&mut self.registry);
        let tail = FanOut::default();
        self.project(History::new(pool.clone()), &tail, &pool);
        self.project(DailyStats::new(pool.clone()), &tail, &pool);
        self.project(ActiveSessions::new(cache, pool.clone()), &tail, &pool);
        let workers = &mut self.service.workers;
        let stop = workers.token.clone();
        workers.spawn(lag.run(pool.clone(), stop.clone()));
        workers.spawn(dead_letters::publish(
            pool,
            self.jetstream.clone(),
            self.subjects.clone(),
            stop.clone(),
        ));
        workers.spawn(tail.run(self.jetstream.clone(), self.subjects.clone(), stop));
        Ok(())
    }

    fn project<P: Projection + 'static>(&mut self, projection: P, tail: &FanOut, pool: &PgPool) {
        let worker = Worker::live(projection, tail.subscribe(pool.clone()), pool.clone());
        let holder = self.service.holder.clone();
        let workers = &mut self.service.workers;
        let stop = workers.token.clone();
        workers.spawn(lease::work(worker, pool.clone(), holder, stop));
    }

    /// The role `jobs`. Jobs append commands as requests do, so they stop with
    /// the edge, before the appender.
    pub(super) fn jobs(&mut self, commands: CommandService) -> anyhow::Result<()> {
        let args = self.args;
        let tools = JobContext {
            pool: self.pools.show(connect::jobs_pool(&args.database)?),
            sessions: commands,
            source: connect::projection_ops(&args.database, &args.redis),
            settings: args.upkeep.settings(),
        };
        let counts = JobMetrics::new(&mut self.registry);
        let holder = self.service.holder.clone();
        let stop = self.service.edge.token.clone();
        let scheduler = scheduler::run(Arc::new(tools), holder, counts, stop);
        self.service.edge.spawn(scheduler);
        Ok(())
    }

    /// Authentication for the admin API of a process without the role `api`;
    /// `None` when there are no keys to verify tokens with, or no Redis to count
    /// calls in.
    pub(super) fn admission_of_admin(&self) -> anyhow::Result<Option<Admission>> {
        let args = self.args;
        if args.has(Role::Api) || !args.auth.is_set() || !args.redis.is_set() {
            return Ok(None);
        }
        Ok(Some(admission(args, connect::cache(&args.redis)?)?))
    }

    /// The admin listener: probes and metrics in every process, and the admin
    /// API where tokens can be verified. Starts last, since it takes the
    /// registry with the metrics of all roles.
    pub(super) fn admin(
        mut self,
        listener: TcpListener,
        admission: Option<Admission>,
    ) -> anyhow::Result<Service> {
        let args = self.args;
        let handles = match admission {
            Some(admission) => {
                let source = connect::projection_ops(&args.database, &args.redis);
                let stop = self.service.workers.token.clone();
                let (replays, task) = ReplayQueue::new(source, stop);
                self.service.workers.spawn(task);
                Some(api::routes::admin::Handles {
                    pool: self.pools.show(connect::operator_pool(&args.database)?),
                    replays,
                    admission,
                })
            }
            None => None,
        };
        let registry = std::mem::take(&mut self.registry);
        let router = api::routes::admin::router(self.health.clone(), handles, registry);
        let stop = self.service.edge.token.clone();
        let health = self.health.clone();
        self.service.edge.spawn(health.run(stop));
        self.serve(listener, router, args.http.limits);
        Ok(self.service)
    }

    fn serve(&mut self, listener: TcpListener, router: axum::Router, limits: ClientTimeouts) {
        let edge = &mut self.service.edge;
        let stop = edge.token.clone();
        edge.spawn(api::serve::run(listener, router, limits, stop, DRAIN_TIMEOUT));
    }
}

/// Authentication and rate limits.
fn admission(args: &ServeArgs, cache: Cache) -> anyhow::Result<Admission> {
    Ok(Admission::new(
        TokenVerifier::new(&args.auth.settings()?)?,
        Limiter::new(&args.rate_limit.limits(), cache),
        &args.http.trusted_proxies,
    ))
}

/// The command side, and the task that appends for it.
fn commands(
    append: PgPool,
    rules: &RuleArgs,
    pool: Pool,
    feed: CommitFeed,
) -> anyhow::Result<(CommandService, impl Future<Output = ()> + Send + use<>)> {
    let (appender, task) = Appender::new(append, feed);
    let rules = Rules {
        active_gap: TimeDelta::from_std(rules.active_gap)?,
    };
    Ok((CommandService::new(Repository::new(pool, appender), rules), task))
}

/// What a job needs outside of a running service, and the task that appends for
/// it. The task ends when `tools` is dropped.
pub struct Jobs<Appending> {
    pub tools: JobContext,
    pub appender: Appending,
}

/// Opens what a job needs outside of a running service.
///
/// # Errors
/// When an address is not valid.
pub fn jobs(
    database: &DatabaseArgs,
    redis: &RedisArgs,
    rules: &RuleArgs,
    upkeep: &JobArgs,
) -> anyhow::Result<Jobs<impl Future<Output = ()> + Send + use<>>> {
    // Relays poll the log every few seconds, so they need no announcement.
    let (feed, _) = commit_feed::channel();
    let pool = connect::jobs_pool(database)?;
    let append = connect::append_pool(database)?;
    let (sessions, appender) = commands(append, rules, pool.clone().into(), feed)?;
    Ok(Jobs {
        tools: JobContext {
            pool,
            sessions,
            source: connect::projection_ops(database, redis),
            settings: upkeep.settings(),
        },
        appender,
    })
}
