//! What a process does: each role is a few tasks, all started here and all
//! stopped here, in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream;
use chrono::TimeDelta;
use domain::session::Rules;
use eventlog::commits::{self, Commits};
use eventlog::relay::{self, Relay};
use eventlog::repository::Repository;
use eventlog::tail::Tail;
use eventlog::{Appender, Pool, Sessions, Subjects};
use projections::cache::Cache;
use projections::checkpoint::Awaited;
use projections::runtime::Worker;
use projections::{
    ActiveSessions, DailyStats, History, InTables, Projection, dead_letter, lease, schema,
};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use crate::api::admission::Admission;
use crate::api::auth::Keys;
use crate::api::queries::ReadTable;
use crate::api::queries::active::ActiveReads;
use crate::api::queries::replica::Replica;
use crate::api::rate_limit::Limiter;
use crate::api::serve::Limits;
use crate::config::{DatabaseArgs, RedisArgs, Role, RuleArgs, ServeArgs, UpkeepArgs};
use crate::connect::Usage;
use crate::maintenance::{self, Tools};
use crate::metrics::Metrics;
use crate::pulse::Pulse;
use crate::replays::{Background, Source};
use crate::{api, backlog, connect};

mod stage;

use stage::Stage;

/// How long open requests may take to finish at a shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// How long what was taken may take to be written, and how long the relay and
/// the projections may take to let go: somewhat longer than an append. A server
/// that hangs must not keep the process; nothing is torn by being cut off.
const LET_GO: Duration = Duration::from_secs(10);

/// A running service.
pub struct Service {
    /// Where client apps call; `None` without the API role.
    pub http: Option<std::net::SocketAddr>,
    /// Where operators and probes call.
    pub admin: std::net::SocketAddr,
    /// What this process is called where workers are listed.
    name: Arc<str>,
    edge: Stage,
    writers: Stage,
    workers: Stage,
}

/// Starts the roles of this process.
///
/// # Errors
/// When a setting is wrong, an address is taken, or the schema does not fit.
/// NATS and Redis need not be there: the service runs without them and catches
/// up when they come.
pub async fn start(args: &ServeArgs) -> anyhow::Result<Service> {
    let admin = bind(args.http.admin_addr, "ADMIN_ADDR")?;
    // Starts are patient; what takes requests is not.
    schema::check(&connect::maintenance_pool(&args.database)?).await?;

    let mut service = Service {
        http: None,
        admin: admin.local_addr()?,
        name: name(),
        edge: Stage::default(),
        writers: Stage::default(),
        workers: Stage::default(),
    };
    let metrics = Metrics::default();
    let usage = Usage::new(&metrics);
    let pool = usage.time(connect::api_pool(&args.database)?);
    let (commits, heard) = commits::channel();
    let subjects = Subjects::new(&args.nats.nats_prefix);
    let relays = args.has(Role::Relay);
    let jetstream = connect::jetstream(&args.nats).await?;
    // One for all requests, so that they know together when Redis is away.
    let cache = args.redis.is_set() || args.has(Role::Api);
    let cache = cache.then(|| connect::cache(&args.redis)).transpose()?;
    let admission = admission(args, cache.as_ref())?;
    let pulse = Pulse::new(usage.show(connect::pulse_pool(&args.database)?));

    let commands = args.has(Role::Api) || args.has(Role::Maintenance);
    let sessions = if commands {
        let append = usage.show(connect::append_pool(&args.database)?);
        let (sessions, task) = sessions(append, &args.rules, pool.clone(), commits)?;
        service.writers.spawn(task);
        Some(sessions)
    } else {
        None
    };
    if args.has(Role::Api) {
        let listener = bind(args.http.http_addr, "HTTP_ADDR")?;
        // So that the first request need not connect.
        drop(pool.acquire().await?);
        service.http = Some(listener.local_addr()?);
        let sessions = sessions.clone().expect("the API takes commands");
        let cache = cache.clone().expect("the API has a cache");
        let active = ActiveReads::new(sessions.clone(), cache.clone(), pulse.clone(), &metrics);
        let replica = connect::reads_pool(&args.database, &args.replica)?;
        let replica = replica.map(|replica| Replica::new(usage.time(replica), &metrics));
        let table = |projection| ReadTable {
            primary: pool.clone(),
            checkpoint: Awaited::new(pool.clone(), projection),
            replica: replica.clone(),
        };
        let handles = api::Handles {
            sessions,
            active,
            cache,
            history: table(History::NAME),
            daily_stats: table(DailyStats::NAME),
        };
        let admission = admission.clone().expect("the API verifies tokens");
        let router = api::router(handles, &admission, &args.http.cors_origins, &metrics);
        service.serve(listener, router, args.http.limits);
    }
    if sessions.is_some() && !relays {
        let stop = service.workers.stop.clone();
        service.workers.spawn(relay::announce(
            jetstream.client(),
            subjects.clone(),
            heard.head.clone(),
            stop,
        ));
    }
    let operators = match admission {
        Some(admission) => Some(service.admin(args, admission, &usage)?),
        None => None,
    };
    let router = api::admin::router(pulse.clone(), operators, &metrics);
    let stop = service.edge.stop.clone();
    service.edge.spawn(pulse.run(stop));
    service.serve(admin, router, args.http.limits);

    if relays {
        let (standing, stands) = watch::channel(relay::Standing::default());
        let relay = Relay {
            pool: usage.show(connect::relay_pool(&args.database)?),
            jetstream: jetstream.clone(),
            subjects: subjects.clone(),
            commits: heard,
            standing,
        };
        let stop = service.workers.stop.clone();
        let shown = backlog::relay(stands, metrics.clone(), stop.clone());
        service.workers.spawn(shown);
        service.workers.spawn(relay.run(stop));
    }
    if args.has(Role::Projections) {
        let pool = usage.show(connect::projections_pool(&args.database)?);
        let stop = service.workers.stop.clone();
        let shown = backlog::projections(pool.clone(), metrics.clone(), stop);
        service.workers.spawn(shown);
        service.project(args, pool, jetstream, subjects)?;
    }
    if args.has(Role::Maintenance) {
        let sessions = sessions.expect("upkeep ends sessions");
        let tools = Tools {
            pool: usage.show(connect::upkeep_pool(&args.database)?),
            sessions,
            source: Source::new(&args.database, &args.redis),
            rules: args.upkeep.clone(),
        };
        let counts = maintenance::Counts::new(&metrics);
        // It gives commands as requests do, and ends before those are written.
        let (holder, stop) = (service.name.clone(), service.edge.stop.clone());
        let upkeep = maintenance::run(Arc::new(tools), holder, counts, stop);
        service.edge.spawn(upkeep);
    }
    Ok(service)
}

