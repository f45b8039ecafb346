//! A process of the service: starts the tasks of its roles and stops them in
//! order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use eventlog::roles::{DatabaseRole, Excess, excessive, missing};
use eventlog::{commit_feed, migrations};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::config::{Role, ServeArgs};
use crate::connect;

mod command_jobs;
mod descriptors;
mod roles;
mod signal;
mod task_group;

pub use command_jobs::{Jobs, jobs};
pub(crate) use descriptors::raise_limit;
use roles::ServiceBuilder;
pub(crate) use signal::stop_signal;
use task_group::TaskGroup;

/// How long open requests may take to finish at a shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long each stage after the listeners may take. Longer than an append. A server that
/// hangs must not keep the process alive. Aborting a task loses no event. It can lose
/// outcomes of the audit, and spans.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// A running service.
pub struct Service {
    /// The address of the public API; `None` without the role `api`.
    pub http: Option<SocketAddr>,
    /// The address of probes, metrics and the admin API.
    pub admin: SocketAddr,
    /// See [`lease_holder`].
    holder: Arc<str>,
    /// Tasks that accept requests or run jobs; they stop first.
    listeners: TaskGroup,
    /// The appender; it ends when its last handle is dropped.
    writers: TaskGroup,
    /// The relay and the projections.
    workers: TaskGroup,
    /// The outcomes of the audit and the export of traces; they stop last.
    finishers: TaskGroup,
}

/// Starts the roles of this process.
///
/// # Errors
/// When a setting is wrong, an address is in use, or the migrations of the
/// database do not match this build. NATS and Redis may be unreachable: the
/// service starts without them and catches up later.
#[must_use]
pub fn start(args: &ServeArgs) -> BoxFuture<'_, anyhow::Result<Service>> {
    start_roles(args).boxed()
}

async fn start_roles(args: &ServeArgs) -> anyhow::Result<Service> {
    let admin = bind(args.http.admin_addr, "ADMIN_ADDR")?;
    connect::encryption::log_weak(args);
    check_database(args).await?;

    let mut service = ServiceBuilder::new(args, admin.local_addr()?).await?;
    let (feed, commits) = commit_feed::channel();
    // Before any role starts, because it fails if the settings of tokens are wrong.
    let mut admission = service.admission_without_api()?;
    if args.has(Role::Api) || args.has(Role::Jobs) {
        let commands = service.start_commands(feed)?;
        if args.has(Role::Api) {
            admission = Some(service.start_api(commands.clone()).await?);
        }
        if args.has(Role::Jobs) {
            service.start_jobs(commands)?;
        }
        if !args.has(Role::Relay) {
            service.announce_commits(&commits);
        }
    }
    if args.has(Role::Relay) {
        service.start_relay(commits)?;
    }
    if args.has(Role::Projections) {
        service.start_projections()?;
    }
    service.start_admin(admin, admission)
}

/// Checks the version of the schema and the rights of the process, and warns if the
/// process could change the log.
async fn check_database(args: &ServeArgs) -> anyhow::Result<()> {
    let pool = &connect::migrations_pool(&args.database)?;
    if let Err(error) = migrations::check(pool).await {
        // The pool waits for a Postgres that is starting, and then does not report why it
        // cannot connect.
        connect::check_postgres(&args.database).await?;
        return Err(error.into());
    }
    let needed: Vec<DatabaseRole> = args.roles.iter().map(|role| role.database_role()).collect();
    let missing = missing(pool, &needed).await?;
    ensure!(
        missing.is_empty(),
        "the Postgres role of DATABASE_URL lacks the rights of {}; connect with that role, or \
         with reading_service",
        missing.join(" and ")
    );
    for Excess { role, rights } in excessive(pool, false).await? {
        tracing::warn!(
            role,
            "Postgres role {role} {rights}; connect with a role that `migrate` has created, such \
             as reading_service"
        );
    }
    Ok(())
}

fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    api::serve::listen(address).map_err(|error| {
        let advice = if error.kind() == std::io::ErrorKind::AddrInUse {
            format!("; stop the process there, or set {setting} to another port")
        } else {
            String::new()
        };
        anyhow!("cannot listen on {address} ({setting}): {error}{advice}")
    })
}

