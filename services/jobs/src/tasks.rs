//! What each job does.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use chrono::{Days, TimeDelta};
use domain::{ReaderId, Timestamp};
use commands::{CommandError, CommandService};
use eventlog::{active_claims, idempotency, migrations};
use futures::StreamExt;
use futures::stream;
use projections::rebuild::ReplayError;
use projections::{daily_stats, history};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::schedule::Job;
use crate::store;
use crate::settings::JobSettings;
use projections::operations::{OperationProgress, ProjectionOps};
use commands::erasure;
use eventlog::clock;

/// What jobs work with.
pub struct JobContext {
    /// For their own statements.
    pub pool: PgPool,
    /// The command side: upkeep ends sessions as apps do.
    pub sessions: CommandService,
    /// Where the cache comes from.
    pub source: ProjectionOps,
    /// How long things are kept.
    pub settings: JobSettings,
}

/// What a job came to.
#[derive(Clone, Debug, Default)]
pub struct JobOutcome {
    /// How much it did.
    pub items: u64,
    /// What, in words.
    pub said: String,
    /// What it counted besides.
    pub figures: Value,
}

impl JobOutcome {
    fn new(items: u64, said: String) -> Self {
        Self {
            items,
            said,
            figures: json!({}),
        }
    }
}

/// Idle sessions that are read together, and ended at the same time: their events
/// share appends.
const IDLE_PAGE: i64 = 500;
const ENDED_TOGETHER: usize = 64;

/// Keys deleted by one statement.
const KEYS: i64 = 10_000;

/// How long it is known which runs of jobs did something.
const RUNS_KEPT: Days = Days::new(90);

/// Does a job once.
///
/// # Errors
/// What it failed at, and [`ReplayError::Stopped`] when it was told to stop.
pub async fn run(
    tools: &JobContext,
    job: Job,
    progress: &watch::Sender<u64>,
    stop: &CancellationToken,
) -> anyhow::Result<JobOutcome> {
    match job {
        Job::IdleSessions => idle_sessions(tools, progress, stop).await,
        Job::WarmUp => warm_up(tools, progress, stop).await,
        Job::Partitions => {
            let created = migrations::create_partitions(&tools.pool).await?;
            Ok(JobOutcome::new(
                created.unsigned_abs().into(),
                format!("{created} partitions created"),
            ))
        }
        Job::Retention => retention(tools, stop).await,
        Job::StatisticsWindow => statistics_window(tools, stop).await,
        Job::IdempotencyKeys => idempotency_keys(tools, progress, stop).await,
        Job::Erasures => erasures(tools, progress, stop).await,
    }
}

/// Ends sessions of which nothing was heard for long, where they were last.
async fn idle_sessions(
    tools: &JobContext,
    progress: &watch::Sender<u64>,
    stop: &CancellationToken,
) -> anyhow::Result<JobOutcome> {
    let since = clock::now() - TimeDelta::from_std(tools.settings.idle_after)?;
    let (ended, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let (duration_ms, without_progress) = (AtomicI64::new(0), AtomicU64::new(0));
    let mut after: Option<ReaderId> = None;
    loop {
        let page = active_claims::idle(&tools.pool, since, after, IDLE_PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.reader_id);
        let end = async |idle| {
            if stop.is_cancelled() {
                return;
            }
            match tools.sessions.end_idle(idle).await {
                Ok(Some(one)) => {
                    progress.send_replace(ended.fetch_add(1, Ordering::Relaxed) + 1);
                    duration_ms.fetch_add(one.duration_ms, Ordering::Relaxed);
                    without_progress.fetch_add((!one.progressed).into(), Ordering::Relaxed);
                }
                // Something was heard of it meanwhile.
                Ok(None) => {}
                Err(error) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    // Not its cause: that may be one session, again and again.
                    if !matches!(error, CommandError::Broken(_)) {
                        tracing::warn!(%error, "an idle session was not ended");
                    }
                }
            }
        };
        stream::iter(page)
            .for_each_concurrent(ENDED_TOGETHER, end)
            .await;
        if stop.is_cancelled() {
            return Err(ReplayError::Stopped.into());
        }
    }
    let (ended, failed) = (ended.into_inner(), failed.into_inner());
    if ended == 0 && failed > 0 {
        anyhow::bail!("{failed} idle sessions could not be ended");
    }
    let left = match failed {
        0 => String::new(),
        failed => format!(", {failed} could not be"),
    };
    Ok(JobOutcome {
        items: ended,
        said: format!("{ended} sessions ended{left}"),
        figures: json!({
            "closed": ended,
            "duration_ms": duration_ms.into_inner(),
            "without_progress": without_progress.into_inner(),
        }),
    })
}

