//! `reading-sessions projections`: the status of projections, and pausing them.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use api::routes::admin::projections::{ProjectionResponse, ProjectionState};
use clap::{Args, Subcommand};
use eventlog::audit::Action as AuditAction;
use eventlog::clock;
use projections::operations::ProjectionName;
use projections::status;
use sqlx::PgPool;

use super::audit::{CliAction, recorded};
use super::connect_database;
use super::format::{count, span};
use super::list::ListOr;
use super::names::one_of;
use super::output::{OutputArgs, print};
use super::table::{Column, table};
use super::wait::poll;
use crate::config::DatabaseArgs;

/// How long `pause` waits for the worker to stop: longer than a batch.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(40);

pub type ProjectionsArgs = ListOr<ListArgs, Action>;

#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Pause a projection, and wait until its worker has stopped.
    #[command(
        after_help = "The worker stops after its current batch. Queries return older data \
until the projection is resumed.

Exit codes: 0 paused, and its worker has stopped, 1 failed, 2 wrong arguments.

Example:
  reading-sessions projections pause history"
    )]
    Pause(NameArgs),
    /// Resume a paused projection.
    #[command(after_help = "Exit codes: 0 resumed, 1 failed, 2 wrong arguments.

Example:
  reading-sessions projections resume history")]
    Resume(NameArgs),
}

#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Args, Clone, Debug)]
pub struct NameArgs {
    /// Name of the projection.
    #[arg(value_parser = one_of(ProjectionName::ALL, ProjectionName::as_str))]
    name: ProjectionName,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: &ProjectionsArgs) -> anyhow::Result<()> {
    let other = async |action: &Action| match action {
        Action::Pause(args) => pause(args).await,
        Action::Resume(args) => resume(args).await,
    };
    args.run(list, other).await
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let pool = connect_database(&args.database).await?;
    let all: Vec<ProjectionResponse> = status::list(&pool)
        .await?
        .into_iter()
        .map(ProjectionResponse::from)
        .collect();
    args.output.print(&all, || text(&all))
}

fn text(all: &[ProjectionResponse]) -> String {
    let columns = [
        Column::Left("PROJECTION"),
        Column::Left("STATE"),
        Column::Right("POSITION"),
        Column::Right("BEHIND"),
        Column::Right("SECONDS"),
        Column::Right("EVENTS/S"),
        Column::Right("EVENTS/WRITE"),
        Column::Right("DEAD"),
        Column::Left("WORKER"),
    ];
    let rows: Vec<_> = all.iter().map(row).collect();
    let mut text = table(&columns, &rows);
    for projection in all {
        let Some(error) = &projection.last_error else {
            continue;
        };
        let ago = error.at.and_then(|at| (clock::now() - at).to_std().ok());
        let is_failing = projection.state == ProjectionState::Failing;
        let when = match ago.map(span) {
            Some(ago) if is_failing => format!("has been failing for {ago}"),
            Some(ago) => format!("failed {ago} ago and has recovered"),
            None => "failed".to_owned(),
        };
        let _ = write!(text, "\n\n{} {when}: {}", projection.name, error.message);
    }
    text
}

fn row(projection: &ProjectionResponse) -> [String; 9] {
    let replay = match &projection.replay {
        Some(replay) if replay.running => format!(", replayed {} %", replay.percent),
        Some(replay) => format!(", replay stopped at {} %", replay.percent),
        None => String::new(),
    };
    let events_per_write = projection.events_per_write;
    [
        projection.name.clone(),
        format!("{}{replay}", projection.state.as_str()),
        count(projection.position),
        count(projection.lag_events),
        format!("{:.1}", projection.lag_seconds),
        format!("{:.0}", projection.events_per_second),
        events_per_write.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}")),
        count(projection.dead_letters),
        projection.worker.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

async fn pause(args: &NameArgs) -> anyhow::Result<()> {
    let name = args.name;
    let pool = connect_database(&args.database).await?;
    let before = worker(&pool, name).await?;
    set_paused(&pool, name, true).await?;
    let Some(worker_before) = before else {
        return print(&format!("Paused {name}. No worker was running."));
    };
    let stopped = poll(PAUSE_TIMEOUT, async || {
        Ok(worker(&pool, name).await?.is_none().then_some(()))
    });
    match stopped.await? {
        Some(()) => print(&format!(
            "Paused {name}. Worker {worker_before} has stopped."
        )),
        None => bail!(
            "{name} is paused, but worker {worker_before} is still running after {}; \
             it stops after its current batch",
            span(PAUSE_TIMEOUT)
        ),
    }
}

async fn resume(args: &NameArgs) -> anyhow::Result<()> {
    let name = args.name;
    let pool = connect_database(&args.database).await?;
    set_paused(&pool, name, false).await?;
    print(&format!(
        "Resumed {name}. A process with the role `projections` starts its worker within a second."
    ))
}

async fn set_paused(pool: &PgPool, name: ProjectionName, paused: bool) -> anyhow::Result<()> {
    let action = if paused {
        AuditAction::Pause
    } else {
        AuditAction::Resume
    };
    let action = CliAction::new(action, Some(name.as_str()));
    recorded(pool, action, async || {
        let is_known = status::pause(pool, name.as_str(), paused).await?;
        ensure!(is_known, "the database has no projection {name}");
        Ok(())
    })
    .await
}

/// The holder of the projection's lease.
async fn worker(pool: &PgPool, name: ProjectionName) -> anyhow::Result<Option<String>> {
    let status = status::find(pool, name.as_str()).await?;
    let status = status.with_context(|| format!("the database has no projection {name}"))?;
    Ok(status.holder)
}