/// Checks that the addresses of the listeners are free.
///
/// # Errors
/// When another process listens on one of them.
#[cfg(feature = "dev")]
pub(crate) fn check_addresses(args: &ServeArgs) -> anyhow::Result<()> {
    if args.has(Role::Api) {
        bind(args.http.http_addr, "HTTP_ADDR")?;
    }
    bind(args.http.admin_addr, "ADMIN_ADDR")?;
    Ok(())
}

/// The name of this process as a holder of leases: the machine, the process id
/// and a random part, so that it is unique.
#[must_use]
pub fn lease_holder() -> Arc<str> {
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_string_lossy();
    let [a, b, ..] = *Uuid::new_v4().as_bytes();
    format!("{machine}/{}/{a:02x}{b:02x}", std::process::id()).into()
}

impl Service {
    fn new(admin: SocketAddr) -> Self {
        Self {
            http: None,
            admin,
            holder: lease_holder(),
            listeners: TaskGroup::default(),
            writers: TaskGroup::default(),
            workers: TaskGroup::default(),
            finishers: TaskGroup::default(),
        }
    }

    /// Waits until a task ends without being stopped, and returns its error. The
    /// process then lacks a part of its work and must be restarted.
    pub fn failed(&mut self) -> BoxFuture<'_, anyhow::Error> {
        async {
            tokio::select! {
                error = self.listeners.failed() => error,
                error = self.writers.failed() => error,
                error = self.workers.failed() => error,
                error = self.finishers.failed() => error,
            }
        }
        .boxed()
    }

    /// Stops in an order that loses nothing:
    /// 1. The listeners refuse new requests, and the open ones finish.
    /// 2. The appender commits the events that it accepted.
    /// 3. The relay and the projections stop. They resume at the next start.
    /// 4. The audit gets its last outcomes, and the exporter of traces sends the last spans.
    ///
    /// The stages take at most 50 s. The grace periods of compose.yaml and deploy/kubernetes
    /// are longer.
    #[must_use]
    pub fn stop(self) -> BoxFuture<'static, ()> {
        async {
            // Each connection has the limit `DRAIN_TIMEOUT`; this is the limit of
            // the whole group.
            self.listeners.stop(DRAIN_TIMEOUT + SHUTDOWN_TIMEOUT).await;
            // No request or job holds the appender any more.
            self.writers.stop(SHUTDOWN_TIMEOUT).await;
            self.workers.stop(SHUTDOWN_TIMEOUT).await;
            self.finishers.stop(SHUTDOWN_TIMEOUT).await;
        }
        .boxed()
    }
}

/// Runs the roles of this process until Ctrl-C or SIGTERM.
///
/// # Errors
/// Like [`start`], and when a task fails; the other tasks are then stopped in
/// order.
pub(crate) async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let mut service = start(args).await?;
    let signal = stop_signal()?;
    if let Some(http) = service.http {
        tracing::info!(address = %http, "public API is listening on {http}");
    }
    let admin = service.admin;
    tracing::info!(address = %admin, "admin API is listening on {admin}");
    let ended = tokio::select! {
        () = signal => Ok(()),
        error = service.failed() => Err(error),
    };
    stop_and_log(service).await;
    ended
}

/// Stops the service, with log lines before and after.
pub(crate) async fn stop_and_log(service: Service) {
    tracing::info!("service is stopping");
    service.stop().await;
    tracing::info!("service has stopped");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        let mut service = Service::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        service.listeners.spawn(std::future::pending());
        service
    }

    #[tokio::test]
    async fn task_that_panics_or_ends_early_is_reported() {
        let mut service = service();
        service.workers.spawn(async { panic!("out of luck") });
        let error = format!("{:#}", service.failed().await);
        assert!(error.contains("out of luck"), "{error}");

        service.writers.spawn(async {});
        let error = service.failed().await.to_string();
        assert!(error.contains("ended unexpectedly"), "{error}");
    }

    #[tokio::test]
    async fn task_that_does_not_stop_in_time_is_aborted() {
        let mut group = TaskGroup::default();
        let (held, released) = tokio::sync::oneshot::channel::<()>();
        group.spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        group.stop(Duration::from_millis(1)).await;
        assert!(released.await.is_err());
    }
}
