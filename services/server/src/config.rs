//! Settings: environment variables, each also a flag. Each role flattens only
//! what it uses.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use api::rate_limit::RateLimits;
use api::secret::Secret;
use axum::http::HeaderValue;
use chrono::Days;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use jobs::settings::JobSettings;

use api::serve::Limits;

mod auth;

pub use auth::AuthArgs;

/// A secret from its setting, or from its file.
fn required(
    name: &str,
    value: Option<&Secret>,
    file: Option<&PathBuf>,
) -> anyhow::Result<Secret> {
    match (value, file) {
        (Some(value), _) => Ok(value.clone()),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("{name}_FILE: cannot read {}", file.display()))?;
            Ok(Secret::from(text.trim().to_owned()))
        }
        (None, None) => bail!("{name} is not set, nor is {name}_FILE"),
    }
}

/// Where Postgres is.
#[derive(Args, Clone, Debug)]
pub struct DatabaseArgs {
    /// Postgres, for example `postgres://user:password@host:5432/database`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<Secret>,
    /// A file with the address of Postgres.
    #[arg(long, env = "DATABASE_URL_FILE", conflicts_with = "database_url")]
    pub database_url_file: Option<PathBuf>,
    /// Connections that the API may hold.
    #[arg(long, env = "DATABASE_POOL_SIZE", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub database_pool_size: u32,
    /// How long a statement may take, in seconds.
    #[arg(long, env = "DATABASE_STATEMENT_TIMEOUT", default_value = "30", value_parser = seconds)]
    pub database_statement_timeout: Duration,
    /// How long a request may wait for a connection, connecting included, in
    /// seconds; then it is 503.
    #[arg(long, env = "DATABASE_POOL_TIMEOUT", default_value = "2", value_parser = seconds)]
    pub database_pool_timeout: Duration,
}

/// Where a read replica of Postgres is, when there is one.
#[derive(Args, Clone, Debug, Default)]
pub struct ReplicaArgs {
    /// A replica of Postgres for reading history and statistics; the primary
    /// answers what it does not.
    #[arg(long, env = "DATABASE_READ_URL", hide_env_values = true)]
    pub database_read_url: Option<Secret>,
    /// A file with the address of the replica.
    #[arg(
        long,
        env = "DATABASE_READ_URL_FILE",
        conflicts_with = "database_read_url"
    )]
    pub database_read_url_file: Option<PathBuf>,
    /// Connections to the replica that the API may hold; by default as many as
    /// to the primary.
    #[arg(long, env = "DATABASE_READ_POOL_SIZE", value_parser = clap::value_parser!(u32).range(1..))]
    pub database_read_pool_size: Option<u32>,
}

/// Where NATS is.
#[derive(Args, Clone, Debug)]
pub struct NatsArgs {
    /// NATS with JetStream, for example `nats://user:password@host:4222`.
    #[arg(long, env = "NATS_URL", hide_env_values = true)]
    pub nats_url: Option<Secret>,
    /// A file with the address of NATS.
    #[arg(long, env = "NATS_URL_FILE", conflicts_with = "nats_url")]
    pub nats_url_file: Option<PathBuf>,
    /// What the names of the stream and its subjects begin with, so that
    /// several installations can share a server.
    #[arg(long, env = "NATS_PREFIX", default_value = "", value_parser = prefix)]
    pub nats_prefix: String,
}

/// Where Redis is.
#[derive(Args, Clone, Debug)]
pub struct RedisArgs {
    /// Redis or Valkey, for example `redis://:password@host:6379/0`.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<Secret>,
    /// A file with the address of Redis.
    #[arg(long, env = "REDIS_URL_FILE", conflicts_with = "redis_url")]
    pub redis_url_file: Option<PathBuf>,
}

/// Where the service listens.
#[derive(Args, Clone, Debug)]
pub struct HttpArgs {
    /// Where client apps call.
    #[arg(long, env = "HTTP_ADDR", default_value = "127.0.0.1:8080")]
    pub http_addr: SocketAddr,
    /// Where operators and probes call.
    #[arg(long, env = "ADMIN_ADDR", default_value = "127.0.0.1:8081")]
    pub admin_addr: SocketAddr,
    /// Proxies whose word on a client's address is taken
    /// (`X-Forwarded-For`), as networks separated by commas, for example
    /// `10.0.0.0/8,::1/128`.
    #[arg(long, env = "TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,
    /// Origins of web pages that may call, separated by commas, for example
    /// `https://app.example`. Any, by default: a page has no more power than
    /// the token it has.
    #[arg(long, env = "CORS_ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub cors_origins: Vec<HeaderValue>,
    /// How long clients may keep the service waiting; no setting, but tests do
    /// not want to wait that long.
    #[arg(skip)]
    pub limits: Limits,
}

/// How often somebody may call, in a sliding window. By reader, and by address
/// without a good token.
#[derive(Args, Clone, Debug)]
pub struct RateLimitArgs {
    /// Position updates; a batch is one.
    #[arg(
        long = "rate-limit-high-frequency",
        env = "RATE_LIMIT_HIGH_FREQUENCY",
        default_value = "60"
    )]
    pub high_frequency: NonZeroU32,
    /// Other calls.
    #[arg(
        long = "rate-limit-normal",
        env = "RATE_LIMIT_NORMAL",
        default_value = "30"
    )]
    pub normal: NonZeroU32,
    /// Operators' calls, exports and erasures.
    #[arg(
        long = "rate-limit-low-frequency",
        env = "RATE_LIMIT_LOW_FREQUENCY",
        default_value = "10"
    )]
    pub low_frequency: NonZeroU32,
    /// Calls without a good token.
    #[arg(long = "rate-limit-auth", env = "RATE_LIMIT_AUTH", default_value = "5")]
    pub auth: NonZeroU32,
    /// The window, in seconds.
    #[arg(long = "rate-limit-window", env = "RATE_LIMIT_WINDOW", default_value = "60", value_parser = seconds)]
    pub window: Duration,
    /// How long a request waits for Redis to count it, in milliseconds; then
    /// this process counts by itself.
    #[arg(long = "rate-limit-deadline", env = "RATE_LIMIT_DEADLINE", default_value = "10", value_parser = milliseconds)]
    pub deadline: Duration,
}

