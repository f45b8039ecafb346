//! Settings: environment variables, each also a command-line flag.
//!
//! Each command flattens only the groups of settings that it uses.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use api::serve::ClientTimeouts;
use axum::http::HeaderValue;
use clap::{Args, ValueEnum};
use eventlog::roles::DatabaseRole;
use ipnet::IpNet;

mod servers;
mod stream;

mod auth;
mod jobs;
mod rate_limit;
mod role_passwords;
mod traces;

pub use auth::{AuthArgs, SubjectForm};
pub use jobs::JobArgs;
pub use rate_limit::RateLimitArgs;
pub use role_passwords::RolePasswords;
use servers::read_secret;
pub use servers::{DatabaseArgs, NatsArgs, RedisArgs, ReplicaArgs};
pub use stream::{StreamArgs, StreamCompression};
pub use traces::{OtlpProtocol, TraceArgs, TracesSampler};

/// A setting that is an environment variable only. An empty one counts as unset, as for the
/// others.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

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
    pub stream: StreamArgs,
    #[command(flatten)]
    pub redis: RedisArgs,
    #[command(flatten)]
    pub auth: AuthArgs,
    #[command(flatten)]
    pub rate_limit: RateLimitArgs,
    #[command(flatten)]
    pub rules: RuleArgs,
    #[command(flatten)]
    pub projections: ProjectionArgs,
    #[command(flatten)]
    pub jobs: JobArgs,
    #[command(flatten)]
    pub traces: TraceArgs,
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

    /// The role of Postgres that a process with this role needs.
    #[must_use]
    pub const fn database_role(self) -> DatabaseRole {
        match self {
            Self::Api => DatabaseRole::Api,
            Self::Relay => DatabaseRole::Relay,
            Self::Projections => DatabaseRole::Projections,
            Self::Jobs => DatabaseRole::Jobs,
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
    /// Maximum number of open connections of one address, or of one /64 network of
    /// IPv6 [default: a quarter of all connections].
    ///
    /// Connections of `TRUSTED_PROXIES` have no such limit. Above it, those of the
    /// address that have been waiting longest for their client are closed.
    #[arg(long, env = "HTTP_CONNECTIONS_PER_ADDRESS", value_name = "COUNT")]
    pub connections_per_address: Option<NonZeroUsize>,
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

/// Rules of the domain.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Rules")]
pub struct RuleArgs {
    /// Longest part of a gap between two observations that counts as reading,
    /// in seconds.
    #[arg(long, env = "ACTIVE_GAP", value_name = "SECONDS", default_value = "120", value_parser = parse_seconds)]
    pub active_gap: Duration,
}

/// The freshness of read tables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Projections")]
pub struct ProjectionArgs {
    /// Longest time in seconds for which position updates wait in memory, from 0 to 25.
    /// Updates of a session within this time become one row of the history and of the
    /// statistics.
    ///
    /// Starts, ends and corrections are written at once, and so are the rows of a query
    /// with `min_position`. The active session and a session by its id are never late.
    /// 0 writes a row for nearly every update.
    #[arg(long, env = "COALESCE_WINDOW", value_name = "SECONDS", default_value = "15", value_parser = parse_window)]
    pub coalesce_window: Duration,
}

fn parse_window(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.0..=25.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected a number of seconds from 0 to 25, for example `15`".to_owned())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("expected a whole number of seconds from 1 to 86400".to_owned()),
    }
}

/// Parses a number of bytes, which may have a decimal unit: `500`, `50MB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => Some(1),
        "KB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        _ => None,
    };
    // JetStream has signed numbers.
    let bytes = digits.parse::<u64>().ok().zip(unit);
    bytes
        .and_then(|(number, unit)| number.checked_mul(unit))
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| {
            "expected a whole number of bytes, or with a unit: `50KB`, `50MB` or `50GB`".to_owned()
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coalesce_window_is_a_number_of_seconds() {
        assert_eq!(parse_window("0"), Ok(Duration::ZERO));
        assert_eq!(parse_window("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_window("25"), Ok(Duration::from_secs(25)));
        for text in ["", "-1", "26", "15s", "NaN", "inf"] {
            assert!(parse_window(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_may_have_a_decimal_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("500", 500),
            ("2KB", 2_000),
            ("50MB", 50_000_000),
            ("15GB", 15_000_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        for text in [
            "",
            "MB",
            "-1",
            "1.5GB",
            "1 GB",
            "1gb",
            "1GiB",
            "9999999999GB",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