async fn warm_up(
    tools: &JobContext,
    progress: &watch::Sender<u64>,
    stop: &CancellationToken,
) -> anyhow::Result<JobOutcome> {
    let at = watch::Sender::<OperationProgress>::default();
    let mut seen = at.subscribe();
    let follow = async {
        while seen.changed().await.is_ok() {
            progress.send_replace(seen.borrow_and_update().done);
        }
        std::future::pending().await
    };
    let warm = tokio::select! {
        warm = tools.source.warm_up(&at, stop) => warm,
        never = follow => never,
    };
    // Who fills it already may have begun before it was emptied: tried again.
    let warm = warm?;
    let said = format!(
        "{} active sessions, {} entries put",
        warm.sessions, warm.put
    );
    Ok(JobOutcome::new(warm.put, said))
}

async fn retention(tools: &JobContext, stop: &CancellationToken) -> anyhow::Result<JobOutcome> {
    let Some(days) = tools.settings.retention else {
        return Ok(JobOutcome::new(0, "the history is kept for ever".to_owned()));
    };
    let before = clock::now() - days;
    let months = history::retire(&tools.pool, before, stop).await?;
    let sessions: u64 = months.iter().map(|month| month.sessions).sum();
    let names: Vec<&str> = months.iter().map(|month| &*month.partition).collect();
    let said = match &names[..] {
        [] => "no month is old enough".to_owned(),
        names => format!("{sessions} sessions left the history: {}", names.join(", ")),
    };
    Ok(JobOutcome::new(months.len() as u64, said))
}

async fn statistics_window(tools: &JobContext, stop: &CancellationToken) -> anyhow::Result<JobOutcome> {
    let Some(days) = tools.settings.statistics else {
        return Ok(JobOutcome::new(0, "statistics are kept for ever".to_owned()));
    };
    let before = (clock::now() - days).date_naive();
    let rows = daily_stats::roll(&tools.pool, before, stop).await?;
    Ok(JobOutcome::new(
        rows,
        format!("{rows} rows before {before} deleted"),
    ))
}

async fn erasures(
    tools: &JobContext,
    progress: &watch::Sender<u64>,
    stop: &CancellationToken,
) -> anyhow::Result<JobOutcome> {
    let told = |piece: i64| progress.send_modify(|events| *events += piece.unsigned_abs());
    erasure::finish_all(&tools.pool, stop, told).await?;
    if stop.is_cancelled() {
        return Err(ReplayError::Stopped.into());
    }
    let events = *progress.borrow();
    // Not whose: who was erased is not to be read in a log.
    let said = format!("{events} events of erased sessions written over");
    Ok(JobOutcome::new(events, said))
}

async fn idempotency_keys(
    tools: &JobContext,
    progress: &watch::Sender<u64>,
    stop: &CancellationToken,
) -> anyhow::Result<JobOutcome> {
    let now: Timestamp = clock::now();
    let before = now - tools.settings.idempotency_keys;
    let mut expired = 0;
    loop {
        let some = idempotency::expire(&tools.pool, before, KEYS).await?;
        expired += some;
        progress.send_replace(expired);
        if some == 0 {
            break;
        }
        if stop.is_cancelled() {
            return Err(ReplayError::Stopped.into());
        }
    }
    store::forget_runs(&tools.pool, now - RUNS_KEPT).await?;
    Ok(JobOutcome::new(expired, format!("{expired} keys forgotten")))
}
