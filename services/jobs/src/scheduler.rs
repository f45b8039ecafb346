//! Upkeep: jobs that keep the service in order by themselves. Every process with
//! the role looks what is due; each job is run by one of them at a time.
//!
//! A job may be killed at any moment and run twice: what it does is done in small
//! steps, and what is done stays done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use projections::rebuild::ReplayError;
use crate::store::{self, JobRun, JobLease};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use eventlog::clock;

use crate::metrics::JobMetrics;
use crate::schedule::Job;
use crate::tasks::{self, JobOutcome, JobContext};

/// How often it is looked what is due.
const LOOK: Duration = Duration::from_secs(1);

/// How often whoever runs a job says so: several times in its term.
const RENEW: Duration = Duration::from_secs(3);

/// How long a job that failed waits for its next try.
const RETRY: Duration = Duration::from_mins(1);

/// What is run at a start, unless it was run a moment ago.
const AT_START: [Job; 2] = [Job::Partitions, Job::WarmUp];
const A_MOMENT: Duration = Duration::from_mins(5);

/// Runs jobs as they come due, until `shutdown`.
pub async fn run(tools: Arc<JobContext>, holder: Arc<str>, counts: JobMetrics, shutdown: CancellationToken) {
    for job in AT_START {
        if let Err(error) = store::ask_after(&tools.pool, job.as_str(), A_MOMENT).await {
            tracing::debug!(%error, %job, "a job was not asked for");
        }
    }
    let mut running = BTreeSet::new();
    let mut runs = JoinSet::new();
    while !shutdown.is_cancelled() {
        let due = store::due(&tools.pool).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "what is due was not read");
            Vec::new()
        });
        for job in due.iter().filter_map(|name| Job::named(name)) {
            if running.insert(job) {
                let (tools, holder) = (Arc::clone(&tools), Arc::clone(&holder));
                let (counts, stop) = (counts.clone(), shutdown.child_token());
                runs.spawn(async move { (job, one(&tools, job, &holder, &counts, stop).await) });
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(LOOK) => {}
            Some(ended) = runs.join_next() => match ended {
                Ok((job, ())) => drop(running.remove(&job)),
                Err(error) => {
                    // Which one is not known any more; none runs after this.
                    tracing::error!(%error, "a job broke");
                    runs.shutdown().await;
                    running.clear();
                }
            },
        }
    }
    while runs.join_next().await.is_some() {}
}

/// Runs a job that is due, if nobody else was faster.
async fn one(tools: &JobContext, job: Job, holder: &str, counts: &JobMetrics, stop: CancellationToken) {
    let done = match JobLease::take(&tools.pool, job.as_str(), holder).await {
        Ok(Some(held)) => hold(tools, job, held, &watch::Sender::default(), stop).await,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!(%error, %job, "a job was not taken");
            return;
        }
    };
    counts.ran(job, &done);
    match done {
        Ok(done) if done.items > 0 => tracing::info!(%job, result = done.said, "upkeep"),
        Ok(done) => tracing::debug!(%job, result = done.said, "upkeep"),
        Err(error) if is_stopped(&error) => {}
        Err(error) => tracing::error!(%job, error = format!("{error:#}"), "upkeep failed"),
    }
}

/// Runs a job that is held, renews that, and writes down how it went.
///
/// # Errors
/// What the job failed at, and [`ReplayError::Stopped`] when it was stopped or
/// taken by another process; then it is due again.
pub async fn hold(
    tools: &JobContext,
    job: Job,
    held: JobLease,
    progress: &watch::Sender<u64>,
    stop: CancellationToken,
) -> anyhow::Result<JobOutcome> {
    let began = Instant::now();
    let result = tokio::select! {
        result = tasks::run(tools, job, progress, &stop) => result,
        () = renew(&held, progress, &stop) => Err(ReplayError::Stopped.into()),
    };
    let ended = match &result {
        Err(error) if is_stopped(error) => None,
        Ok(done) => Some((false, done.said.clone(), done.items, done.figures.clone())),
        Err(error) => Some((true, format!("{error:#}"), 0, serde_json::json!({}))),
    };
    let told = match ended {
        Some((failed, result, done, figures)) => {
            let now = clock::now();
            let next = job.schedule().next(now);
            let ended = JobRun {
                took: began.elapsed(),
                failed,
                result,
                done,
                figures,
                due_at: if failed { next.min(now + RETRY) } else { next },
            };
            held.end(&ended).await
        }
        None => held.give_back().await,
    };
    if let Err(error) = told {
        tracing::debug!(%error, %job, "how a job went was not written down");
    }
    result
}

/// Ends when the job is another process's.
async fn renew(held: &JobLease, progress: &watch::Sender<u64>, stop: &CancellationToken) {
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(RENEW).await;
        let done = *progress.borrow();
        match held.renew(done).await {
            Ok(true) => renewed = Instant::now(),
            Err(_) if renewed.elapsed() < store::TERM => {}
            Ok(false) | Err(_) => {
                stop.cancel();
                return;
            }
        }
    }
}

/// Whether a job ended because it was told to.
#[must_use]
pub fn is_stopped(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ReplayError::Stopped))
}

/// The standing of all jobs, in their own order.
///
/// # Errors
/// Those of Postgres.
pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<(Job, store::JobStatus)>> {
    let mut standing = store::list(pool).await?;
    let mut all = Vec::new();
    for job in Job::ALL {
        if let Some(at) = standing.iter().position(|one| one.job == job.as_str()) {
            all.push((job, standing.swap_remove(at)));
        }
    }
    Ok(all)
}