/// Rules of the domain.
#[derive(Args, Clone, Debug)]
pub struct RuleArgs {
    /// How much of a gap between two observations counts as reading at most, in
    /// seconds.
    #[arg(long, env = "ACTIVE_GAP", default_value = "120", value_parser = seconds)]
    pub active_gap: Duration,
}

/// How long things are kept.
#[derive(Args, Clone, Debug)]
pub struct JobArgs {
    /// A session of which nothing was heard for so long ends, in seconds.
    #[arg(long, env = "IDLE_AFTER", default_value = "7200", value_parser = seconds)]
    pub idle_after: Duration,
    /// Sessions that ended more days ago leave the history, by whole months; 0
    /// keeps them for ever. The log and the statistics keep them.
    #[arg(long, env = "RETENTION_DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(0..=36_500))]
    pub retention_days: u32,
    /// Days that statistics are kept, at least 366, since queries go so far back;
    /// 0 keeps them for ever.
    #[arg(long, env = "STATISTICS_DAYS", default_value_t = 0, value_parser = statistics_days)]
    pub statistics_days: u32,
    /// Days after which an idempotency key is forgotten.
    #[arg(long, env = "IDEMPOTENCY_KEYS_DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub idempotency_keys_days: u32,
}

impl RateLimitArgs {
    #[must_use]
    pub fn limits(&self) -> RateLimits {
        RateLimits {
            high_frequency: self.high_frequency,
            normal: self.normal,
            low_frequency: self.low_frequency,
            auth: self.auth,
            window: self.window,
            deadline: self.deadline,
        }
    }
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

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Takes commands and answers queries over HTTP.
    Api,
    /// Carries the log to NATS.
    Relay,
    /// Keeps the read tables and the cache.
    Projections,
    /// Runs background jobs: ends idle sessions, removes old data, overwrites
    /// erased events, fills the cache.
    #[value(alias = "maintenance")]
    Jobs,
}

impl Role {
    /// All roles: the default of one process.
    pub const ALL: [Self; 4] = [Self::Api, Self::Relay, Self::Projections, Self::Jobs];
}

/// All that `serve` takes.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// What this process does; may be given several times. All, by default.
    #[arg(long = "role", env = "ROLES", value_enum, value_delimiter = ',')]
    pub roles: Vec<Role>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "their types say what they are")]
    pub http: HttpArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "their types say what they are")]
    pub database: DatabaseArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "their types say what they are")]
    pub replica: ReplicaArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "their types say what they are")]
    pub nats: NatsArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "their types say what they are")]
    pub redis: RedisArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "their types say what they are")]
    pub auth: AuthArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "their types say what they are")]
    pub rate_limit: RateLimitArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "their types say what they are")]
    pub rules: RuleArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "their types say what they are")]
    pub upkeep: JobArgs,
}

impl ServeArgs {
    /// Whether the process has a role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.roles.is_empty() || self.roles.contains(&role)
    }
}

impl DatabaseArgs {
    /// The address of Postgres.
    ///
    /// # Errors
    /// When it is not set, or its file cannot be read.
    pub fn url(&self) -> anyhow::Result<Secret> {
        required(
            "DATABASE_URL",
            self.database_url.as_ref(),
            self.database_url_file.as_ref(),
        )
    }
}

impl ReplicaArgs {
    /// The address of the replica, when there is one.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn url(&self) -> anyhow::Result<Option<Secret>> {
        if self.database_read_url.is_none() && self.database_read_url_file.is_none() {
            return Ok(None);
        }
        required(
            "DATABASE_READ_URL",
            self.database_read_url.as_ref(),
            self.database_read_url_file.as_ref(),
        )
        .map(Some)
    }
}

impl NatsArgs {
    /// The address of NATS.
    ///
    /// # Errors
    /// When it is not set, or its file cannot be read.
    pub fn url(&self) -> anyhow::Result<Secret> {
        required(
            "NATS_URL",
            self.nats_url.as_ref(),
            self.nats_url_file.as_ref(),
        )
    }
}

impl RedisArgs {
    /// Whether there is an address.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.redis_url.is_some() || self.redis_url_file.is_some()
    }

    /// The address of Redis.
    ///
    /// # Errors
    /// When it is not set, or its file cannot be read.
    pub fn url(&self) -> anyhow::Result<Secret> {
        required(
            "REDIS_URL",
            self.redis_url.as_ref(),
            self.redis_url_file.as_ref(),
        )
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("a whole number of seconds from 1 to 86400".to_owned()),
    }
}

fn statistics_days(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(days @ (0 | 366..=36_500)) => Ok(days),
        _ => Err("0, or a whole number of days from 366 to 36500".to_owned()),
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(milliseconds @ 1..=10_000) => Ok(Duration::from_millis(milliseconds)),
        _ => Err("a whole number of milliseconds from 1 to 10000".to_owned()),
    }
}

fn origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains('/')
    });
    match HeaderValue::try_from(text) {
        Ok(origin) if is_origin => Ok(origin),
        _ => Err("a scheme and a host, as `https://app.example`".to_owned()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if text.chars().all(valid) {
        Ok(text.to_owned())
    } else {
        Err("lower-case letters, digits and underscores".to_owned())
    }
}
