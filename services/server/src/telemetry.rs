//! Logs: text for people, JSON for machines.

use std::io::IsTerminal;

use anyhow::Context;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

/// What the log tells of a service. The NATS client tells of every reconnect
/// attempt; the roles do too.
pub const SERVICE: &str = "info,async_nats=error,sqlx=warn";

/// What it tells of a command, which has its own words for what it does, and
/// may be slow.
pub const COMMAND: &str = "warn,async_nats=error,sqlx=error";

/// Begins to log to standard error, filtered by `RUST_LOG` or else by `filter`.
///
/// # Errors
/// When `RUST_LOG` is not a filter, or logging has begun already.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) => EnvFilter::try_new(filter).context("RUST_LOG is not a filter")?,
        Err(_) => EnvFilter::new(filter),
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!(error))
}
