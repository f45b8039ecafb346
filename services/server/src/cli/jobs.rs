//! `reading-sessions jobs`: what the service does to keep itself in order, and
//! a job of it while somebody watches.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use jobs::store::JobLease;
use tokio::sync::watch;

use super::format::{count, span};
use super::progress_bar::say;
use super::table::{Column, table};
use super::{Output, STOPPED, database, print, print_json, until_stopped};
use api::routes::admin::jobs::{JobStatusBody, JobState};
use eventlog::clock;
use crate::config::{DatabaseArgs, RedisArgs, RuleArgs, JobArgs};
use jobs::{Job, scheduler};
use crate::app;

/// What is done with jobs.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct JobsCommand {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// List the jobs (what the command does by itself).
    List(ListArgs),
    /// Run a job here, whether or not it is due, and wait for its end.
    #[command(
        after_help = "A job is run by one process at a time. It needs no process with the role \
`jobs`.

Exit codes: 0 done, 1 failed (or run elsewhere), 2 usage, 130 stopped by Ctrl-C or SIGTERM.

Examples:
  reading-sessions jobs run idle_sessions
  reading-sessions jobs run retention --retention-days 365"
    )]
    Run(Box<RunArgs>),
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
struct RunArgs {
    /// The job.
    #[arg(value_enum)]
    job: Job,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    upkeep: JobArgs,
}

/// Lists jobs, or runs one.
///
/// # Errors
/// When Postgres does not answer, or a job fails.
pub async fn run(args: &JobsCommand) -> anyhow::Result<ExitCode> {
    match &args.command {
        None => list(&args.list).await,
        Some(Command::List(args)) => list(args).await,
        Some(Command::Run(args)) => one(args).await,
    }
}

async fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let pool = database(&args.database).await?;
    let jobs = scheduler::list(&pool).await?;
    let jobs: Vec<JobStatusBody> = jobs.into_iter().map(JobStatusBody::from).collect();
    match args.output {
        Output::Json => print_json(&jobs)?,
        Output::Text => print(&text(&jobs))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(jobs: &[JobStatusBody]) -> String {
    let columns = [
        Column::Left("JOB"),
        Column::Left("RUN"),
        Column::Left("STATE"),
        Column::Right("LAST"),
        Column::Right("TOOK"),
        Column::Left("RESULT"),
    ];
    let rows: Vec<_> = jobs.iter().map(row).collect();
    table(&columns, &rows)
}

fn row(job: &JobStatusBody) -> [String; 6] {
    let now = clock::now();
    let state = match job.state {
        JobState::Running => format!("running, {} done", count(job.done.unwrap_or(0))),
        JobState::Waiting => match job.due_at.map(|due| (due - now).to_std()) {
            Some(Ok(left)) => format!("due in {}", span(left)),
            Some(Err(_)) | None => "due".to_owned(),
        },
        JobState::Asked => job.state.word().to_owned(),
    };
    let last = job.last.as_ref();
    let ago = last.and_then(|last| (now - last.ended_at).to_std().ok());
    [
        job.name.to_owned(),
        job.schedule.clone(),
        state,
        ago.map_or_else(|| "never".to_owned(), |ago| format!("{} ago", span(ago))),
        last.map_or_else(String::new, |last| format!("{} ms", count(last.took_ms))),
        last.map_or_else(String::new, |last| {
            let failed = if last.failed { "failed: " } else { "" };
            format!("{failed}{}", last.result)
        }),
    ]
}

async fn one(args: &RunArgs) -> anyhow::Result<ExitCode> {
    database(&args.database).await?.close().await;
    let job = args.job;
    let app::Jobs { tools, appender } =
        app::jobs(&args.database, &args.redis, &args.rules, &args.upkeep)?;
    let appender = tokio::spawn(appender);
    let holder = app::holder();
    let Some(held) = JobLease::take(&tools.pool, job.as_str(), &holder).await? else {
        let jobs = scheduler::list(&tools.pool).await?;
        let who = jobs.into_iter().find(|(listed, _)| *listed == job);
        let who = who.and_then(|(_, standing)| standing.holder);
        anyhow::bail!(
            "{job} is being run by {}",
            who.as_deref().unwrap_or("another process")
        );
    };
    let progress = watch::Sender::new(0);
    let done = until_stopped(async |stop| {
        scheduler::hold(&tools, job, held, &progress, stop.clone()).await
    })
    .await;
    // What it has appended is written when the last handle is gone.
    drop(tools);
    let _ = appender.await;
    match done {
        Ok(done) => {
            print(&format!("{job}: {}", done.said))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if scheduler::is_stopped(&error) => {
            let done = count(*progress.borrow());
            say(&format!(
                "{job}: stopped after {done}; what was done stays done"
            ));
            Ok(ExitCode::from(STOPPED))
        }
        Err(error) => Err(error.context(format!("{job} failed"))),
    }
}
