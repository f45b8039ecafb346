//! Who works on a projection: one worker at a time, by a lease that it renews
//! while it works. Another takes over when it is not renewed, or is given up.
//!
//! The lease is for peace, and for operators to see who works and to pause it.
//! That nothing is applied twice does not rest on it: a worker that was frozen
//! and wakes up with a lease that is over finds its checkpoint moved.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventlog::deadline::with_deadline;
use eventlog::lease::{self, LeaseEnd};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Projection;
use crate::worker::{WorkerProgress, Until, Worker};

/// How often a lease is renewed.
const RENEW: Duration = Duration::from_secs(1);

/// How long it lasts without. Two renewals may fail; with [`ASK`], another
/// worker takes over within four seconds.
const TERM: Duration = Duration::from_secs(3);

/// How often a worker without it asks for it.
const ASK: Duration = Duration::from_millis(500);

/// How long Postgres may take over it.
const DEADLINE: Duration = Duration::from_secs(1);

/// Renewals over which the rate of events is taken.
const RATED: usize = 10;

/// The lease of a projection.
pub struct Lease {
    pool: PgPool,
    projection: &'static str,
    holder: Arc<str>,
}

/// Works on a projection whenever its lease is to be had, until `shutdown`.
pub async fn work<P: Projection>(
    mut worker: Worker<P>,
    pool: PgPool,
    holder: Arc<str>,
    shutdown: CancellationToken,
) {
    let lease = Lease {
        pool,
        projection: P::NAME,
        holder,
    };
    while !shutdown.is_cancelled() {
        match lease.take().await {
            Ok(true) => {}
            Ok(false) => {
                let _ = tokio::time::timeout(ASK, shutdown.cancelled()).await;
                continue;
            }
            Err(error) => {
                tracing::debug!(%error, projection = P::NAME, "the lease was not asked for");
                let _ = tokio::time::timeout(ASK, shutdown.cancelled()).await;
                continue;
            }
        }
        tracing::info!(projection = P::NAME, "works");
        let progress = worker.progress();
        let term = shutdown.child_token();
        // Until it is stopped, nothing ends its run.
        let _ = tokio::join!(
            worker.run(Until::Stopped, &term),
            lease.keep(progress, &term)
        );
        lease.give_up().await;
    }
}

impl Lease {
    /// Takes it, if nobody has it and an operator has not paused the projection.
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
        Ok(with_deadline(DEADLINE, taken).await?.rows_affected() > 0)
    }

    /// Renews the lease and reports progress until `term` is cancelled. Cancels
    /// `term` itself when the lease is lost or the projection is paused.
    async fn keep(&self, progress: watch::Receiver<WorkerProgress>, term: &CancellationToken) {
        let first = progress.borrow().clone();
        let mut rated = VecDeque::from([(Instant::now(), first.events)]);
        let report = async || {
            let mut now = progress.borrow().clone();
            let at = Instant::now();
            rated.push_back((at, now.events));
            if rated.len() > RATED {
                rated.pop_front();
            }
            let (since, before) = rated[0];
            #[expect(clippy::cast_precision_loss, reason = "a rate is no exact figure")]
            let rate = (now.events - before) as f64 / (at - since).as_secs_f64();
            now.events -= first.events;
            now.rows -= first.rows;
            self.renew(&now, rate).await
        };
        let projection = self.projection;
        match lease::keep_renewed(RENEW, TERM, term.cancelled(), report).await {
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
        let renewed = sqlx::query!(
            "update projections
            set held_until = clock_timestamp() + $3::float8 * interval '1 s',
                reported_at = clock_timestamp(), events = $5,
                -- It does not know before its first look.
                global_position = coalesce(nullif($4::bigint, 0), global_position),
                row_writes = $6, events_per_second = $7, failing = $8::text is not null,
                last_error = coalesce($8, last_error),
                last_error_at = case
                    when $8 is null or (failing and last_error = $8) then last_error_at
                    else clock_timestamp()
                end
            where projection = $1 and holder = $2 and not paused",
            self.projection,
            &*self.holder,
            TERM.as_secs_f64(),
            progress.position,
            count(progress.events),
            count(progress.rows),
            rate,
            progress.error,
        )
        .execute(&self.pool);
        Ok(with_deadline(DEADLINE, renewed).await?.rows_affected() > 0)
    }

    /// Gives it up, so that another need not wait until it is over.
    async fn give_up(&self) {
        let given = sqlx::query!(
            "update projections
            set holder = null, events_per_second = 0
            where projection = $1 and holder = $2",
            self.projection,
            &*self.holder,
        )
        .execute(&self.pool);
        if let Err(error) = with_deadline(DEADLINE, given).await {
            tracing::debug!(%error, projection = self.projection, "the lease was not given up");
        }
    }
}
