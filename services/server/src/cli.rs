//! Commands of operators and developers, one a file.

use std::io::Write;

use ::eventlog::migrations::{self, MigrationStateError};
use clap::ValueEnum;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::config::DatabaseArgs;
use crate::{app, connect};

mod format;
mod progress_bar;
mod table;

pub mod config;
pub mod dead_letters;
pub mod dev;
pub mod doctor;
pub mod events;
pub mod migrate;
pub mod projections;
pub mod reader;
pub mod replay;
pub mod token;
pub mod jobs;
pub mod verify;
pub mod warm_up;

/// What a shell gets from a command that Ctrl-C or SIGTERM has stopped.
const STOPPED: u8 = 130;

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Prints a line; a reader that went away, as `head` does, is no error.
///
/// # Errors
/// Those of standard output.
pub fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Prints JSON.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// An error and its causes in a line; some say their cause themselves.
#[must_use]
pub fn why(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
    }
    text
}

/// The database, which answers and has the schema of this build.
async fn database(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    connect::reach(args).await?;
    let pool = connect::operator_pool(args)?;
    match migrations::check(&pool).await {
        Err(MigrationStateError::Unavailable(error)) => {
            Err(anyhow::Error::new(error).context("Postgres does not answer"))
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(pool),
    }
}

/// Does what can be stopped in order; Ctrl-C and SIGTERM stop it. A second one
/// does not wait.
async fn until_stopped<T>(
    work: impl AsyncFnOnce(&CancellationToken) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let stop = CancellationToken::new();
    let first = app::stop_signal()?;
    let mut work = std::pin::pin!(work(&stop));
    tokio::select! {
        done = &mut work => return done,
        () = first => stop.cancel(),
    }
    let second = app::stop_signal()?;
    tokio::select! {
        done = &mut work => done,
        () = second => anyhow::bail!("stopped without waiting for what was begun"),
    }
}
