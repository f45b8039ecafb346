//! Servers for development and tests: finds or downloads Postgres, NATS and Redis,
//! and runs them as child processes on loopback.
//!
//! A server never outlives the process that started it, even if that process is
//! killed (see `child_guard.rs`). The data, port and password of a server are kept,
//! so that its address stays the same. This crate is not for production: the
//! servers listen only on loopback, without TLS and without backups.

mod server;

mod nats;
mod postgres;
mod redis;
mod server_dir;

mod child_guard;
mod processes;

mod data_dir;
mod discover;
mod download;
mod os_user;
mod own_files;
mod server_kind;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use self::data_dir::DataDir;
pub use self::data_dir::{default_data_dir, scratch_data_dir};
use self::discover::Binary;
use self::os_user::OsUser;
pub use self::server::Server;
use self::server_kind::ServerKind;

/// How often [`Servers::watch`] checks the servers.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Which servers to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory for data, logs, ports, passwords and pid files. It holds one
    /// set of running servers at a time.
    pub data: PathBuf,
    /// Whether Postgres waits for the disk. `false` only in tests: a power failure
    /// then loses data, but killing the server does not.
    pub fsync: bool,
    /// Never download a server.
    pub offline: bool,
    /// The address of an external Postgres; `None` starts one.
    pub postgres: Option<String>,
    /// The address of an external NATS server; `None` starts one.
    pub nats: Option<String>,
    /// The address of an external Redis; `None` starts one.
    pub redis: Option<String>,
}

/// Three servers that are ready. Dropping this value stops the servers that it started
/// at once; [`Servers::stop`] shuts them down gracefully.
#[derive(Debug)]
pub struct Servers {
    pub postgres: Server,
    /// NATS with `JetStream`.
    pub nats: Server,
    /// Redis or Valkey.
    pub redis: Server,
    /// Fields are dropped in order, so this unlocks the directory after the servers
    /// have ended.
    _data: DataDir,
}

impl Servers {
    /// Starts each server that has no address in the options. Returns when all
    /// servers are ready.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let data = DataDir::lock(&options.data)?;
        let external = [options.postgres, options.nats, options.redis];
        let missing: Vec<ServerKind> = ServerKind::ALL
            .into_iter()
            .zip(&external)
            .filter_map(|(kind, url)| url.is_none().then_some(kind))
            .collect();
        let os_user = if missing.contains(&ServerKind::Postgres) {
            OsUser::for_postgres()?
        } else {
            None
        };
        let binaries = binaries(missing, os_user.clone(), options.offline).await?;

        let [postgres, nats, redis] = external;
        let run = async |kind: ServerKind, url: Option<String>| {
            if let Some(url) = url {
                return Ok(Server::external(kind, url));
            }
            let binary = binaries.iter().find(|(found, _)| *found == kind);
            let (_, binary) = binary.with_context(|| format!("{} was not found", kind.name()))?;
            let os_user = os_user.clone().filter(|_| kind == ServerKind::Postgres);
            let launch = Server::launch(kind, binary.clone(), data.path(), os_user, options.fsync);
            // Boxed because the future is large and rarely used.
            Box::pin(launch)
                .await
                .with_context(|| format!("starting {} failed", binary.title()))
        };
        // All of them, also if one fails: the directory is unlocked only when no other
        // launch writes to it any more.
        let (postgres, nats, redis) = tokio::join!(
            Box::pin(run(ServerKind::Postgres, postgres)),
            Box::pin(run(ServerKind::Nats, nats)),
            Box::pin(run(ServerKind::Redis, redis))
        );
        Ok(Self {
            postgres: postgres?,
            nats: nats?,
            redis: redis?,
            _data: data,
        })
    }

    /// Stops the servers that this value started. Postgres stops last, because
    /// Redis and NATS contain only data that comes from it.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let redis = self.redis.stop().await;
        let nats = self.nats.stop().await;
        let postgres = self.postgres.stop().await;
        redis.and(nats).and(postgres)
    }

    /// Waits until a server exits that nothing here has stopped or killed. Returns
    /// an error with the end of its log.
    pub async fn watch(&mut self) -> anyhow::Error {
        loop {
            for server in [&mut self.postgres, &mut self.nats, &mut self.redis] {
                if let Some(error) = server.unexpected_exit() {
                    return error;
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The address of Postgres for its superuser, or the external address.
    #[must_use]
    pub fn database_url(&self) -> &str {
        self.postgres.url()
    }

    /// The address of Postgres for another role. `None` for an external Postgres: its
    /// address may contain settings that belong to its role.
    #[must_use]
    pub fn database_url_as(&self, role: &str, password: &str) -> Option<String> {
        self.postgres.port()?;
        let (_, address) = self.database_url().split_once('@')?;
        Some(format!("postgres://{role}:{password}@{address}"))
    }

    #[must_use]
    pub fn nats_url(&self) -> &str {
        self.nats.url()
    }

    /// The address of database 0 of Redis.
    #[must_use]
    pub fn redis_url(&self) -> &str {
        self.redis.url()
    }
}

/// The secret that `file` in a data folder stores. If the file is missing, stores a
/// random secret.
///
/// # Errors
/// When another user owns the file or can read it, or when it cannot be written.
pub fn get_or_create_secret(file: &Path) -> anyhow::Result<String> {
    data_dir::get_or_create_secret(file, None, None)
}

/// Writes a file in a data folder that only this user can read.
///
/// # Errors
/// When the folder of the file is missing, full or read-only.
pub fn write_secret(file: &Path, content: &str) -> anyhow::Result<()> {
    own_files::write_secret(file, content, None)
}

/// A suitable executable for each kind: one that is installed on this machine, or
/// else a downloaded one.
async fn binaries(
    kinds: Vec<ServerKind>,
    os_user: Option<OsUser>,
    offline: bool,
) -> anyhow::Result<Vec<(ServerKind, Binary)>> {
    let search = move || {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for kind in kinds {
            match discover::find(kind, os_user.as_ref()) {
                Some(binary) => found.push((kind, binary)),
                None => missing.push(kind),
            }
        }
        found.extend(download::binaries(&missing, os_user.as_ref(), offline)?);
        Ok(found)
    };
    tokio::task::spawn_blocking(search)
        .await
        .context("the search for servers panicked")?
}

#[cfg(test)]
mod tests;