/// The command side, and the task that appends for it.
fn sessions(
    append: PgPool,
    rules: &RuleArgs,
    pool: Pool,
    commits: Commits,
) -> anyhow::Result<(Sessions, impl Future<Output = ()> + Send + use<>)> {
    let (appender, task) = Appender::new(append, commits);
    let rules = Rules {
        active_gap: TimeDelta::from_std(rules.active_gap)?,
    };
    Ok((Sessions::new(Repository::new(pool, appender), rules), task))
}

/// What upkeep works with where nothing else of the service runs, and the task
/// that appends for it, which ends after the tools are gone.
///
/// # Errors
/// When an address is not valid.
pub fn tools(
    database: &DatabaseArgs,
    redis: &RedisArgs,
    rules: &RuleArgs,
    upkeep: &UpkeepArgs,
) -> anyhow::Result<(Tools, impl Future<Output = ()> + Send + use<>)> {
    // Relays look for what is new by themselves, within seconds.
    let (commits, _) = commits::channel();
    let pool = connect::upkeep_pool(database)?;
    let append = connect::append_pool(database)?;
    let (sessions, task) = sessions(append, rules, pool.clone().into(), commits)?;
    let tools = Tools {
        pool,
        sessions,
        source: Source::new(database, redis),
        rules: upkeep.clone(),
    };
    Ok((tools, task))
}

/// Who comes in, where tokens can be verified: always at the API, elsewhere
/// when there are keys to verify with and a Redis to count in.
fn admission(args: &ServeArgs, cache: Option<&Cache>) -> anyhow::Result<Option<Admission>> {
    let cache = match cache {
        Some(cache) if args.auth.is_set() || args.has(Role::Api) => cache.clone(),
        _ => return Ok(None),
    };
    Ok(Some(Admission::new(
        Keys::new(&args.auth)?,
        Limiter::new(&args.rate_limit, cache),
        &args.http.trusted_proxies,
    )))
}

/// The machine, the process, and something that no other service has.
#[must_use]
pub fn name() -> Arc<str> {
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_string_lossy();
    let [a, b, ..] = *Uuid::new_v4().as_bytes();
    format!("{machine}/{}/{a:02x}{b:02x}", std::process::id()).into()
}

fn bind(address: std::net::SocketAddr, name: &str) -> anyhow::Result<TcpListener> {
    api::serve::listen(address)
        .with_context(|| format!("cannot listen on {address}, as {name} says"))
}

