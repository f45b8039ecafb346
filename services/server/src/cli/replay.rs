//! `reading-sessions replay`: rebuilds a projection from the log.

use std::time::{Duration, Instant};

use clap::Args;
use eventlog::audit::Action;
use projections::active_sessions::RebuildProgress;
use projections::operations::{ProjectionName, ReplayResult};
use projections::rebuild::Replayed;
use projections::zones::Zones;
use serde_json::json;
use tokio::sync::watch;

use super::audit::{CliAction, recorded};
use super::connect_database;
use super::format::{count, counted, rate};
use super::names::one_of;
use super::output::print;
use super::progress_bar;
use super::wait::{Interrupted, is_stopped, until_stopped};
use crate::config::{DatabaseArgs, RedisArgs};
use crate::connect;

#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// Name of the projection.
    #[arg(value_parser = one_of(ProjectionName::ALL, ProjectionName::as_str))]
    name: ProjectionName,
    /// Discard the progress of an interrupted replay and start again.
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

pub async fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let pool = connect_database(&args.database).await?;
    let action = CliAction::new(Action::Replay, Some(args.name.as_str()))
        .with_details(json!({ "restart": args.restart }));
    recorded(&pool, action, async || replay(args).await).await
}

async fn replay(args: &ReplayArgs) -> anyhow::Result<()> {
    let name = args.name;
    let operations = connect::projection_ops(&args.database, &args.redis, Zones::load());
    let unit = if name == ProjectionName::ActiveSessions {
        "sessions"
    } else {
        "events"
    };
    let progress = watch::Sender::default();
    let started = Instant::now();
    let replayed = until_stopped(async |stop| {
        let replay = operations.replay(name, args.restart, &progress, stop);
        Ok(progress_bar::show(name.as_str(), unit, progress.subscribe(), replay).await?)
    })
    .await;
    match replayed {
        Ok(result) => print(&summary(name, result, started.elapsed())),
        Err(error) if is_stopped(&error) => {
            Err(Interrupted(stopped(name, progress.borrow().reached)).into())
        }
        Err(error) => Err(error.context(format!("replay of {name} failed"))),
    }
}

fn stopped(name: ProjectionName, at: u64) -> String {
    if name == ProjectionName::ActiveSessions {
        format!(
            "{name}: stopped; the entries written so far are correct, and the next replay starts \
             from the beginning"
        )
    } else {
        let at = count(at);
        format!("{name}: stopped at global position {at}; the next replay resumes there")
    }
}

fn summary(name: ProjectionName, result: ReplayResult, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match result {
        ReplayResult::Tables(Replayed {
            events,
            from,
            global_position,
            locked_for,
        }) => {
            let from = match from {
                0 => String::new(),
                from => format!(" after {}", count(from)),
            };
            format!(
                "{name}: replayed {} events{from} in {seconds:.1} s, {} events/s; \
                 now at global position {}. Queries waited at most {} ms.",
                count(events),
                count(rate(events, took)),
                count(global_position),
                locked_for.as_millis()
            )
        }
        ReplayResult::Cache(RebuildProgress {
            sessions,
            stored,
            removed,
            ..
        }) => format!(
            "{name}: read {} in {seconds:.1} s, {} sessions/s; wrote {}, removed {}. \
             Queries did not wait.",
            counted(sessions, "active session", "active sessions"),
            count(rate(sessions, took)),
            counted(stored, "entry", "entries"),
            count(removed)
        ),
    }
}
