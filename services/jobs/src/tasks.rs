//! The task of each job.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use chrono::Days;
use commands::{CommandError, CommandService};
use domain::ReaderId;
use eventlog::active_claims::{self, IdleSession};
use eventlog::{clock, erase, idempotency, migrations};
use futures::StreamExt;
use futures::stream;
use projections::operations::ProjectionOps;
use projections::worker::forward;
use projections::{daily_stats, history};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::erasure;
use crate::error::JobError;
use crate::schedule::Job;
use crate::settings::JobSettings;
use crate::store;

/// Idle sessions that are loaded at a time.
const IDLE_PAGE_SIZE: i64 = 500;

/// Idle sessions that are ended concurrently, so that their events share appends.
const MAX_CONCURRENT_ENDS: usize = 64;

/// Idempotency keys that one statement deletes.
const KEY_BATCH_SIZE: i64 = 10_000;

/// Erased readers that are loaded at a time.
const ERASURE_PAGE_SIZE: i64 = 100;

/// How long a run of `erasures` waits for Redis. The run then fails, and is repeated
/// within a minute.
const FORGET_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the records of runs are kept.
const RUN_MAX_AGE: Days = Days::new(90);

/// The dependencies of the jobs.
pub struct JobContext {
    /// For the job table and for statements of the jobs.
    pub pool: PgPool,
    /// Ends idle sessions.
    pub commands: CommandService,
    /// Warms up the cache.
    pub operations: ProjectionOps,
    pub settings: JobSettings,
}

/// The result of a run that has ended without an error.
#[derive(Clone, Debug)]
pub struct JobOutcome {
    /// Sessions, rows, months or events that the run has processed. A run with 0 is
    /// logged only at the level `debug`.
    pub items: u64,
    /// One line for operators.
    pub summary: String,
    /// A JSON object with numbers, for [`store::sum_figures`].
    pub figures: Value,
}

impl JobOutcome {
    fn new(items: u64, summary: String) -> Self {
        Self {
            items,
            summary,
            figures: json!({}),
        }
    }
}

/// Runs a job once.
pub(crate) async fn run(
    context: &JobContext,
    job: Job,
    progress: &watch::Sender<u64>,
    stop: &CancellationToken,
) -> Result<JobOutcome, JobError> {
    match job {
        Job::IdleSessions => end_idle_sessions(context, progress, stop).await,
        Job::WarmUp => warm_up(context, progress, stop).await,
        Job::Partitions => create_partitions(context).await,
        Job::Retention => remove_old_months(context, stop).await,
        Job::StatisticsWindow => remove_old_days(context, stop).await,
        Job::IdempotencyKeys => delete_old_keys(context, progress, stop).await,
        Job::Erasures => finish_erasures(context, progress, stop).await,
    }
}

/// Ends sessions without a recent event, at their latest observation.
async fn end_idle_sessions(
    context: &JobContext,
    progress: &watch::Sender<u64>,
    stop: &CancellationToken,
) -> Result<JobOutcome, JobError> {
    let since = clock::now() - context.settings.idle_after;
    let counts = IdleCounts::default();
    let mut after: Option<ReaderId> = None;
    loop {
        let page = active_claims::idle(&context.pool, since, after, IDLE_PAGE_SIZE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.reader_id);
        stream::iter(page)
            .for_each_concurrent(MAX_CONCURRENT_ENDS, async |idle| {
                if !stop.is_cancelled() {
                    end_idle_session(context, idle, &counts, progress).await;
                }
            })
            .await;
        if stop.is_cancelled() {
            return Err(JobError::Stopped);
        }
    }
    counts.into_outcome()
}

#[derive(Default)]
struct IdleCounts {
    ended: AtomicU64,
    failed: AtomicU64,
    /// The sum over the ended sessions.
    duration_ms: AtomicI64,
    without_progress: AtomicU64,
}

impl IdleCounts {
    /// Fails if there were idle sessions and none could be ended.
    fn into_outcome(self) -> Result<JobOutcome, JobError> {
        let (ended, failed) = (self.ended.into_inner(), self.failed.into_inner());
        if ended == 0 && failed > 0 {
            return Err(JobError::SessionsNotEnded(failed));
        }
        let failures = match failed {
            0 => String::new(),
            failed => format!(", {failed} could not be ended"),
        };
        Ok(JobOutcome {
            items: ended,
            summary: format!("{ended} sessions ended{failures}"),
            figures: json!({
                "closed": ended,
                "duration_ms": self.duration_ms.into_inner(),
                "without_progress": self.without_progress.into_inner(),
            }),
        })
    }
}

