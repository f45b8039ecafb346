//! `reading-sessions replay`: a projection made again from the log, while
//! somebody watches.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use projections::active_sessions::Rebuilt;
use projections::rebuild::{ReplayError, Replayed};
use tokio::sync::watch;

use super::format::{count, rate};
use super::progress_bar::{self, say};
use super::{STOPPED, database, print, until_stopped};
use crate::config::{DatabaseArgs, RedisArgs};
use crate::connect;
use projections::operations::{ReplayResult, ProjectionName};

/// Which projection, and from where.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The projection.
    #[arg(value_enum)]
    name: ProjectionName,
    /// Forget what a replay that was cut off has done.
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

/// Replays until it is done or stopped.
///
/// # Errors
/// When a server does not answer, or a replay of the projection runs already.
pub async fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let name = args.name;
    database(&args.database).await?.close().await;
    let source = connect::projection_ops(&args.database, &args.redis);
    let unit = if name == ProjectionName::ActiveSessions {
        "sessions"
    } else {
        "events"
    };
    let progress = watch::Sender::default();
    let shown = progress.subscribe();
    let began = Instant::now();
    let done = until_stopped(async |stop| {
        let work = source.replay(name, args.restart, &progress, stop);
        progress_bar::with(name.as_str(), unit, shown, work).await
    })
    .await;
    match done {
        Ok(done) => {
            print(&closing(name, done, began.elapsed()))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => match error.downcast_ref() {
            Some(ReplayError::Stopped) => {
                say(&stopped(name, progress.borrow().at));
                Ok(ExitCode::from(STOPPED))
            }
            _ => Err(error.context(format!("{name} was not replayed"))),
        },
    }
}

fn stopped(name: ProjectionName, at: u64) -> String {
    if name == ProjectionName::ActiveSessions {
        format!("{name}: stopped; what was put is right, and the next replay begins anew")
    } else {
        let at = count(at);
        format!("{name}: stopped at {at}; the next replay goes on from there")
    }
}

/// What was done, in a line.
fn closing(name: ProjectionName, done: ReplayResult, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match done {
        ReplayResult::Tables(Replayed {
            events,
            from,
            position,
            held,
        }) => {
            let from = match from {
                0 => String::new(),
                from => format!(" after {}", count(from)),
            };
            format!(
                "{name}: {} events{from} in {seconds:.1} s, {} events/s; now at {}. \
                 Queries may have waited for {} ms.",
                count(events),
                count(rate(events, took)),
                count(position),
                held.as_millis()
            )
        }
        ReplayResult::Cache(Rebuilt {
            sessions,
            put,
            removed,
            ..
        }) => format!(
            "{name}: {} active sessions in {seconds:.1} s, {} sessions/s; \
             {} entries put, {} removed. Queries did not wait.",
            count(sessions),
            count(rate(sessions, took)),
            count(put),
            count(removed)
        ),
    }
}
