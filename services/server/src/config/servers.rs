//! The addresses of Postgres, NATS and Redis.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use api::secret::Secret;
use clap::Args;

use super::parse_seconds;

/// The primary Postgres.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Postgres")]
pub struct DatabaseArgs {
    /// Address of Postgres, for example
    /// `postgres://user:password@host:5432/database?sslmode=verify-full`.
    ///
    /// `sslmode=verify-full` encrypts the connection and verifies the server.
    /// `sslrootcert`, `sslcert` and `sslkey` are files with the certificate of the
    /// server's authority, and with a client certificate and its key (PEM).
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<Secret>,
    /// File with the address of Postgres.
    #[arg(
        long,
        env = "DATABASE_URL_FILE",
        value_name = "FILE",
        conflicts_with = "database_url"
    )]
    pub database_url_file: Option<PathBuf>,
    /// Maximum number of connections for requests.
    #[arg(long, env = "DATABASE_POOL_SIZE", value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub database_pool_size: u32,
    /// Maximum duration of a request's SQL statement, in seconds.
    #[arg(long, env = "DATABASE_STATEMENT_TIMEOUT", value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub database_statement_timeout: Duration,
    /// Maximum time that a request waits for a connection, in seconds; then it
    /// fails with 503.
    ///
    /// The time includes connecting.
    #[arg(long, env = "DATABASE_POOL_TIMEOUT", value_name = "SECONDS", default_value = "2", value_parser = parse_seconds)]
    pub database_pool_timeout: Duration,
}

impl DatabaseArgs {
    /// # Errors
    /// When no address is set, or its file cannot be read.
    pub fn url(&self) -> anyhow::Result<Secret> {
        let (url, file) = (&self.database_url, &self.database_url_file);
        read_secret("DATABASE_URL", url.as_ref(), file.as_ref())
    }
}

/// An optional read replica of Postgres.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Read replica")]
pub struct ReplicaArgs {
    /// Address of a streaming replica that serves history and statistics.
    ///
    /// If the replica fails or lags, the primary serves these reads. Encryption
    /// is set as in `DATABASE_URL`.
    #[arg(
        long,
        env = "DATABASE_READ_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub database_read_url: Option<Secret>,
    /// File with the address of the replica.
    #[arg(
        long,
        env = "DATABASE_READ_URL_FILE",
        value_name = "FILE",
        conflicts_with = "database_read_url"
    )]
    pub database_read_url_file: Option<PathBuf>,
    /// Maximum number of connections to the replica [default:
    /// `DATABASE_POOL_SIZE`].
    #[arg(long, env = "DATABASE_READ_POOL_SIZE", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub database_read_pool_size: Option<u32>,
}

impl ReplicaArgs {
    /// The address, or `None` without a replica.
    ///
    /// # Errors
    /// When the file with the address cannot be read.
    pub fn url(&self) -> anyhow::Result<Option<Secret>> {
        let (url, file) = (&self.database_read_url, &self.database_read_url_file);
        if url.is_none() && file.is_none() {
            return Ok(None);
        }
        read_secret("DATABASE_READ_URL", url.as_ref(), file.as_ref()).map(Some)
    }
}

/// NATS with `JetStream`.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "NATS")]
pub struct NatsArgs {
    /// Comma-separated addresses of NATS servers with JetStream, for example
    /// `tls://user:password@host:4222`.
    ///
    /// `tls://` encrypts the connection and verifies the server; `nats://` does so
    /// only if the server requires it. Several addresses are those of one cluster.
    #[arg(long, env = "NATS_URL", value_name = "URL", hide_env_values = true)]
    pub nats_url: Option<Secret>,
    /// File with the address of NATS.
    #[arg(
        long,
        env = "NATS_URL_FILE",
        value_name = "FILE",
        conflicts_with = "nats_url"
    )]
    pub nats_url_file: Option<PathBuf>,
    /// File with the credentials of a NATS user, its JWT and its key, as written by
    /// `nsc generate creds`.
    #[arg(long, env = "NATS_CREDS", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,
    /// File with the certificates of the authorities that may issue the certificate
    /// of NATS (PEM) [default: the authorities of the system].
    ///
    /// The setting requires encryption, also for `nats://`.
    #[arg(long, env = "NATS_CA_FILE", value_name = "FILE")]
    pub nats_ca_file: Option<PathBuf>,
    /// File with the client certificate for NATS and its intermediates (PEM).
    ///
    /// The setting requires encryption, also for `nats://`.
    #[arg(
        long,
        env = "NATS_CERT_FILE",
        value_name = "FILE",
        requires = "nats_key_file"
    )]
    pub nats_cert_file: Option<PathBuf>,
    /// File with the key of the client certificate for NATS (PEM).
    #[arg(
        long,
        env = "NATS_KEY_FILE",
        value_name = "FILE",
        requires = "nats_cert_file"
    )]
    pub nats_key_file: Option<PathBuf>,
    /// Prefix of stream names and subjects, so that several installations can
    /// share a server.
    #[arg(long, env = "NATS_PREFIX", value_name = "PREFIX", default_value = "", value_parser = parse_prefix)]
    pub nats_prefix: String,
}