async fn end_idle_session(
    context: &JobContext,
    idle: IdleSession,
    counts: &IdleCounts,
    progress: &watch::Sender<u64>,
) {
    match context.commands.end_idle(idle).await {
        Ok(Some(session)) => {
            progress.send_replace(counts.ended.fetch_add(1, Ordering::Relaxed) + 1);
            counts
                .duration_ms
                .fetch_add(session.duration_ms, Ordering::Relaxed);
            counts
                .without_progress
                .fetch_add((!session.progressed).into(), Ordering::Relaxed);
        }
        // The session received an event after the scan.
        Ok(None) => {}
        Err(error) => {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            // A session that this build cannot read fails in every run, so it is
            // only counted.
            if !matches!(error, CommandError::Broken(_)) {
                let session_id = idle.session_id;
                tracing::warn!(
                    %session_id,
                    %error,
                    "ending idle session {session_id} failed: {error}; the next run tries again"
                );
            }
        }
    }
}

async fn warm_up(
    context: &JobContext,
    progress: &watch::Sender<u64>,
    stop: &CancellationToken,
) -> Result<JobOutcome, JobError> {
    let warmed = watch::Sender::default();
    // If another process is warming up the cache, fail and retry: that warm-up may have
    // begun before Redis was emptied.
    let warm = tokio::select! {
        warm = context.operations.warm_up(&warmed, stop) => warm?,
        never = forward(warmed.subscribe(), progress, |now| now.done) => never,
    };
    let summary = format!(
        "{} active sessions read, {} entries written",
        warm.sessions, warm.stored
    );
    Ok(JobOutcome::new(warm.stored, summary))
}

async fn create_partitions(context: &JobContext) -> Result<JobOutcome, JobError> {
    let created = migrations::create_partitions(&context.pool).await?;
    let summary = format!("{created} partitions created");
    Ok(JobOutcome::new(created.unsigned_abs().into(), summary))
}

async fn remove_old_months(
    context: &JobContext,
    stop: &CancellationToken,
) -> Result<JobOutcome, JobError> {
    let Some(days) = context.settings.retention else {
        let summary = "the history is kept permanently".to_owned();
        return Ok(JobOutcome::new(0, summary));
    };
    let before = clock::now() - days;
    let months = history::drop_months_before(&context.pool, before, stop).await?;
    let sessions: u64 = months.iter().map(|month| month.sessions).sum();
    let partitions: Vec<&str> = months.iter().map(|month| &*month.partition).collect();
    let summary = match &partitions[..] {
        [] => "no month is old enough".to_owned(),
        names => format!(
            "{sessions} sessions removed from the history with {}",
            names.join(", ")
        ),
    };
    Ok(JobOutcome::new(months.len() as u64, summary))
}

async fn remove_old_days(
    context: &JobContext,
    stop: &CancellationToken,
) -> Result<JobOutcome, JobError> {
    let Some(days) = context.settings.statistics else {
        let summary = "statistics are kept permanently".to_owned();
        return Ok(JobOutcome::new(0, summary));
    };
    let before = (clock::now() - days).date_naive();
    let rows = daily_stats::delete_days_before(&context.pool, before, stop).await?;
    let summary = format!("{rows} rows before {before} deleted");
    Ok(JobOutcome::new(rows, summary))
}

async fn finish_erasures(
    context: &JobContext,
    progress: &watch::Sender<u64>,
    stop: &CancellationToken,
) -> Result<JobOutcome, JobError> {
    let pool = &context.pool;
    let on_batch = |events: i64| progress.send_modify(|done| *done += events.unsigned_abs());
    let cache = context.operations.cache()?;
    loop {
        let readers = erase::unfinished(pool, ERASURE_PAGE_SIZE).await?;
        if readers.is_empty() {
            break;
        }
        for reader_id in readers {
            erasure::finish(pool, &cache, reader_id, FORGET_TIMEOUT, stop, on_batch).await?;
        }
        if stop.is_cancelled() {
            return Err(JobError::Stopped);
        }
    }
    let events = *progress.borrow();
    // Without the ids of the readers: the log must not identify erased readers.
    let summary = format!("{events} events of erased sessions overwritten");
    Ok(JobOutcome::new(events, summary))
}

async fn delete_old_keys(
    context: &JobContext,
    progress: &watch::Sender<u64>,
    stop: &CancellationToken,
) -> Result<JobOutcome, JobError> {
    let now = clock::now();
    let before = now - context.settings.idempotency_keys;
    let mut deleted = 0;
    loop {
        let batch = idempotency::expire(&context.pool, before, KEY_BATCH_SIZE).await?;
        deleted += batch;
        progress.send_replace(deleted);
        if batch == 0 {
            break;
        }
        if stop.is_cancelled() {
            return Err(JobError::Stopped);
        }
    }
    store::delete_runs_before(&context.pool, now - RUN_MAX_AGE).await?;
    Ok(JobOutcome::new(deleted, format!("{deleted} keys deleted")))
}
