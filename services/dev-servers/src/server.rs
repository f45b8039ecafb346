//! One server: started, stopped, killed, wiped. Keeps its port, password and
//! data through all of these, except that a wipe takes the data.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::os_user::Account;
use super::server_dir::{self, Home};
use super::discover::Binary;
use super::server_kind::Kind;
use super::child_guard::GuardedChild;
use super::{data_dir, nats, postgres, redis};

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(30);

/// How long a server may take to end in order: Postgres writes all that it
/// holds in memory.
const STOP: Duration = Duration::from_secs(20);

/// Lines of a server's log that an error shows.
const TAIL: usize = 15;

/// One server, ours or given by its address.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    url: String,
    /// None when the server was given.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    binary: Binary,
    home: Home,
    /// None before the start, and after a stop or a kill.
    running: Option<GuardedChild>,
}

impl Server {
    /// A server that someone else runs.
    pub(super) fn given(kind: Kind, url: String) -> Self {
        Self {
            kind,
            url,
            own: None,
        }
    }

    /// Starts a server in its folder in `data`; returns when it answers.
    pub(super) async fn first_start(
        kind: Kind,
        binary: Binary,
        data: &Path,
        account: Option<Account>,
        fsync: bool,
    ) -> anyhow::Result<Self> {
        let folder = data.join(kind.folder());
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (binary, folder, account) = (binary.clone(), folder.clone(), account.clone());
            let open = move || {
                server_dir::open(kind, &binary, &folder, account, fsync).map(|home| (home, binary))
            };
            let (home, binary) = tokio::task::spawn_blocking(open)
                .await
                .context("a panic")??;
            let url = match kind {
                Kind::Postgres => postgres::url(&home),
                Kind::Nats => nats::url(&home),
                Kind::Redis => redis::url(&home),
            };
            let port = home.port;
            let mut server = Self {
                kind,
                url,
                own: Some(Own {
                    binary,
                    home,
                    running: None,
                }),
            };
            match server.start().await {
                Ok(()) => return Ok(server),
                // Between the look at the port and the server's own, another
                // process was faster; the next attempt finds another port.
                Err(_) if attempts < 3 && !data_dir::is_free(port) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The address, with its credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `Postgres`, `NATS` or `Redis`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Product and version, and whose it is, for people.
    #[must_use]
    pub fn origin(&self) -> String {
        match &self.own {
            Some(own) => format!("{} from {}", own.binary.title(), own.binary.path.display()),
            None => format!("{} at the given address", self.kind.name()),
        }
    }

    /// Product and version, as far as they are known.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.own {
            Some(own) => own.binary.title(),
            None => self.kind.name().to_owned(),
        }
    }

