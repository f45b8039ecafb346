//! `reading-sessions config`: the settings in effect, without secrets.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use api::auth::KeySource;
use api::secret::Secret;
use clap::Args;
use serde_json::{Map, Value};

use super::output::OutputArgs;
use crate::config::{Role, ServeArgs, TraceArgs};

#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    serve: ServeArgs,
}

pub fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let settings = settings(&args.serve);
    let json: Map<String, Value> = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
        .collect();
    args.output.print(&json, || {
        let lines: Vec<String> = settings
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        lines.join("\n")
    })
}

/// The settings of `serve`, by environment variable.
fn settings(args: &ServeArgs) -> Vec<(&'static str, String)> {
    let ServeArgs {
        roles,
        http,
        database,
        replica,
        nats,
        stream,
        redis,
        auth,
        rate_limit,
        rules,
        projections,
        jobs,
        traces,
    } = args;
    let roles = if roles.is_empty() {
        &Role::ALL[..]
    } else {
        roles
    };
    let origins = http.cors_origins.iter();
    let read_pool_size = replica.database_read_pool_size;
    vec![
        ("ROLES", joined(roles.iter().map(|role| role.as_str()))),
        ("HTTP_ADDR", http.http_addr.to_string()),
        ("ADMIN_ADDR", http.admin_addr.to_string()),
        ("TRUSTED_PROXIES", joined(&http.trusted_proxies)),
        (
            "HTTP_CONNECTIONS_PER_ADDRESS",
            or_empty(http.connections_per_address),
        ),
        (
            "CORS_ORIGINS",
            joined(origins.filter_map(|origin| origin.to_str().ok())),
        ),
        ("DATABASE_URL", address(database.url().map(Some))),
        (
            "DATABASE_POOL_SIZE",
            database.database_pool_size.to_string(),
        ),
        (
            "DATABASE_STATEMENT_TIMEOUT",
            seconds(database.database_statement_timeout),
        ),
        (
            "DATABASE_POOL_TIMEOUT",
            seconds(database.database_pool_timeout),
        ),
        ("DATABASE_READ_URL", address(replica.url())),
        (
            "DATABASE_READ_POOL_SIZE",
            read_pool_size
                .unwrap_or(database.database_pool_size)
                .to_string(),
        ),
        ("NATS_URL", addresses(nats.addresses())),
        ("NATS_CREDS", path(nats.nats_creds.as_ref())),
        ("NATS_CA_FILE", path(nats.nats_ca_file.as_ref())),
        ("NATS_CERT_FILE", path(nats.nats_cert_file.as_ref())),
        ("NATS_KEY_FILE", path(nats.nats_key_file.as_ref())),
        ("NATS_PREFIX", nats.nats_prefix.clone()),
        ("NATS_STREAM_MAX_AGE_DAYS", stream.max_age_days.to_string()),
        ("NATS_STREAM_MAX_BYTES", stream.max_bytes.to_string()),
        ("NATS_STREAM_COMPRESSION", stream.compression.to_string()),
        ("NATS_STREAM_REPLICAS", stream.replicas.to_string()),
        ("REDIS_URL", address(redis.url().map(Some))),
        ("REDIS_CA_FILE", path(redis.redis_ca_file.as_ref())),
        ("REDIS_CERT_FILE", path(redis.redis_cert_file.as_ref())),
        ("REDIS_KEY_FILE", path(redis.redis_key_file.as_ref())),
        ("JWT_SECRET", hidden_secret(auth.source())),
        ("JWKS_FILE", path(auth.jwks_file.as_ref())),
        ("JWKS_URL", address(Ok(auth.jwks_url.clone()))),
        ("JWT_ISSUER", or_empty(auth.jwt_issuer.as_ref())),
        ("JWT_AUDIENCE", or_empty(auth.jwt_audience.as_ref())),
        ("JWT_SUBJECTS", auth.jwt_subjects.as_str().to_owned()),
        (
            "RATE_LIMIT_HIGH_FREQUENCY",
            rate_limit.high_frequency.to_string(),
        ),
        ("RATE_LIMIT_NORMAL", rate_limit.normal.to_string()),
        (
            "RATE_LIMIT_LOW_FREQUENCY",
            rate_limit.low_frequency.to_string(),
        ),
        ("RATE_LIMIT_SYNC", rate_limit.sync.to_string()),
        ("RATE_LIMIT_AUTH", rate_limit.auth.to_string()),
        ("RATE_LIMIT_WINDOW", seconds(rate_limit.window)),
        (
            "RATE_LIMIT_DEADLINE",
            rate_limit.deadline.as_millis().to_string(),
        ),
        ("RATE_LIMIT_DAILY_BYTES", rate_limit.daily_bytes.to_string()),
        ("ACTIVE_GAP", seconds(rules.active_gap)),
        (
            "COALESCE_WINDOW",
            projections.coalesce_window.as_secs_f64().to_string(),
        ),
        ("IDLE_AFTER", seconds(jobs.idle_after)),
        ("RETENTION_DAYS", jobs.retention_days.to_string()),
        ("STATISTICS_DAYS", jobs.statistics_days.to_string()),
        (
            "IDEMPOTENCY_KEYS_DAYS",
            jobs.idempotency_keys_days.to_string(),
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            address(Ok(traces.otlp_endpoint.clone())),
        ),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            traces.otlp_protocol.to_string(),
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", hidden_headers(traces)),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            path(traces.otlp_certificate.as_ref()),
        ),
        ("OTEL_TRACES_SAMPLER", traces.traces_sampler.to_string()),
        (
            "OTEL_TRACES_SAMPLER_ARG",
            traces.traces_sampler_arg.to_string(),
        ),
        ("OTEL_SERVICE_NAME", traces.otel_service_name.clone()),
    ]
}

/// An address without its password, or the error in parentheses.
fn address(url: anyhow::Result<Option<Secret>>) -> String {
    match url {
        Ok(url) => or_empty(url.as_ref().map(Secret::redacted_url)),
        Err(error) => format!("({error})"),
    }
}

/// Like [`address`], for several.
fn addresses(urls: anyhow::Result<Vec<Secret>>) -> String {
    match urls {
        Ok(urls) => joined(urls.iter().map(Secret::redacted_url)),
        Err(error) => format!("({error})"),
    }
}

/// `(hidden)` if tokens are verified with a secret, or the error in parentheses.
fn hidden_secret(source: anyhow::Result<KeySource>) -> String {
    match source {
        Ok(KeySource::Secret(secret)) => format!("{secret:?}"),
        Ok(KeySource::File(_) | KeySource::Url(_)) => String::new(),
        Err(error) => format!("({error})"),
    }
}

/// `(hidden)` if there are headers for the collector, or the error in parentheses.
fn hidden_headers(traces: &TraceArgs) -> String {
    match traces.headers() {
        Ok(headers) if headers.is_empty() => String::new(),
        Ok(_) => "(hidden)".to_owned(),
        Err(error) => format!("({error:#})"),
    }
}

fn seconds(duration: Duration) -> String {
    duration.as_secs().to_string()
}

fn path(file: Option<&PathBuf>) -> String {
    or_empty(file.map(|file| file.display()))
}

fn or_empty(value: Option<impl Display>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn joined(values: impl IntoIterator<Item: ToString>) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    values.join(",")
}
