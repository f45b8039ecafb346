//! `reading-sessions jobs`: the background jobs, and running one now.

use anyhow::bail;
use api::routes::admin::jobs::{JobResponse, JobState};
use clap::{Args, Subcommand};
use eventlog::audit::Action as AuditAction;
use eventlog::clock;
use jobs::store::{self, JobLease};
use jobs::{Job, JobError, scheduler};
use tokio::sync::watch;

use super::audit::{CliAction, recorded};
use super::connect_database;
use super::format::{count, span};
use super::list::ListOr;
use super::names::one_of;
use super::output::{OutputArgs, print};
use super::table::{Column, table};
use super::wait::{Interrupted, until_stopped};
use crate::app;
use crate::config::{DatabaseArgs, JobArgs, RedisArgs, RuleArgs};

pub type JobsArgs = ListOr<ListArgs, Action>;

#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Run a job now, whether or not it is due, and wait until it ends.
    #[command(
        after_help = "The job runs in this process, with the settings given here. No process \
with the role `jobs` is needed. A job runs in one process at a time.

Exit codes: 0 done, 1 failed or already running, 2 wrong arguments, 130 stopped by Ctrl-C or
SIGTERM.

Examples:
  reading-sessions jobs run idle_sessions
  reading-sessions jobs run retention --retention-days 365"
    )]
    Run(Box<RunArgs>),
}

#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Name of the job.
    #[arg(value_parser = one_of(Job::ALL, Job::as_str))]
    job: Job,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    jobs: JobArgs,
}

pub async fn run(args: &JobsArgs) -> anyhow::Result<()> {
    let other = async |Action::Run(args): &Action| run_now(args).await;
    args.run(list, other).await
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let pool = connect_database(&args.database).await?;
    let jobs = store::list(&pool).await?;
    let jobs: Vec<JobResponse> = jobs.into_iter().map(JobResponse::from).collect();
    args.output.print(&jobs, || text(&jobs))
}

fn text(jobs: &[JobResponse]) -> String {
    let columns = [
        Column::Left("JOB"),
        Column::Left("SCHEDULE"),
        Column::Left("STATE"),
        Column::Right("LAST RUN"),
        Column::Right("TOOK"),
        Column::Left("RESULT"),
    ];
    let rows: Vec<_> = jobs.iter().map(row).collect();
    table(&columns, &rows)
}

fn row(job: &JobResponse) -> [String; 6] {
    let now = clock::now();
    let state = match job.state {
        JobState::Running => format!("running, {} done", count(job.done.unwrap_or(0))),
        JobState::Waiting => match job.due_at.map(|due| (due - now).to_std()) {
            Some(Ok(left)) => format!("due in {}", span(left)),
            Some(Err(_)) | None => "due".to_owned(),
        },
        JobState::Requested => "requested".to_owned(),
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

async fn run_now(args: &RunArgs) -> anyhow::Result<()> {
    let pool = connect_database(&args.database).await?;
    let action = CliAction::new(AuditAction::RunJob, Some(args.job.as_str()));
    recorded(&pool, action, async || run_job(args).await).await
}

async fn run_job(args: &RunArgs) -> anyhow::Result<()> {
    let job = args.job;
    let app::Jobs { context, appender } =
        app::jobs(&args.database, &args.redis, &args.rules, &args.jobs)?;
    let appender = tokio::spawn(appender);
    let holder = app::lease_holder();
    let Some(lease) = JobLease::take(&context.pool, job, &holder).await? else {
        let status = store::find(&context.pool, job).await?;
        let holder = status.and_then(|status| status.holder);
        bail!(
            "{job} is already running in {}; wait until it ends",
            holder.as_deref().unwrap_or("another process")
        );
    };
    let progress = watch::Sender::new(0);
    let run = until_stopped(async |stop| {
        Ok(scheduler::run_with_lease(&context, job, lease, &progress, stop.clone()).await)
    })
    .await;
    // Without this last handle the appender commits what it accepted, and ends.
    drop(context);
    let _ = appender.await;
    match run? {
        Ok(outcome) => print(&format!("{job}: {}", outcome.summary)),
        Err(JobError::Stopped) => {
            let done = count(*progress.borrow());
            let text = format!("{job}: stopped after {done}; finished work is kept");
            Err(Interrupted(text).into())
        }
        Err(error) => Err(anyhow::Error::new(error).context(format!("{job} failed"))),
    }
}
