//! One server, which can be started, stopped, killed, paused and wiped. It keeps its
//! port and password through all of these, and its data through all but a wipe.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::child_guard::GuardedChild;
use super::discover::Binary;
use super::os_user::OsUser;
use super::server_dir::{self, ServerDir};
use super::server_kind::ServerKind;
use super::{data_dir, nats, postgres, redis};

/// How long a server may take until it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one readiness check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a server may take to stop. Postgres writes its dirty buffers first.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum number of attempts to start. If another process has taken the chosen port, the
/// next attempt chooses another one.
const MAX_PORT_ATTEMPTS: u32 = 3;

/// Lines of a server's log that an error contains.
const LOG_TAIL_LINES: usize = 15;

/// A server that this process manages, or an external one.
#[derive(Debug)]
pub struct Server {
    kind: ServerKind,
    url: String,
    /// `None` for an external server.
    managed: Option<Managed>,
}

#[derive(Debug)]
struct Managed {
    binary: Binary,
    dir: ServerDir,
    /// `None` before the start, and after a stop or a kill.
    child: Option<GuardedChild>,
}

impl Server {
    /// A server that another process runs.
    pub(super) fn external(kind: ServerKind, url: String) -> Self {
        Self {
            kind,
            url,
            managed: None,
        }
    }

    /// Starts a server in its directory below `data`. Returns when it is ready.
    pub(super) async fn launch(
        kind: ServerKind,
        binary: Binary,
        data: &Path,
        os_user: Option<OsUser>,
        fsync: bool,
    ) -> anyhow::Result<Self> {
        let path = data.join(kind.dir_name());
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (binary, path, os_user) = (binary.clone(), path.clone(), os_user.clone());
            let open = move || {
                server_dir::open(kind, &binary, &path, os_user, fsync).map(|dir| (dir, binary))
            };
            let (dir, binary) = tokio::task::spawn_blocking(open)
                .await
                .context("the preparation panicked")??;
            let url = match kind {
                ServerKind::Postgres => postgres::url(&dir),
                ServerKind::Nats => nats::url(&dir),
                ServerKind::Redis => redis::url(&dir),
            };
            let port = dir.port;
            let mut server = Self {
                kind,
                url,
                managed: Some(Managed {
                    binary,
                    dir,
                    child: None,
                }),
            };
            match server.start().await {
                Ok(()) => return Ok(server),
                // Another process took the port after `open` had checked it. The next
                // attempt chooses another port.
                Err(_) if attempts < MAX_PORT_ATTEMPTS && !data_dir::is_port_free(port) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The address with its credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `Postgres`, `NATS` or `Redis`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Product, version and executable, for display.
    #[must_use]
    pub fn origin(&self) -> String {
        match &self.managed {
            Some(managed) => format!(
                "{} from {}",
                managed.binary.title(),
                managed.binary.path.display()
            ),
            None => format!("{} at the configured address", self.kind.name()),
        }
    }

    /// Product and version; of an external server only the name.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.managed {
            Some(managed) => managed.binary.title(),
            None => self.kind.name().to_owned(),
        }
    }

    /// `None` for an external server.
    #[must_use]
    pub fn executable(&self) -> Option<&Path> {
        let managed = self.managed.as_ref()?;
        Some(&managed.binary.path)
    }

