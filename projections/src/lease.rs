//! Runs a projection's worker while this process holds the lease of the projection.
//!
//! One worker per projection runs at a time. It renews its lease while it runs. Another
//! process takes over when the lease is released or expires.
//!
//! The lease only avoids contention, and lets operators see and pause the worker. It is
//! not needed for correctness: a worker that resumes after losing its lease finds that
//! the checkpoint has moved, and writes nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventlog::deadline::with_deadline;
use eventlog::health::HealthFlag;
use eventlog::lease::{self, LeaseEnd};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Projection;
use crate::worker::{Until, Worker, WorkerProgress};

const RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// How long a lease is valid after a renewal. Two renewals may fail. With
/// [`TAKE_INTERVAL`], another worker takes over within four seconds.
const TERM: Duration = Duration::from_secs(3);

/// How often a worker without the lease tries to take it.
const TAKE_INTERVAL: Duration = Duration::from_millis(500);

/// The deadline for a statement on a lease: a third of [`TERM`].
const LEASE_DEADLINE: Duration = Duration::from_secs(1);

/// The number of renewals over which the rate of events is averaged.
const RATE_WINDOW: usize = 10;

struct Lease {
    pool: PgPool,
    projection: &'static str,
    holder: Arc<str>,
    /// Receives whether the worker must write every row at once.
    window_closed: watch::Sender<bool>,
}

/// Takes the lease whenever it is free, and runs the worker while it holds the lease.
/// Returns after `shutdown`. `health` receives whether the worker fails; a worker without
/// the lease does not.
pub(crate) async fn run<P: Projection>(
    mut worker: Worker<P>,
    pool: PgPool,
    holder: Arc<str>,
    window_closed: watch::Sender<bool>,
    health: HealthFlag,
    shutdown: CancellationToken,
) {
    let lease = Lease {
        pool,
        projection: P::NAME,
        holder,
        window_closed,
    };
    while !shutdown.is_cancelled() {
        match lease.take().await {
            Ok(true) => {}
            Ok(false) => {
                health.clear();
                let _ = tokio::time::timeout(TAKE_INTERVAL, shutdown.cancelled()).await;
                continue;
            }
            Err(error) => {
                tracing::debug!(
                    %error,
                    projection = P::NAME,
                    "taking the lease failed: {error}; the worker tries again"
                );
                health.fail(format!(
                    "the worker of {} cannot take its lease: {error}",
                    P::NAME
                ));
                let _ = tokio::time::timeout(TAKE_INTERVAL, shutdown.cancelled()).await;
                continue;
            }
        }
        tracing::info!(projection = P::NAME, "projection worker started");
        let progress = worker.progress();
        let term = shutdown.child_token();
        // With `Until::Stopped`, the run ends only when `term` is cancelled.
        let _ = tokio::join!(
            worker.run(Until::Stopped, &term),
            lease.keep(progress.clone(), &term),
            report(P::NAME, progress, &health, &term)
        );
        health.clear();
        lease.release().await;
    }
}

/// Reports each failure of a worker, and its end, until `term` is cancelled.
async fn report(
    projection: &str,
    mut progress: watch::Receiver<WorkerProgress>,
    health: &HealthFlag,
    term: &CancellationToken,
) {
    let follow = async {
        loop {
            let error = progress.borrow_and_update().error.clone();
            match error {
                Some(error) => health.fail(format!("{projection} cannot apply events: {error}")),
                None => health.clear(),
            }
            if progress.changed().await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = term.cancelled() => {}
        () = follow => {}
    }
}

impl Lease {
    /// Takes the lease if it is free and no operator has paused the projection.
    async fn take(&self) -> sqlx::Result<bool> {
        let taken = sqlx::query!(
            "update projections
            set holder = $2, held_until = clock_timestamp() + $3::float8 * interval '1 s',
                reported_at = clock_timestamp(), events = 0, row_writes = 0,
                events_per_second = 0, failing = false
            where projection = $1 and not paused
                and (holder is null or holder = $2 or held_until < clock_timestamp())",
            self.projection,
            &*self.holder,
            TERM.as_secs_f64(),
        )
        .execute(&self.pool);
        Ok(with_deadline(LEASE_DEADLINE, taken).await?.rows_affected() > 0)
    }

    /// Renews the lease and reports progress until `term` is cancelled. Cancels
    /// `term` itself when the lease is lost or the projection is paused.
    async fn keep(&self, progress: watch::Receiver<WorkerProgress>, term: &CancellationToken) {
        let first = progress.borrow().clone();
        let mut samples = VecDeque::from([(Instant::now(), first.events)]);
        let report = || {
            let mut now = progress.borrow().clone();
            let at = Instant::now();
            samples.push_back((at, now.events));
            if samples.len() > RATE_WINDOW {
                samples.pop_front();
            }
            let (since, before) = samples[0];
            #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
            let rate = (now.events - before) as f64 / (at - since).as_secs_f64();
            now.events -= first.events;
            now.rows -= first.rows;
            async move { self.renew(&now, rate).await }
        };
        let projection = self.projection;
        match lease::keep_renewed(RENEW_INTERVAL, TERM, term.cancelled(), report).await {
            None => return,
            Some(LeaseEnd::Lost) => tracing::info!(
                projection,
                "projection worker stopped: lease lost or projection paused"
            ),
            Some(LeaseEnd::Expired(error)) => tracing::warn!(
                %error,
                projection,
                "projection worker stopped: lease not renewed: {error}; another worker may take over"
            ),
        }
        term.cancel();
    }

    async fn renew(&self, progress: &WorkerProgress, rate: f64) -> sqlx::Result<bool> {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let renewed = sqlx::query_scalar!(
            r#"update projections
            set held_until = clock_timestamp() + $3::float8 * interval '1 s',
                reported_at = clock_timestamp(), events = $5,
                -- The worker reports 0 before it has read its checkpoint.
                global_position = coalesce(nullif($4::bigint, 0), global_position),
                row_writes = $6, events_per_second = $7, failing = $8::text is not null,
                last_error = coalesce($8, last_error),
                last_error_at = case
                    when $8 is null or (failing and last_error = $8) then last_error_at
                    else clock_timestamp()
                end
            where projection = $1 and holder = $2 and not paused
            returning coalesce(window_closed_until > clock_timestamp(), false) as "closed!""#,
            self.projection,
            &*self.holder,
            TERM.as_secs_f64(),
            progress.checkpoint,
            count(progress.events),
            count(progress.rows),
            rate,
            progress.error,
        )
        .fetch_optional(&self.pool);
        let is_closed = with_deadline(LEASE_DEADLINE, renewed).await?;
        if let Some(is_closed) = is_closed {
            self.window_closed
                .send_if_modified(|before| std::mem::replace(before, is_closed) != is_closed);
        }
        Ok(is_closed.is_some())
    }

    /// Releases the lease, so that another worker can take it before it expires.
    async fn release(&self) {
        let released = sqlx::query!(
            "update projections
            set holder = null, events_per_second = 0
            where projection = $1 and holder = $2",
            self.projection,
            &*self.holder,
        )
        .execute(&self.pool);
        if let Err(error) = with_deadline(LEASE_DEADLINE, released).await {
            tracing::debug!(
                %error,
                projection = self.projection,
                "releasing the lease failed: {error}; it expires by itself"
            );
        }
    }
}
