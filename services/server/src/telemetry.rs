//! Logs on standard error, text for people or JSON for programs; and traces.

use std::io::IsTerminal;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::config::variable;

pub mod traces;

mod export;
mod otlp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The default filter of `serve`, `dev` and `migrate`. The client of NATS would
/// log every attempt to reconnect; the service logs outages itself.
pub const SERVICE_FILTER: &str = "info,async_nats=error,sqlx=warn";

/// The default filter of other commands, which print their results and errors
/// themselves. Their statements may be slow.
pub const COMMAND_FILTER: &str = "warn,async_nats=error,sqlx=error";

/// Starts logging, with the filter in `RUST_LOG` or else with `default_filter`.
///
/// # Errors
/// When `RUST_LOG` is invalid, or logging was started before.
pub fn init(format: LogFormat, default_filter: &str) -> anyhow::Result<()> {
    let filter = match variable("RUST_LOG") {
        Some(filter) => EnvFilter::try_new(filter).context("RUST_LOG is not a log filter")?,
        None => EnvFilter::new(default_filter),
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow!(error))
}
