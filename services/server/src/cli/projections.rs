//! `reading-sessions projections`: how far they are and who works on them, and
//! holding them.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use projections::status;
use sqlx::PgPool;

use super::format::{count, span};
use super::table::{Column, table};
use super::{Output, database, print, print_json};
use api::routes::admin::projections::{Projection, Standing};
use eventlog::clock;
use crate::config::DatabaseArgs;
use projections::operations::ProjectionName;

/// How long a worker may take to stop: a step, and some.
const STOP: Duration = Duration::from_secs(40);

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// What is done with projections.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ProjectionsArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// List them (what the command does by itself).
    List(ListArgs),
    /// Have a projection's worker stop after the step it is at, and wait for it.
    #[command(
        after_help = "Exit codes: 0 nobody works on it, 1 not so (or not known), 2 usage.

Example:
  reading-sessions projections pause history"
    )]
    Pause(HoldArgs),
    /// Let a projection go on.
    #[command(
        after_help = "Exit codes: 0 it may go on, 1 not so (or not known), 2 usage.

Example:
  reading-sessions projections resume history"
    )]
    Resume(HoldArgs),
}

#[derive(Args, Clone, Debug)]
struct ListArgs {
    /// How to print.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Args, Clone, Debug)]
struct HoldArgs {
    /// The projection.
    #[arg(value_enum)]
    name: ProjectionName,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Lists, pauses or resumes.
///
/// # Errors
/// When Postgres does not answer, or a worker does not stop.
pub async fn run(args: &ProjectionsArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        None => list(&args.list).await,
        Some(Command::List(args)) => list(args).await,
        Some(Command::Pause(args)) => pause(args).await,
        Some(Command::Resume(args)) => resume(args).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let pool = database(&args.database).await?;
    let all: Vec<Projection> = status::list(&pool)
        .await?
        .into_iter()
        .map(Projection::from)
        .collect();
    match args.output {
        Output::Json => print_json(&all),
        Output::Text => print(&text(&all)),
    }
}

fn text(all: &[Projection]) -> String {
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
        if let Some(error) = &projection.last_error {
            let ago = error.at.and_then(|at| (clock::now() - at).to_std().ok());
            let failing = projection.state == Standing::Failing;
            let when = match ago.map(span) {
                Some(ago) if failing => format!("has been failing for {ago}"),
                Some(ago) => format!("began to fail {ago} ago, and does no more"),
                None => "failed".to_owned(),
            };
            let _ = write!(text, "\n\n{} {when}: {}", projection.name, error.message);
        }
    }
    text
}

fn row(projection: &Projection) -> [String; 9] {
    let replay = match &projection.replay {
        Some(replay) if replay.running => format!(", replayed {} %", replay.percent),
        Some(replay) => format!(", replay stopped at {} %", replay.percent),
        None => String::new(),
    };
    [
        projection.name.clone(),
        format!("{}{replay}", projection.state.word()),
        count(projection.position),
        count(projection.lag_events),
        format!("{:.1}", projection.lag_seconds),
        format!("{:.0}", projection.events_per_second),
        projection
            .events_per_write
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}")),
        count(projection.dead_letters),
        projection.worker.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

async fn pause(args: &HoldArgs) -> anyhow::Result<()> {
    let name = args.name;
    let pool = database(&args.database).await?;
    let worker = worker(&pool, name).await?;
    hold(&pool, name, true).await?;
    let Some(worker) = worker else {
        return print(&format!("{name} is paused; nobody worked on it"));
    };
    let since = Instant::now();
    while self::worker(&pool, name).await?.is_some() {
        anyhow::ensure!(
            since.elapsed() < STOP,
            "{name} is paused, but {worker} has not stopped within {}; it is asked to",
            span(STOP)
        );
        tokio::time::sleep(LOOK).await;
    }
    print(&format!("{name} is paused; {worker} has stopped"))
}

async fn resume(args: &HoldArgs) -> anyhow::Result<()> {
    let pool = database(&args.database).await?;
    hold(&pool, args.name, false).await?;
    print(&format!(
        "{} may go on; a worker takes it within a second, if there is one",
        args.name
    ))
}

async fn hold(pool: &PgPool, name: ProjectionName, paused: bool) -> anyhow::Result<()> {
    let known = status::pause(pool, name.as_str(), paused).await?;
    anyhow::ensure!(known, "the database does not know {name}");
    Ok(())
}

/// Who works on it.
async fn worker(pool: &PgPool, name: ProjectionName) -> anyhow::Result<Option<String>> {
    let all = status::list(pool).await?;
    let status = all.into_iter().find(|s| s.projection == name.as_str());
    let status = status.with_context(|| format!("the database does not know {name}"))?;
    Ok(status.holder)
}
