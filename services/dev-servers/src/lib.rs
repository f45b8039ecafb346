//! Servers for development and tests: finds or fetches real Postgres, NATS and
//! Redis servers and runs them as private children on loopback.
//!
//! A server never outlives the process that started it, however that ends (see
//! [`leash`]); its data does, with its port and password, so that addresses
//! stay the same. Nothing here is for production: nothing listens beyond
//! loopback, and there is no TLS and no backup.

mod server;

mod server_dir;
mod nats;
mod postgres;
mod redis;

mod child_guard;
mod processes;

mod os_user;
mod download;
mod data_dir;
mod discover;
mod server_kind;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use self::os_user::Account;
use self::data_dir::Held;
pub use self::data_dir::{default_data, scratch_data, secret, write_secret};
use self::discover::Binary;
use self::server_kind::Kind;
pub use self::server::Server;

/// Which servers to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of data, logs, ports, passwords and pid files. One set of
    /// servers at a time runs in it.
    pub data: PathBuf,
    /// Whether Postgres waits for the disk. False only in tests: a power cut
    /// then loses data; a killed server still does not.
    pub fsync: bool,
    /// Never fetch a server.
    pub offline: bool,
    /// The address of a Postgres to use instead of starting one.
    pub postgres: Option<String>,
    /// The address of a NATS server to use instead of starting one.
    pub nats: Option<String>,
    /// The address of a Redis to use instead of starting one.
    pub redis: Option<String>,
}

/// Three servers that answer. Dropped, the servers that were started here end;
/// [`Servers::stop`] does so in order.
#[derive(Debug)]
pub struct Servers {
    /// Postgres.
    pub postgres: Server,
    /// NATS with `JetStream`.
    pub nats: Server,
    /// Redis or Valkey.
    pub redis: Server,
    /// Released after the servers: fields are dropped in order.
    _held: Held,
}

impl Servers {
    /// Starts what was not given by its address; returns when all answer.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let held = Held::take(&options.data)?;
        let given = [options.postgres, options.nats, options.redis];
        let missing: Vec<Kind> = Kind::ALL
            .into_iter()
            .zip(&given)
            .filter_map(|(kind, url)| url.is_none().then_some(kind))
            .collect();
        let account = if missing.contains(&Kind::Postgres) {
            Account::for_postgres()?
        } else {
            None
        };
        let binaries = binaries(missing, account.clone(), options.offline).await?;

        let [postgres, nats, redis] = given;
        let run = async |kind: Kind, url: Option<String>| {
            if let Some(url) = url {
                return Ok(Server::given(kind, url));
            }
            let found = binaries.iter().find(|(found, _)| *found == kind);
            let (_, binary) = found.with_context(|| format!("{} was not found", kind.name()))?;
            let account = account.clone().filter(|_| kind == Kind::Postgres);
            let start =
                Server::first_start(kind, binary.clone(), held.folder(), account, options.fsync);
            // Boxed, like the rest of a start: it is large, and rare.
            Box::pin(start)
                .await
                .with_context(|| format!("{} does not start", binary.title()))
        };
        let (postgres, nats, redis) = tokio::try_join!(
            Box::pin(run(Kind::Postgres, postgres)),
            Box::pin(run(Kind::Nats, nats)),
            Box::pin(run(Kind::Redis, redis))
        )?;
        Ok(Self {
            postgres,
            nats,
            redis,
            _held: held,
        })
    }

    /// Stops what was started here, in order: the database last, since the
    /// others hold nothing that does not come from it.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let redis = self.redis.stop().await;
        let nats = self.nats.stop().await;
        let postgres = self.postgres.stop().await;
        redis.and(nats).and(postgres)
    }

    /// Returns when a server ended that nobody stopped, and says why.
    pub async fn watch(&mut self) -> anyhow::Error {
        loop {
            for server in [&mut self.postgres, &mut self.nats, &mut self.redis] {
                if let Some(death) = server.death() {
                    return death;
                }
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The database's address.
    #[must_use]
    pub fn database_url(&self) -> &str {
        self.postgres.url()
    }

    /// The address of NATS.
    #[must_use]
    pub fn nats_url(&self) -> &str {
        self.nats.url()
    }

    /// The address of Redis, with its database 0.
    #[must_use]
    pub fn redis_url(&self) -> &str {
        self.redis.url()
    }
}

/// A good enough binary of each kind: the machine's own, else a fetched one.
async fn binaries(
    kinds: Vec<Kind>,
    account: Option<Account>,
    offline: bool,
) -> anyhow::Result<Vec<(Kind, Binary)>> {
    let search = move || {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for kind in kinds {
            match discover::find(kind, account.as_ref()) {
                Some(binary) => found.push((kind, binary)),
                None => missing.push(kind),
            }
        }
        found.extend(download::binaries(&missing, account.as_ref(), offline)?);
        Ok(found)
    };
    tokio::task::spawn_blocking(search)
        .await
        .context("the search for servers failed")?
}

#[cfg(test)]
mod tests;