    /// Its executable, when it is ours.
    #[must_use]
    pub fn executable(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.binary.path.as_path())
    }

    /// The folder of its data and log, when it is ours.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.home.folder.as_path())
    }

    /// Its port on loopback, when it is ours.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.own.as_ref().map(|own| own.home.port)
    }

    /// The number of its process, while it is ours and was not stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref()?.running.as_ref().map(GuardedChild::pid)
    }

    /// Starts it again at the same address with the same data; returns when it
    /// answers. Does nothing when it runs.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let (kind, url) = (self.kind, self.url.clone());
        let Some(own) = &mut self.own else {
            return Ok(());
        };
        let begun = Instant::now();
        loop {
            if own
                .running
                .as_mut()
                .is_none_or(|running| running.ended().is_some())
            {
                own.spawn(kind)?;
            }
            let Err(error) = own.until_it_answers(kind, &url, begun).await else {
                return Ok(());
            };
            let tail = own.log_tail();
            // Backends of a killed Postgres take a moment to notice; until
            // then it refuses to start, and rightly.
            if begun.elapsed() < START && tail.contains(postgres::PREDECESSOR) {
                own.running = None;
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            own.running = None;
            let log = own.home.log();
            return Err(error.context(format!("{} ends with:\n{tail}", log.display())));
        }
    }

    /// Ends it in order. A server that was given goes on.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(own) = &mut self.own else {
            return Ok(());
        };
        let Some(mut running) = own.running.take() else {
            return Ok(());
        };
        if !running.stop(self.kind.stop_signal(), STOP).await {
            bail!(
                "{} took longer than {} s to stop, and was killed",
                self.kind.name(),
                STOP.as_secs()
            );
        }
        Ok(())
    }

    /// Kills it as `kill -9` does, with its children; returns when they are
    /// gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut running) = self.ours()?.running.take() {
            running.kill();
        }
        Ok(())
    }

    /// Freezes it with its children: connections stay open, and silent.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal_all(Signal::STOP)
    }

    /// Lets it go on after a pause.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal_all(Signal::CONT)
    }

    /// Kills it, deletes its data, and starts it at the same address.
    pub async fn wipe(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        let kind = self.kind;
        let own = self.ours()?;
        let (home, binary) = (own.home.clone(), own.binary.clone());
        let renew = move || {
            data_dir::remove(&home.data())?;
            server_dir::prepare(kind, &home, &binary)
        };
        tokio::task::spawn_blocking(renew)
            .await
            .context("a panic")??;
        self.start().await
    }

    /// Why it is dead, when nobody stopped or killed it through this.
    pub(super) fn death(&mut self) -> Option<anyhow::Error> {
        let own = self.own.as_mut()?;
        let status = own.running.as_mut()?.ended()?;
        let (log, tail) = (own.home.log(), own.log_tail());
        let name = self.kind.name();
        Some(anyhow::anyhow!(
            "{name} ended ({status}); {} ends with:\n{tail}",
            log.display()
        ))
    }

    fn ours(&mut self) -> anyhow::Result<&mut Own> {
        let name = self.kind.name();
        self.own
            .as_mut()
            .with_context(|| format!("{name} was given by its address and is not ours"))
    }

    fn signal_all(&self, signal: Signal) -> anyhow::Result<()> {
        let running = self.own.as_ref().and_then(|own| own.running.as_ref());
        let running =
            running.with_context(|| format!("{} is not running here", self.kind.name()))?;
        running.signal_all(signal);
        Ok(())
    }
}

impl Own {
    fn spawn(&mut self, kind: Kind) -> anyhow::Result<()> {
        let home = &self.home;
        let command: Command = match kind {
            Kind::Postgres => postgres::command(home, &self.binary),
            Kind::Nats => nats::command(home, &self.binary),
            Kind::Redis => redis::command(home, &self.binary),
        };
        let (pid_file, log) = (home.pid_file(), home.log());
        let account = home.account.as_ref();
        self.running = Some(GuardedChild::start(
            &command,
            account,
            &pid_file,
            &log,
            kind.leash_signal(),
        )?);
        Ok(())
    }

    /// Asks until it answers, ends, or has taken too long.
    async fn until_it_answers(
        &mut self,
        kind: Kind,
        url: &str,
        begun: Instant,
    ) -> anyhow::Result<()> {
        loop {
            let ask = async {
                match kind {
                    Kind::Postgres => postgres::answers(url).await,
                    Kind::Nats => nats::answers(url).await,
                    Kind::Redis => redis::answers(url).await,
                }
            };
            let answer = tokio::time::timeout(Duration::from_secs(5), ask).await;
            // First: something else may answer at the port of a dead server.
            if let Some(status) = self.running.as_mut().and_then(GuardedChild::ended) {
                bail!("{} ended ({status})", kind.name());
            }
            match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if begun.elapsed() > START => {
                    return Err(error.context(format!("no answer within {} s", START.as_secs())));
                }
                Err(_) if begun.elapsed() > START => {
                    bail!("no answer within {} s", START.as_secs());
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.home.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.trim_end().lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}
