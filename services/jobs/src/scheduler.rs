//! Polls the job table and runs the jobs that are due, in each process with the
//! role `jobs`.
//!
//! A run can be killed at any moment. It can also overlap with another run of the
//! job, because a process that stalls loses its lease and continues later. Therefore
//! a job commits small steps, and repeating a step has no further effect.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::Timestamp;
use eventlog::error::error_chain;
use eventlog::health::HealthFlag;
use eventlog::{LogError, clock, lease};
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::JobError;
use crate::metrics::JobMetrics;
use crate::schedule::Job;
use crate::silence::silence;
use crate::store::{self, JobLease, JobRun};
use crate::tasks::{self, JobContext, JobOutcome};

/// How often the job table is polled.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often a lease is renewed: several times within [`store::LEASE_TERM`].
const RENEW_INTERVAL: Duration = Duration::from_secs(3);

/// Longest time until a job that failed is due again.
const RETRY_INTERVAL: Duration = Duration::from_mins(1);

/// Jobs that a start of the service requests.
const STARTUP_JOBS: [Job; 2] = [Job::Partitions, Job::WarmUp];

/// A start does not request a job that has ended this recently, so that several
/// starts in a row run it once.
const STARTUP_COOLDOWN: Duration = Duration::from_mins(5);

/// Runs jobs as they become due, until `shutdown`. `health` receives whether jobs run in
/// any process.
#[must_use]
pub fn run(
    context: Arc<JobContext>,
    holder: Arc<str>,
    metrics: JobMetrics,
    health: HealthFlag,
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()> {
    poll(context, holder, metrics, health, shutdown).boxed()
}

async fn poll(
    context: Arc<JobContext>,
    holder: Arc<str>,
    metrics: JobMetrics,
    health: HealthFlag,
    shutdown: CancellationToken,
) {
    for job in STARTUP_JOBS {
        let request = store::request_unless_recent(&context.pool, job, STARTUP_COOLDOWN);
        if let Err(error) = request.await {
            tracing::debug!(
                %job,
                %error,
                "requesting job {job} failed: {error}; it runs on its schedule"
            );
        }
    }
    let mut running = BTreeSet::new();
    let mut runs = JoinSet::new();
    // If no read succeeds, an hour begins with the start of this process.
    let mut last_run = Some(clock::now());
    while !shutdown.is_cancelled() {
        let due = store::due(&context.pool).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "reading due jobs failed: {error}; retrying in a second");
            Vec::new()
        });
        check_silence(&context.pool, &mut last_run, &health).await;
        // A name that does not parse belongs to a job of another build.
        for job in due.iter().filter_map(|name| name.parse::<Job>().ok()) {
            if running.insert(job) {
                let (context, holder) = (Arc::clone(&context), Arc::clone(&holder));
                let (metrics, stop) = (metrics.clone(), shutdown.child_token());
                runs.spawn(async move {
                    run_due(&context, job, &holder, &metrics, stop).await;
                    job
                });
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            Some(ended) = runs.join_next() => match ended {
                Ok(job) => drop(running.remove(&job)),
                Err(error) => {
                    // The error does not identify the job, so all are aborted.
                    tracing::error!(
                        %error,
                        "a job panicked: {error}; all jobs of this process are aborted and run \
                         again when their leases expire"
                    );
                    runs.shutdown().await;
                    running.clear();
                }
            },
        }
    }
    while runs.join_next().await.is_some() {}
}

/// Reports whether jobs run in any process.
async fn check_silence(pool: &PgPool, last_run: &mut Option<Timestamp>, health: &HealthFlag) {
    let reason = match store::last_run(pool).await {
        Ok(last) => {
            *last_run = last;
            silence(last, clock::now())
        }
        // A privilege or a table is missing, so no job can run.
        Err(error) => match LogError::from(error) {
            LogError::Broken(error) => Some(format!("reading the job table failed: {error}")),
            _ => silence(*last_run, clock::now()),
        },
    };
    match reason {
        Some(reason) => health.fail(reason),
        None => health.clear(),
    }
}

/// Runs a job that is due, unless another process has taken its lease.
async fn run_due(
    context: &JobContext,
    job: Job,
    holder: &str,
    metrics: &JobMetrics,
    stop: CancellationToken,
) {
    let lease = match JobLease::take(&context.pool, job, holder).await {
        Ok(Some(lease)) => lease,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!(
                %job,
                %error,
                "taking the lease of job {job} failed: {error}; retrying in a second"
            );
            return;
        }
    };
    let run = run_with_lease(context, job, lease, &watch::Sender::default(), stop).await;
    metrics.record(job, &run);
    match run {
        Ok(JobOutcome {
            items: 0, summary, ..
        }) => {
            tracing::debug!(%job, result = summary, "job {job} finished: {summary}");
        }
        Ok(JobOutcome { summary, .. }) => {
            tracing::info!(%job, result = summary, "job {job} finished: {summary}");
        }
        Err(JobError::Stopped) => {}
        Err(error) => {
            let error = error_chain(&error);
            tracing::error!(
                %job,
                error,
                "job {job} failed: {error}; next try within {} s",
                RETRY_INTERVAL.as_secs()
            );
        }
    }
}

/// Runs a job while renewing its lease, records the run and releases the lease.
/// `progress` receives the number of processed items.
///
/// # Errors
/// The error of the run. Also [`JobError::Stopped`] when another process may have
/// taken the lease.
#[must_use]
pub fn run_with_lease<'a>(
    context: &'a JobContext,
    job: Job,
    lease: JobLease,
    progress: &'a watch::Sender<u64>,
    stop: CancellationToken,
) -> BoxFuture<'a, Result<JobOutcome, JobError>> {
    async move {
        let began = Instant::now();
        let run = tokio::select! {
            run = tasks::run(context, job, progress, &stop) => run,
            () = renew(&lease, progress, &stop) => Err(JobError::Stopped),
        };
        let recorded = match record(job, began.elapsed(), &run) {
            Some(record) => lease.finish(&record).await,
            None => lease.release().await,
        };
        if let Err(error) = recorded {
            tracing::debug!(
                %job,
                %error,
                "recording a run of job {job} failed: {error}; the job runs again when its lease \
                 expires"
            );
        }
        run
    }
    .boxed()
}

/// The record of a run; `None` if it was stopped.
fn record(job: Job, duration: Duration, run: &Result<JobOutcome, JobError>) -> Option<JobRun> {
    let now = clock::now();
    let next = job.schedule().next(now);
    match run {
        Ok(outcome) => Some(JobRun {
            duration,
            failed: false,
            result: outcome.summary.clone(),
            done: outcome.items,
            figures: outcome.figures.clone(),
            due_at: next,
        }),
        Err(JobError::Stopped) => None,
        Err(error) => Some(JobRun {
            duration,
            failed: true,
            result: error_chain(error),
            done: 0,
            figures: serde_json::json!({}),
            due_at: next.min(now + RETRY_INTERVAL),
        }),
    }
}

/// Renews the lease of a running job. When another process may run the job, it
/// cancels `stop` and returns.
async fn renew(lease: &JobLease, progress: &watch::Sender<u64>, stop: &CancellationToken) {
    let renew = || {
        let done = *progress.borrow();
        lease.renew(done)
    };
    // A job that is being stopped needs its lease until it returns.
    let stopped = std::future::pending();
    let _ = lease::keep_renewed(RENEW_INTERVAL, store::LEASE_TERM, stopped, renew).await;
    stop.cancel();
}