impl Service {
    fn serve(&mut self, listener: TcpListener, router: axum::Router, limits: Limits) {
        let stop = self.edge.stop.clone();
        self.edge
            .spawn(api::serve::run(listener, router, limits, stop, DRAIN));
    }

    /// What operators' calls work with.
    fn admin(
        &mut self,
        args: &ServeArgs,
        admission: Admission,
        usage: &Usage,
    ) -> anyhow::Result<api::admin::Handles> {
        let source = Source::new(&args.database, &args.redis);
        let (replays, task) = Background::new(source, self.workers.stop.clone());
        self.workers.spawn(task);
        Ok(api::admin::Handles {
            pool: usage.show(connect::operator_pool(&args.database)?),
            replays,
            admission,
        })
    }

    fn project(
        &mut self,
        args: &ServeArgs,
        pool: PgPool,
        jetstream: jetstream::Context,
        subjects: Subjects,
    ) -> anyhow::Result<()> {
        let cache = connect::cache(&args.redis)?;
        let tail = Tail::default();
        self.apply(History::new(pool.clone()), &tail, &pool);
        self.apply(DailyStats::new(pool.clone()), &tail, &pool);
        self.apply(ActiveSessions::new(cache, pool.clone()), &tail, &pool);
        let stop = self.workers.stop.clone();
        self.workers.spawn(dead_letter::publish(
            pool,
            jetstream.clone(),
            subjects.clone(),
            stop.clone(),
        ));
        self.workers.spawn(tail.run(jetstream, subjects, stop));
        Ok(())
    }

    fn apply<P: Projection + 'static>(&mut self, projection: P, tail: &Tail, pool: &PgPool) {
        let worker = Worker::live(projection, tail.reader(pool.clone()), pool.clone());
        let stop = self.workers.stop.clone();
        let holder = self.name.clone();
        self.workers
            .spawn(lease::work(worker, pool.clone(), holder, stop));
    }

    /// Waits for a task that ends though nobody told it to, and says how: the
    /// process does not do its work any more, and whoever runs it must know.
    pub async fn broken(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.edge.broken() => error,
            error = self.writers.broken() => error,
            error = self.workers.broken() => error,
        }
    }

    /// Stops in the order in which nothing is lost and nobody waits in vain:
    /// no new requests, the open ones finish, what they appended is written,
    /// and then the relay and the projections stop wherever they are. They go
    /// on from there at the next start.
    pub async fn stop(self) {
        // The edge has a deadline for each connection; this one is for itself.
        self.edge.end(DRAIN + LET_GO).await;
        // The last request has taken the last handle of the appender with it.
        self.writers.end(LET_GO).await;
        self.workers.end(LET_GO).await;
    }
}

/// Runs the roles of this process until it is told to stop.
///
/// # Errors
/// Those of [`start`], and when a task breaks; the others are stopped in order.
pub async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let mut service = start(args).await?;
    let signal = stop_signal()?;
    if let Some(http) = service.http {
        tracing::info!(address = %http, "client apps are served");
    }
    tracing::info!(address = %service.admin, "operators are served");
    let ended = tokio::select! {
        () = signal => Ok(()),
        error = service.broken() => Err(error),
    };
    tracing::info!("stopping");
    service.stop().await;
    tracing::info!("stopped");
    ended
}

/// Receives Ctrl-C and SIGTERM from now on; what is returned waits for one.
///
/// # Errors
/// When signals cannot be received.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let receive = |kind| signal(kind).context("signals cannot be received");
    let mut terminate = receive(SignalKind::terminate())?;
    let mut interrupt = receive(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        let admin = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let mut service = Service {
            http: None,
            admin,
            name: name(),
            edge: Stage::default(),
            writers: Stage::default(),
            workers: Stage::default(),
        };
        service.edge.spawn(std::future::pending());
        service
    }

    #[tokio::test]
    async fn a_task_that_panics_or_ends_by_itself_is_noticed() {
        let mut service = service();
        service.workers.spawn(async { panic!("out of luck") });
        let error = format!("{:#}", service.broken().await);
        assert!(error.contains("out of luck"), "{error}");

        service.writers.spawn(async {});
        let error = service.broken().await.to_string();
        assert!(error.contains("ended by itself"), "{error}");
    }

    #[tokio::test]
    async fn tasks_that_do_not_stop_are_cut_off() {
        let mut stage = Stage::default();
        let (held, released) = tokio::sync::oneshot::channel::<()>();
        stage.spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        stage.end(Duration::from_millis(1)).await;
        assert!(released.await.is_err());
    }
}
