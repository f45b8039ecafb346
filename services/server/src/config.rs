//! Settings: environment variables, each also a command-line flag.
//!
//! Each command flattens only the groups of settings that it uses.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use api::rate_limit::RateLimits;
use api::secret::Secret;
use api::serve::ClientTimeouts;
use axum::http::HeaderValue;
use chrono::Days;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use jobs::settings::JobSettings;

mod auth;

pub use auth::AuthArgs;

/// The settings of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Role of this process, repeatable [default: all roles].
    #[arg(
        long = "role",
        env = "ROLES",
        value_name = "ROLE",
        value_enum,
        value_delimiter = ','
    )]
    pub roles: Vec<Role>,
    #[command(flatten)]
    pub http: HttpArgs,
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub replica: ReplicaArgs,
    #[command(flatten)]
    pub nats: NatsArgs,
    #[command(flatten)]
    pub redis: RedisArgs,
    #[command(flatten)]
    pub auth: AuthArgs,
    #[command(flatten)]
    pub rate_limit: RateLimitArgs,
    #[command(flatten)]
    pub rules: RuleArgs,
    #[command(flatten)]
    pub jobs: JobArgs,
}

impl ServeArgs {
    /// Returns true for every role if none is set.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.roles.is_empty() || self.roles.contains(&role)
    }
}

/// A part of the service that a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Handle commands, queries and admin calls over HTTP.
    Api,
    /// Publish the log to NATS.
    Relay,
    /// Update the read tables and the cache.
    Projections,
    /// Run background jobs, for example end idle sessions and remove old data.
    // The old name, accepted for one release.
    #[value(alias = "maintenance")]
    Jobs,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Api, Self::Relay, Self::Projections, Self::Jobs];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Relay => "relay",
            Self::Projections => "projections",
            Self::Jobs => "jobs",
        }
    }
}

/// The listeners.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub struct HttpArgs {
    /// Address of the public API.
    #[arg(
        long,
        env = "HTTP_ADDR",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080"
    )]
    pub http_addr: SocketAddr,
    /// Address of probes, metrics and the admin API.
    #[arg(
        long,
        env = "ADMIN_ADDR",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8081"
    )]
    pub admin_addr: SocketAddr,
    /// Comma-separated networks of proxies whose `X-Forwarded-For` is trusted,
    /// for example `10.0.0.0/8,::1/128`.
    #[arg(
        long,
        env = "TRUSTED_PROXIES",
        value_name = "NETWORK",
        value_delimiter = ','
    )]
    pub trusted_proxies: Vec<IpNet>,
    /// Comma-separated origins of web pages that may call the API, for example
    /// `https://app.example` [default: any origin].
    ///
    /// The default is safe because a browser adds no token by itself: a page can
    /// do no more than its token allows.
    #[arg(long, env = "CORS_ORIGINS", value_name = "ORIGIN", value_delimiter = ',', value_parser = parse_origin)]
    pub cors_origins: Vec<HeaderValue>,
    /// Timeouts of clients. Only tests change them.
    #[arg(skip)]
    pub timeouts: ClientTimeouts,
}

/// The primary Postgres.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Postgres")]
pub struct DatabaseArgs {
    /// Address of Postgres, for example
    /// `postgres://user:password@host:5432/database`.
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
    /// If the replica fails or lags, the primary serves these reads.
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
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "NATS")]
pub struct NatsArgs {
    /// Address of NATS with JetStream, for example
    /// `nats://user:password@host:4222`.
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
}

