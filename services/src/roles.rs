//! What a process does: each role is a few tasks, all started here and all
//! stopped here, in order.

use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream;
use chrono::TimeDelta;
use domain::session::Rules;
use eventlog::relay::{self, Relay};
use eventlog::repository::Repository;
use eventlog::tail::Tail;
use eventlog::{Appender, Sessions, Subjects};
use projections::checkpoint::Awaited;
use projections::runtime::{self, Until};
use projections::{ActiveSessions, DailyStats, History, Projection, schema};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::admission::Admission;
use crate::api::auth::Keys;
use crate::api::rate_limit::Limiter;
use crate::api::serve::Limits;
use crate::config::{Role, ServeArgs};
use crate::{api, connect, maintenance};

/// How long open requests may take to finish at a shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// A running service.
pub struct Service {
    /// Where client apps call; `None` without the API role.
    pub http: Option<std::net::SocketAddr>,
    /// Where operators and probes call.
    pub admin: std::net::SocketAddr,
    edge: Stage,
    writers: TaskTracker,
    workers: Stage,
}

/// Tasks that are told to stop together.
#[derive(Default)]
struct Stage {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Stage {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Starts the roles of this process.
///
/// # Errors
/// When a setting is wrong, an address is taken, or the schema does not fit.
/// NATS and Redis need not be there: the service runs without them and catches
/// up when they come.
pub async fn start(args: &ServeArgs) -> anyhow::Result<Service> {
    let admin = bind(args.http.admin_addr, "ADMIN_ADDR").await?;
    let pool = connect::api_pool(&args.database)?;
    schema::check(&pool).await?;

    let mut service = Service {
        http: None,
        admin: admin.local_addr()?,
        edge: Stage::default(),
        writers: TaskTracker::new(),
        workers: Stage::default(),
    };
    let (head, head_seen) = watch::channel(0);
    let subjects = Subjects::new(&args.nats.nats_prefix);
    let relays = args.has(Role::Relay);
    let jetstream = connect::jetstream(&args.nats).await?;

    if args.has(Role::Api) {
        let listener = bind(args.http.http_addr, "HTTP_ADDR").await?;
        service.http = Some(listener.local_addr()?);
        let (appender, task) = Appender::new(connect::append_pool(&args.database)?, head);
        service.writers.spawn(task);
        let rules = Rules {
            active_gap: TimeDelta::from_std(args.rules.active_gap)?,
        };
        let sessions = Sessions::new(Repository::new(pool.clone(), appender), rules);
        let cache = connect::cache(&args.redis)?;
        let state = api::State {
            sessions,
            pool: pool.clone(),
            history: Awaited::new(pool.clone(), History::NAME),
            daily_stats: Awaited::new(pool.clone(), DailyStats::NAME),
            cache: cache.clone(),
        };
        let admission = Admission::new(
            Keys::new(&args.auth)?,
            Limiter::new(&args.rate_limit, cache),
            &args.http.trusted_proxies,
        );
        let router = api::router(state, admission, &args.http.cors_origins);
        service.serve(listener, router, args.http.limits);
        if !relays {
            let stop = service.workers.stop.clone();
            service.workers.spawn(relay::announce(
                jetstream.client(),
                subjects.clone(),
                head_seen.clone(),
                stop,
            ));
        }
    }
    let probes = api::health::router(pool.clone());
    service.serve(admin, probes, args.http.limits);

    if relays {
        let relay = Relay {
            pool: connect::relay_pool(&args.database)?,
            jetstream: jetstream.clone(),
            subjects: subjects.clone(),
            head: head_seen,
        };
        service
            .workers
            .spawn(relay.run(service.workers.stop.clone()));
    }
    if args.has(Role::Projections) {
        service.project(args, jetstream, subjects)?;
    }
    if args.has(Role::Maintenance) {
        let pool = connect::maintenance_pool(&args.database)?;
        service
            .workers
            .spawn(maintenance::run(pool, service.workers.stop.clone()));
    }
    Ok(service)
}

async fn bind(address: std::net::SocketAddr, name: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{name}: cannot listen on {address}"))
}

impl Service {
    fn serve(&self, listener: TcpListener, router: axum::Router, limits: Limits) {
        self.edge.spawn(api::serve::run(
            listener,
            router,
            limits,
            self.edge.stop.clone(),
            DRAIN,
        ));
    }

    fn project(
        &self,
        args: &ServeArgs,
        jetstream: jetstream::Context,
        subjects: Subjects,
    ) -> anyhow::Result<()> {
        let pool = connect::projections_pool(&args.database)?;
        let cache = connect::cache(&args.redis)?;
        let tail = Tail::default();
        self.apply(History::new(pool.clone()), &tail, &pool);
        self.apply(DailyStats::new(pool.clone()), &tail, &pool);
        self.apply(ActiveSessions::new(cache, pool.clone()), &tail, &pool);
        self.workers
            .spawn(tail.run(jetstream, subjects, self.workers.stop.clone()));
        Ok(())
    }

    fn apply<P: Projection + 'static>(&self, projection: P, tail: &Tail, pool: &PgPool) {
        self.workers.spawn(runtime::run(
            projection,
            tail.reader(pool.clone()),
            Until::Stopped,
            watch::Sender::new(0),
            self.workers.stop.clone(),
        ));
    }

    /// Stops in the order in which nothing is lost and nobody waits in vain:
    /// no new requests, the open ones finish, what they appended is written,
    /// and then the relay and the projections stop wherever they are. They go
    /// on from there at the next start.
    pub async fn stop(self) {
        self.edge.end().await;
        // The last request has taken the last handle of the appender with it.
        self.writers.close();
        self.writers.wait().await;
        self.workers.end().await;
    }
}

/// Runs the roles of this process until it is told to stop.
///
/// # Errors
/// Those of [`start`].
pub async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let service = start(args).await?;
    if let Some(http) = service.http {
        tracing::info!(address = %http, "client apps are served");
    }
    tracing::info!(address = %service.admin, "operators are served");
    stop_signal().await?;
    tracing::info!("stopping");
    service.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
///
/// # Errors
/// When signals cannot be received.
pub async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
