//! One process: starts the tasks of its roles, and stops them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use eventlog::{commit_feed, migrations};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::config::{Role, ServeArgs};
use crate::connect;

mod roles;
mod signal;
mod task_group;

pub use roles::{Jobs, jobs};
use roles::Starting;
pub use signal::stop_signal;
use task_group::TaskGroup;

/// How long open requests may take to finish at a shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the appender may take to write what it accepted, and how long the
/// relay and the projections may take to stop. Longer than an append. A server
/// that hangs must not keep the process; aborting a task loses nothing.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// A running service.
pub struct Service {
    /// The address for client apps; `None` without the role `api`.
    pub http: Option<SocketAddr>,
    /// The address for operators and probes.
    pub admin: SocketAddr,
    /// The name of this process where leases are listed.
    holder: Arc<str>,
    /// Tasks that accept requests or run jobs; they stop first.
    edge: TaskGroup,
    /// The appender; it ends when its last handle is dropped.
    writers: TaskGroup,
    /// The relay and the projections; they stop last.
    workers: TaskGroup,
}

/// Starts the roles of this process.
///
/// # Errors
/// When a setting is wrong, an address is in use, or the migrations of the
/// database do not match this build. NATS and Redis may be unreachable: the
/// service starts without them and catches up later.
pub async fn start(args: &ServeArgs) -> anyhow::Result<Service> {
    let admin = bind(args.http.admin_addr, "ADMIN_ADDR")?;
    migrations::check(&connect::migrations_pool(&args.database)?).await?;

    let mut starting = Starting::new(args, admin.local_addr()?).await?;
    let (feed, commits) = commit_feed::channel();
    let mut admission = None;
    if args.has(Role::Api) || args.has(Role::Jobs) {
        let commands = starting.commands(feed)?;
        if args.has(Role::Api) {
            admission = Some(starting.api(commands.clone()).await?);
        }
        if args.has(Role::Jobs) {
            starting.jobs(commands)?;
        }
        if !args.has(Role::Relay) {
            starting.announce(&commits);
        }
    }
    if args.has(Role::Relay) {
        starting.relay(commits)?;
    }
    if args.has(Role::Projections) {
        starting.projections()?;
    }
    if admission.is_none() {
        admission = starting.admission_of_admin()?;
    }
    starting.admin(admin, admission)
}

fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    api::serve::listen(address)
        .with_context(|| format!("cannot listen on {address} (setting {setting})"))
}

/// The machine, the process id and a random part: unique for each process.
#[must_use]
pub fn holder() -> Arc<str> {
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
            holder: holder(),
            edge: TaskGroup::default(),
            writers: TaskGroup::default(),
            workers: TaskGroup::default(),
        }
    }

    /// Waits for a task that ends before the shutdown, and returns its error:
    /// the process no longer does its work and has to be restarted.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.edge.failed() => error,
            error = self.writers.failed() => error,
            error = self.workers.failed() => error,
        }
    }

    /// Stops in an order that loses nothing: first no new requests, then the
    /// open requests finish, then the appender writes what they appended, and
    /// then the relay and the projections stop. These resume at the next start.
    pub async fn stop(self) {
        // The edge limits each connection; this limit is for the edge itself.
        self.edge.stop(DRAIN_TIMEOUT + SHUTDOWN_TIMEOUT).await;
        // The last request has dropped the last handle of the appender.
        self.writers.stop(SHUTDOWN_TIMEOUT).await;
        self.workers.stop(SHUTDOWN_TIMEOUT).await;
    }
}

/// Runs the roles of this process until Ctrl-C or SIGTERM.
///
/// # Errors
/// Those of [`start`], and when a task fails; the other tasks are then stopped
/// in order.
pub async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let mut service = start(args).await?;
    let signal = stop_signal()?;
    if let Some(http) = service.http {
        tracing::info!(address = %http, "listening for client apps");
    }
    tracing::info!(address = %service.admin, "listening for operators");
    let ended = tokio::select! {
        () = signal => Ok(()),
        error = service.failed() => Err(error),
    };
    tracing::info!("stopping");
    service.stop().await;
    tracing::info!("stopped");
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        let mut service = Service::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        service.edge.spawn(std::future::pending());
        service
    }

    #[tokio::test]
    async fn a_task_that_panics_or_ends_early_is_reported() {
        let mut service = service();
        service.workers.spawn(async { panic!("out of luck") });
        let error = format!("{:#}", service.failed().await);
        assert!(error.contains("out of luck"), "{error}");

        service.writers.spawn(async {});
        let error = service.failed().await.to_string();
        assert!(error.contains("ended unexpectedly"), "{error}");
    }

    #[tokio::test]
    async fn tasks_that_do_not_stop_in_time_are_aborted() {
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