/// Redis or Valkey.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Redis")]
pub struct RedisArgs {
    /// Address of Redis or Valkey, for example `redis://:password@host:6379/0`.
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

/// Maximum numbers of calls in a sliding window, by reader, or by address for
/// calls without a valid token.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Rate limits")]
pub struct RateLimitArgs {
    /// Position updates in a window, by reader; a batch counts once.
    #[arg(
        long = "rate-limit-high-frequency",
        env = "RATE_LIMIT_HIGH_FREQUENCY",
        value_name = "COUNT",
        default_value = "60"
    )]
    pub high_frequency: NonZeroU32,
    /// Other calls of client apps in a window, by reader.
    #[arg(
        long = "rate-limit-normal",
        env = "RATE_LIMIT_NORMAL",
        value_name = "COUNT",
        default_value = "30"
    )]
    pub normal: NonZeroU32,
    /// Admin calls, exports and erasures in a window, by user.
    #[arg(
        long = "rate-limit-low-frequency",
        env = "RATE_LIMIT_LOW_FREQUENCY",
        value_name = "COUNT",
        default_value = "10"
    )]
    pub low_frequency: NonZeroU32,
    /// Uploads of whole sessions in a window, by reader.
    #[arg(
        long = "rate-limit-sync",
        env = "RATE_LIMIT_SYNC",
        value_name = "COUNT",
        default_value = "10"
    )]
    pub sync: NonZeroU32,
    /// Calls without a valid token in a window, by address.
    #[arg(
        long = "rate-limit-auth",
        env = "RATE_LIMIT_AUTH",
        value_name = "COUNT",
        default_value = "5"
    )]
    pub auth: NonZeroU32,
    /// Length of the sliding window, in seconds.
    #[arg(long = "rate-limit-window", env = "RATE_LIMIT_WINDOW", value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub window: Duration,
    /// Maximum time that a request waits for Redis to count it, in
    /// milliseconds; then the process counts locally.
    #[arg(long = "rate-limit-deadline", env = "RATE_LIMIT_DEADLINE", value_name = "MILLISECONDS", default_value = "10", value_parser = parse_milliseconds)]
    pub deadline: Duration,
}

impl RateLimitArgs {
    #[must_use]
    pub fn limits(&self) -> RateLimits {
        RateLimits {
            high_frequency: self.high_frequency,
            normal: self.normal,
            low_frequency: self.low_frequency,
            sync: self.sync,
            auth: self.auth,
            window: self.window,
            deadline: self.deadline,
        }
    }
}

/// Rules of the domain.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Rules")]
pub struct RuleArgs {
    /// Longest part of a gap between two observations that counts as reading,
    /// in seconds.
    #[arg(long, env = "ACTIVE_GAP", value_name = "SECONDS", default_value = "120", value_parser = parse_seconds)]
    pub active_gap: Duration,
}

/// Ages at which background jobs end sessions and remove data.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Jobs")]
pub struct JobArgs {
    /// End a session provisionally after this many seconds without an event. A later
    /// observation makes it active again.
    #[arg(long, env = "IDLE_AFTER", value_name = "SECONDS", default_value = "7200", value_parser = parse_seconds)]
    pub idle_after: Duration,
    /// Remove months from the history when all their sessions ended more than
    /// this many days ago; 0 keeps everything.
    ///
    /// The log and the statistics keep these sessions.
    #[arg(long, env = "RETENTION_DAYS", value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(0..=36_500))]
    pub retention_days: u32,
    /// Delete daily statistics older than this many days; 0 keeps everything.
    ///
    /// Queries reach back 366 days, so fewer days are not accepted.
    #[arg(long, env = "STATISTICS_DAYS", value_name = "DAYS", default_value_t = 0, value_parser = parse_statistics_days)]
    pub statistics_days: u32,
    /// Delete idempotency keys older than this many days.
    #[arg(long, env = "IDEMPOTENCY_KEYS_DAYS", value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub idempotency_keys_days: u32,
}

impl JobArgs {
    #[must_use]
    pub fn settings(&self) -> JobSettings {
        let days = |days: u32| (days > 0).then(|| Days::new(days.into()));
        JobSettings {
            idle_after: self.idle_after,
            retention: days(self.retention_days),
            statistics: days(self.statistics_days),
            idempotency_keys: Days::new(self.idempotency_keys_days.into()),
        }
    }
}

/// Reads a secret from its setting `name`, or from the file in `{name}_FILE`.
fn read_secret(
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

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("expected a whole number of seconds from 1 to 86400".to_owned()),
    }
}

fn parse_milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(milliseconds @ 1..=10_000) => Ok(Duration::from_millis(milliseconds)),
        _ => Err("expected a whole number of milliseconds from 1 to 10000".to_owned()),
    }
}

fn parse_statistics_days(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(days @ (0 | 366..=36_500)) => Ok(days),
        _ => Err("expected 0, or a whole number of days from 366 to 36500".to_owned()),
    }
}

fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains('/')
    });
    match HeaderValue::try_from(text) {
        Ok(origin) if is_origin => Ok(origin),
        _ => Err("expected a scheme and a host, for example `https://app.example`".to_owned()),
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
