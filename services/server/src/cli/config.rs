//! `reading-sessions config`: the settings as they take effect, without their
//! secrets.

use api::auth::KeySource;
use api::secret::Secret;

use crate::config::{Role, ServeArgs};

/// The settings of `serve`, named as their environment variables.
#[derive(Debug)]
pub struct Settings(Vec<(&'static str, String)>);

impl Settings {
    /// The settings that take effect.
    #[must_use]
    pub fn of(args: &ServeArgs) -> Self {
        let address = |secret: anyhow::Result<Secret>| match secret {
            Ok(secret) => secret.as_address(),
            Err(error) => format!("({error})"),
        };
        let roles = if args.roles.is_empty() {
            &Role::ALL[..]
        } else {
            &args.roles
        };
        let roles: Vec<String> = roles
            .iter()
            .map(|role| format!("{role:?}").to_lowercase())
            .collect();
        let seconds = |duration: std::time::Duration| duration.as_secs().to_string();
        let optional = |value: &Option<String>| value.clone().unwrap_or_default();
        Self(vec![
            ("ROLES", roles.join(",")),
            ("HTTP_ADDR", args.http.http_addr.to_string()),
            ("ADMIN_ADDR", args.http.admin_addr.to_string()),
            ("TRUSTED_PROXIES", list(&args.http.trusted_proxies)),
            (
                "CORS_ORIGINS",
                list(
                    args.http
                        .cors_origins
                        .iter()
                        .filter_map(|o| o.to_str().ok()),
                ),
            ),
            ("DATABASE_URL", address(args.database.url())),
            (
                "DATABASE_POOL_SIZE",
                args.database.database_pool_size.to_string(),
            ),
            (
                "DATABASE_STATEMENT_TIMEOUT",
                seconds(args.database.database_statement_timeout),
            ),
            (
                "DATABASE_POOL_TIMEOUT",
                seconds(args.database.database_pool_timeout),
            ),
            (
                "DATABASE_READ_URL",
                match args.replica.url() {
                    Ok(url) => url.as_ref().map(Secret::as_address).unwrap_or_default(),
                    Err(error) => format!("({error})"),
                },
            ),
            (
                "DATABASE_READ_POOL_SIZE",
                args.replica
                    .database_read_pool_size
                    .unwrap_or(args.database.database_pool_size)
                    .to_string(),
            ),
            ("NATS_URL", address(args.nats.url())),
            ("NATS_PREFIX", args.nats.nats_prefix.clone()),
            ("REDIS_URL", address(args.redis.url())),
            (
                "JWT_SECRET",
                match args.auth.source() {
                    Ok(KeySource::Secret(secret)) => format!("{secret:?}"),
                    Ok(KeySource::File(_) | KeySource::Url(_)) => String::new(),
                    Err(error) => format!("({error})"),
                },
            ),
            (
                "JWKS_FILE",
                args.auth
                    .jwks_file
                    .as_ref()
                    .map(|file| file.display().to_string())
                    .unwrap_or_default(),
            ),
            (
                "JWKS_URL",
                args.auth
                    .jwks_url
                    .as_ref()
                    .map(Secret::as_address)
                    .unwrap_or_default(),
            ),
            ("JWT_ISSUER", optional(&args.auth.jwt_issuer)),
            ("JWT_AUDIENCE", optional(&args.auth.jwt_audience)),
            (
                "RATE_LIMIT_HIGH_FREQUENCY",
                args.rate_limit.high_frequency.to_string(),
            ),
            ("RATE_LIMIT_NORMAL", args.rate_limit.normal.to_string()),
            (
                "RATE_LIMIT_LOW_FREQUENCY",
                args.rate_limit.low_frequency.to_string(),
            ),
            ("RATE_LIMIT_AUTH", args.rate_limit.auth.to_string()),
            ("RATE_LIMIT_WINDOW", seconds(args.rate_limit.window)),
            (
                "RATE_LIMIT_DEADLINE",
                args.rate_limit.deadline.as_millis().to_string(),
            ),
            ("ACTIVE_GAP", seconds(args.rules.active_gap)),
            ("IDLE_AFTER", seconds(args.upkeep.idle_after)),
            ("RETENTION_DAYS", args.upkeep.retention_days.to_string()),
            ("STATISTICS_DAYS", args.upkeep.statistics_days.to_string()),
            (
                "IDEMPOTENCY_KEYS_DAYS",
                args.upkeep.idempotency_keys_days.to_string(),
            ),
        ])
    }

    /// One setting a line, as a shell reads it.
    #[must_use]
    pub fn text(&self) -> String {
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        lines.join("\n")
    }

    /// A JSON object.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        self.0
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

fn list(values: impl IntoIterator<Item: ToString>) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    values.join(",")
}