    /// The directory of its data and log; `None` for an external server.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        let managed = self.managed.as_ref()?;
        Some(&managed.dir.path)
    }

    /// The port on loopback; `None` for an external server.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        let managed = self.managed.as_ref()?;
        Some(managed.dir.port)
    }

    /// `None` for an external server, and after a stop or a kill.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let managed = self.managed.as_ref()?;
        managed.child.as_ref().map(GuardedChild::pid)
    }

    /// Starts the server again with the same address and data. Returns when it is
    /// ready. Has no effect on a running or an external server.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let (kind, url) = (self.kind, self.url.clone());
        let Some(managed) = &mut self.managed else {
            return Ok(());
        };
        let started = Instant::now();
        loop {
            if managed
                .child
                .as_mut()
                .is_none_or(|child| child.exit_status().is_some())
            {
                managed.spawn(kind)?;
            }
            let Err(error) = managed.wait_until_ready(kind, &url, started).await else {
                return Ok(());
            };
            let tail = managed.log_tail();
            managed.child = None;
            // The backends of a killed Postgres need a moment to exit. Until then
            // a new Postgres refuses to start, to protect the data.
            if started.elapsed() < START_TIMEOUT && tail.contains(postgres::STILL_IN_USE) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            let log = managed.dir.log();
            return Err(error.context(format!("the log {} ends with:\n{tail}", log.display())));
        }
    }

    /// Shuts the server down gracefully, or kills it when that takes too long. Has no
    /// effect on an external server. Returns an error if the server had to be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(managed) = &mut self.managed else {
            return Ok(());
        };
        let Some(mut child) = managed.child.take() else {
            return Ok(());
        };
        if !child.stop(self.kind.stop_signal(), STOP_TIMEOUT).await {
            bail!(
                "{} did not stop within {} s and was killed",
                self.kind.name(),
                STOP_TIMEOUT.as_secs()
            );
        }
        Ok(())
    }

    /// Kills the server and its children, like `kill -9`. Returns when all have
    /// exited.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.managed()?.child.take() {
            child.kill();
        }
        Ok(())
    }

    /// Suspends the server and its children. Their connections stay open without a
    /// response.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal_all(Signal::STOP)
    }

    /// Continues after [`Server::pause`].
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal_all(Signal::CONT)
    }

    /// Kills the server, deletes its data and starts it at the same address.
    pub async fn wipe(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        let kind = self.kind;
        let managed = self.managed()?;
        let (dir, binary) = (managed.dir.clone(), managed.binary.clone());
        let recreate = move || {
            data_dir::remove_dir(&dir.data())?;
            server_dir::prepare(kind, &dir, &binary)
        };
        tokio::task::spawn_blocking(recreate)
            .await
            .context("the preparation panicked")??;
        self.start().await
    }

    /// The error of a server that has exited without a stop or a kill by this
    /// process; `None` otherwise.
    pub(super) fn unexpected_exit(&mut self) -> Option<anyhow::Error> {
        let managed = self.managed.as_mut()?;
        let status = managed.child.as_mut()?.exit_status()?;
        let (log, tail) = (managed.dir.log(), managed.log_tail());
        let name = self.kind.name();
        Some(anyhow::anyhow!(
            "{name} exited unexpectedly ({status}); the log {} ends with:\n{tail}",
            log.display()
        ))
    }

    fn managed(&mut self) -> anyhow::Result<&mut Managed> {
        let name = self.kind.name();
        self.managed
            .as_mut()
            .with_context(|| format!("{name} is an external server"))
    }

    fn signal_all(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self
            .managed
            .as_ref()
            .and_then(|managed| managed.child.as_ref());
        child
            .with_context(|| format!("{} is external or not running", self.kind.name()))?
            .signal_all(signal);
        Ok(())
    }
}

impl Managed {
    fn spawn(&mut self, kind: ServerKind) -> anyhow::Result<()> {
        let dir = &self.dir;
        let command: Command = match kind {
            ServerKind::Postgres => postgres::command(dir, &self.binary),
            ServerKind::Nats => nats::command(dir, &self.binary),
            ServerKind::Redis => redis::command(dir, &self.binary),
        };
        let (pid_file, log) = (dir.pid_file(), dir.log());
        let os_user = dir.os_user.as_ref();
        self.child = Some(GuardedChild::start(
            &command,
            os_user,
            &pid_file,
            &log,
            kind.orphan_signal(),
        )?);
        Ok(())
    }

    /// Checks the server until it is ready. Fails if it exits, or at
    /// [`START_TIMEOUT`] after `started`.
    async fn wait_until_ready(
        &mut self,
        kind: ServerKind,
        url: &str,
        started: Instant,
    ) -> anyhow::Result<()> {
        let not_ready = || format!("not ready within {} s", START_TIMEOUT.as_secs());
        loop {
            let check = async {
                match kind {
                    ServerKind::Postgres => postgres::check_ready(url).await,
                    ServerKind::Nats => nats::check_ready(url).await,
                    ServerKind::Redis => redis::check_ready(url).await,
                }
            };
            let ready = tokio::time::timeout(CHECK_TIMEOUT, check).await;
            // Checked first: when the server has exited, another process may have
            // responded at its port.
            if let Some(status) = self.child.as_mut().and_then(GuardedChild::exit_status) {
                bail!("{} exited ({status})", kind.name());
            }
            match ready {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if started.elapsed() > START_TIMEOUT => {
                    return Err(error.context(not_ready()));
                }
                Err(_) if started.elapsed() > START_TIMEOUT => bail!(not_ready()),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.dir.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.trim_end().lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}
