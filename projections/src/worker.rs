//! The worker runs a projection: it reads events, folds them into rows in memory, and
//! writes rows together with the checkpoint.
//!
//! The live worker and a replay run the same code. They differ in when they stop and in
//! which rows a commit writes. A replay writes all of them. A live worker keeps the rows of
//! position updates in memory for a while (decision 0026).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use eventlog::trace::Traces;
use eventlog::{LogEntry, LogError};
use messaging::LogSubscription;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::dead_letters::{DeadLetterIndex, error_text};
use crate::{Checkpoint, CommitError, Projection};

mod progress;

mod pending;
mod traced;
mod window;

mod batch_interval;
mod controls;
mod decision;

mod commit;
mod fold;
mod retry;

mod error;

use batch_interval::BatchInterval;
use controls::Controls;
pub use controls::{ControlHandle, FlushRequest};
use decision::{Step, WorkerState};
use error::RunError;
pub use error::TooManyDeadLetters;
use pending::Pending;
pub use progress::{Until, WorkerProgress, forward};
use window::Take;

/// The most events that are read at once. Bounds the memory of events that are not
/// folded yet.
const READ_SIZE: usize = 4_096;

/// The most events in a commit of a live worker that writes all rows. Bounds how many events
/// the search for one that Postgres refuses folds again.
const MAX_BATCH_EVENTS: usize = 16_384;

/// The most events in a batch of a replay. No query waits for a replay, so its
/// batches are larger than [`MAX_BATCH_EVENTS`].
const MAX_REPLAY_BATCH_EVENTS: usize = 1_048_576;

/// How long the log must be silent until all rows are written before their window ends: the
/// worker has nothing else to do. Longer than the second in which a reader turns a page, so
/// that the updates of a single reader coalesce too.
const SILENCE: Duration = Duration::from_millis(1_100);

/// The pauses after one, two, three, and more consecutive failures. A server that
/// fails is not overloaded with retries, and the worker resumes within seconds after
/// it recovers.
const RETRY_DELAYS: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// Applies the log to a projection.
pub struct Worker<P> {
    projection: P,
    subscription: LogSubscription,
    /// Connections to the dead letters and to the log.
    pool: PgPool,
    /// How long the row of a position update waits for further ones.
    window: Duration,
    /// `None` for a replay. A replay does not log the events that it parks, because the live
    /// worker has logged them.
    controls: Option<Controls>,
    /// The most events in a commit that writes all rows.
    max_events: usize,
    /// Less than `max_events` after a batch was refused.
    event_limit: usize,
    /// The global position of an event that was refused as the only one of its batch,
    /// and the error.
    refused: Option<(i64, String)>,
    progress: watch::Sender<WorkerProgress>,
    traces: Traces,
}

impl<P: Projection> Worker<P> {
    /// A worker that keeps up with the log. Rows of position updates wait for further ones
    /// for `window`; without a handle nothing can shorten it.
    #[must_use]
    pub fn live(
        projection: P,
        subscription: LogSubscription,
        pool: PgPool,
        window: Duration,
    ) -> (Self, ControlHandle) {
        let (handle, controls) = controls::controls();
        let max_events = if P::COALESCES {
            MAX_BATCH_EVENTS
        } else {
            P::MAX_COMMIT_ROWS
        };
        let worker = Self {
            projection,
            subscription,
            pool,
            window,
            controls: Some(controls),
            max_events,
            event_limit: max_events,
            refused: None,
            progress: watch::Sender::default(),
            traces: Traces::default(),
        };
        (worker, handle)
    }

    /// Creates spans of sampled events. Without it, and in a replay, none are created.
    #[must_use]
    pub fn with_traces(mut self, traces: Traces) -> Self {
        self.traces = traces;
        self
    }