impl NatsArgs {
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.nats_url.is_some() || self.nats_url_file.is_some()
    }

    /// # Errors
    /// When no address is set, or its file cannot be read.
    pub fn url(&self) -> anyhow::Result<Secret> {
        let (url, file) = (&self.nats_url, &self.nats_url_file);
        read_secret("NATS_URL", url.as_ref(), file.as_ref())
    }

    /// The addresses, one each.
    ///
    /// # Errors
    /// Like [`NatsArgs::url`], and when an address has credentials but no scheme. The
    /// text before it is then perhaps a part of a password with a comma.
    pub fn addresses(&self) -> anyhow::Result<Vec<Secret>> {
        let url = self.url()?;
        let addresses = url.expose().split(',').map(str::trim);
        if addresses
            .clone()
            .any(|one| one.contains('@') && !one.contains("://"))
        {
            bail!(
                "NATS_URL is not a list of addresses of NATS: an address with a user must begin \
                 with nats:// or tls://; write a comma in a password as %2C"
            );
        }
        Ok(addresses.map(|one| Secret::from(one.to_owned())).collect())
    }
}

/// Redis or Valkey.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Redis")]
pub struct RedisArgs {
    /// Address of Redis or Valkey, for example
    /// `rediss://user:password@host:6379/0`.
    ///
    /// `rediss://` encrypts the connection and verifies the server; `redis://` does
    /// neither.
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis_url: Option<Secret>,
    /// File with the address of Redis.
    #[arg(
        long,
        env = "REDIS_URL_FILE",
        value_name = "FILE",
        conflicts_with = "redis_url"
    )]
    pub redis_url_file: Option<PathBuf>,
    /// File with the certificates of the authorities that may issue the certificate
    /// of Redis (PEM) [default: the authorities of the system].
    #[arg(long, env = "REDIS_CA_FILE", value_name = "FILE")]
    pub redis_ca_file: Option<PathBuf>,
    /// File with the client certificate for Redis and its intermediates (PEM).
    #[arg(
        long,
        env = "REDIS_CERT_FILE",
        value_name = "FILE",
        requires = "redis_key_file"
    )]
    pub redis_cert_file: Option<PathBuf>,
    /// File with the key of the client certificate for Redis (PEM).
    #[arg(
        long,
        env = "REDIS_KEY_FILE",
        value_name = "FILE",
        requires = "redis_cert_file"
    )]
    pub redis_key_file: Option<PathBuf>,
}

impl RedisArgs {
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.redis_url.is_some() || self.redis_url_file.is_some()
    }

    /// # Errors
    /// When no address is set, or its file cannot be read.
    pub fn url(&self) -> anyhow::Result<Secret> {
        let (url, file) = (&self.redis_url, &self.redis_url_file);
        read_secret("REDIS_URL", url.as_ref(), file.as_ref())
    }
}

/// Reads a secret from its setting `name`, or from the file in `{name}_FILE`.
pub(super) fn read_secret(
    name: &str,
    value: Option<&Secret>,
    file: Option<&PathBuf>,
) -> anyhow::Result<Secret> {
    match (value, file) {
        (Some(value), _) => Ok(value.clone()),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {} ({name}_FILE)", file.display()))?;
            Ok(Secret::from(text.trim().to_owned()))
        }
        (None, None) if cfg!(feature = "dev") => bail!(
            "{name} is not set; set it, or {name}_FILE. With \"reading-sessions dev\" running: \
             . <data folder>/env"
        ),
        (None, None) => bail!("{name} is not set; set it, or {name}_FILE"),
    }
}

fn parse_prefix(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if text.chars().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err("expected lower-case letters, digits and underscores".to_owned())
    }
}