    /// A worker that applies the whole log with large batches.
    #[must_use]
    pub fn replay(projection: P, subscription: LogSubscription, pool: PgPool) -> Self {
        Self {
            projection,
            subscription,
            pool,
            window: Duration::ZERO,
            controls: None,
            max_events: MAX_REPLAY_BATCH_EVENTS,
            event_limit: MAX_REPLAY_BATCH_EVENTS,
            refused: None,
            progress: watch::Sender::default(),
            traces: Traces::default(),
        }
    }

    #[must_use]
    pub fn progress(&self) -> watch::Receiver<WorkerProgress> {
        self.progress.subscribe()
    }

    /// Applies the log. After a failure, the worker logs the error and restarts from
    /// its checkpoint, so a batch whose outcome is unknown is not applied twice.
    ///
    /// # Errors
    /// [`TooManyDeadLetters`], except with [`Until::Stopped`]: then the worker retries.
    pub async fn run(
        &mut self,
        until: Until,
        stop: &CancellationToken,
    ) -> Result<(), TooManyDeadLetters> {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let before = self.progress.borrow().checkpoint;
            let error = match self.apply(until, stop).await {
                Ok(()) => return Ok(()),
                // Another worker committed first, or the batch was refused and the worker
                // now searches for the bad event with smaller batches.
                Err(RunError::Commit(CommitError::CheckpointMoved | CommitError::Refused(_))) => {
                    continue;
                }
                Err(RunError::TooManyDeadLetters(error)) if !until.is_live() => return Err(error),
                Err(error) => error,
            };
            if self.progress.borrow().checkpoint > before {
                failures = 0;
            }
            let error = error_text(&error);
            tracing::warn!(
                projection = P::NAME,
                error,
                "applying events to {} failed: {error}; the worker restarts from its checkpoint",
                P::NAME
            );
            self.progress
                .send_modify(|progress| progress.error = Some(error));
            let delay = RETRY_DELAYS[failures.min(RETRY_DELAYS.len() - 1)];
            failures += 1;
            let _ = tokio::time::timeout(delay, stop.cancelled()).await;
        }
        Ok(())
    }

    /// Reads, folds and commits from the checkpoint until the stop condition holds, the
    /// worker is stopped, or an error occurs.
    async fn apply(&mut self, until: Until, stop: &CancellationToken) -> Result<(), RunError> {
        let from = self.projection.checkpoint().await?;
        self.progress.send_modify(|progress| {
            progress.checkpoint = from.global_position;
            progress.read = from.global_position;
            progress.folding = 0;
        });
        let mut dead_letters = DeadLetterIndex::read(&self.pool, P::NAME).await?;
        let mut pending = Pending::<P>::new(from, self.window);
        let mut interval = BatchInterval::new::<P>();
        // Whether the last read returned the end of the log.
        let mut caught_up = false;
        while !until.is_reached(pending.to) {
            if until.is_live() {
                let _ = tokio::time::timeout(interval.next_poll(), stop.cancelled()).await;
            }
            if pending.events == 0 {
                pending.started_at = Instant::now();
            }
            if pending.dead_letters.is_empty() && dead_letters.is_stale() {
                dead_letters = self.refresh_dead_letters(&mut pending.from).await?;
            }
            let limit = self.read_limit(&pending);
            let wake_at = caught_up.then(|| self.wake_at(&mut pending, &interval));
            let Some(mut events) = self
                .next_batch(pending.to, limit, wake_at.flatten(), stop)
                .await?
            else {
                while !pending.is_empty() {
                    self.commit(&mut pending, Take::All).await?;
                }
                return Ok(());
            };
            caught_up = events.len() < limit;
            let is_quiet = events.is_empty();
            if let Until::Reached(end) = until {
                events.retain(|event| event.global_position() <= end);
            }
            self.fold(&events, &mut pending, &mut dead_letters)?;
            let readers = match &mut self.controls {
                Some(controls) => controls.readers_to_write(pending.to),
                None => BTreeSet::new(),
            };
            let is_requested = !readers.is_empty() && pending.window.expedite(&readers);
            if !pending.is_empty() {
                self.progress.send_modify(|progress| {
                    progress.read = pending.to;
                    progress.folding = pending.events as u64;
                });
            } else if caught_up {
                self.check_idle(pending.from).await?;
            }
            let state = WorkerState {
                caught_up,
                is_quiet,
                is_due: interval.is_due(),
                is_requested,
                is_window_over: interval.is_window_due() && pending.is_window_over(),
                is_window_closed: self.is_window_closed(&pending),
                max_events: self.event_limit,
                ..pending.state()
            };
            let revision = pending.from.revision;
            match state.next_step(until) {
                Step::CommitFull(take) => {
                    self.commit(&mut pending, take).await?;
                    interval.catch_up();
                }
                Step::Commit(take) => {
                    let began = Instant::now();
                    self.commit(&mut pending, take).await?;
                    interval.committed(began.elapsed());
                    if pending.has_urgent() {
                        // More rows than one commit writes.
                        interval.catch_up();
                    }
                }
                Step::Collect => interval.polled(),
                Step::Read => {}
            }
            if !readers.is_empty() && !pending.window.has_urgent() {
                // Postgres may have lost the last commits in a crash.
                if pending.from.revision == revision {
                    self.check_idle(pending.from).await?;
                }
                if let Some(controls) = &mut self.controls {
                    controls.written(&readers, pending.to);
                }
            }
            if caught_up && pending.is_empty() {
                pending.is_open = self.has_window();
            }
            if caught_up && !until.is_live() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether rows can wait for the window at all.
    fn has_window(&self) -> bool {
        P::COALESCES && !self.window.is_zero() && self.controls.is_some()
    }

    /// Whether every commit writes all rows: before the worker has caught up, and while another
    /// process requests it.
    fn is_window_closed(&self, pending: &Pending<P>) -> bool {
        let is_requested = self
            .controls
            .as_ref()
            .is_none_or(Controls::is_window_closed);
        !pending.is_open || is_requested
    }

    fn read_limit(&self, pending: &Pending<P>) -> usize {
        if pending.is_open {
            return READ_SIZE;
        }
        let rest = self.event_limit.saturating_sub(pending.events);
        rest.clamp(1, READ_SIZE)
    }

    /// When a read of a worker that has caught up must end without events: at once if rows
    /// are urgent. `None` without rows.
    fn wake_at(&self, pending: &mut Pending<P>, interval: &BatchInterval) -> Option<Instant> {
        if pending.is_empty() {
            return None;
        }
        if pending.has_urgent() || self.is_window_closed(pending) {
            return Some(Instant::now());
        }
        let silent_at = pending.read_at + SILENCE;
        let window_over = pending.window.ends_at();
        let window_over = window_over.map(|ends_at| interval.window_over_at(ends_at));
        Some(window_over.map_or(silent_at, |at| at.min(silent_at)))
    }

    /// Reads the next events after a global position; none at the end of the log. Waits for
    /// new ones, until `wake_at` at the most, or until a control of the worker changes.
    /// Returns `None` if the worker is stopped.
    ///
    /// A stop interrupts only this read. A commit always completes.
    async fn next_batch(
        &mut self,
        after: i64,
        limit: usize,
        wake_at: Option<Instant>,
        stop: &CancellationToken,
    ) -> Result<Option<Vec<LogEntry>>, LogError> {
        let wake = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            match &mut self.controls {
                Some(controls) => controls.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(None),
            events = self.subscription.next_batch(after, limit) => {
                Ok(Some(events?.unwrap_or_default()))
            }
            () = changed => Ok(Some(Vec::new())),
            () = wake => Ok(Some(Vec::new())),
        }
    }

    /// Checks that no other worker has moved the checkpoint of this idle one. Clears the
    /// error of an earlier failure.
    async fn check_idle(&mut self, checkpoint: Checkpoint) -> Result<(), RunError> {
        if !self.projection.is_at(checkpoint).await? {
            return Err(CommitError::CheckpointMoved.into());
        }
        self.progress
            .send_if_modified(|progress| progress.error.take().is_some());
        Ok(())
    }
}
