//! The worker runs a projection: it reads events, folds them into a batch, and
//! commits the batch with the checkpoint.
//!
//! The live worker and a replay run the same code. They differ in when they stop and
//! in how large a batch may be.

use std::time::{Duration, Instant};

use domain::SessionEvent;
use eventlog::{LogEntry, LogError};
use messaging::LogSubscription;
use sqlx::PgPool;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::dead_letters::{
    self, DeadLetterChanges, DeadLetterIndex, Disposition, NewDeadLetter, ParkReason, error_text,
};
use crate::{BatchRange, Checkpoint, CommitError, Projection};

mod batch_interval;
mod decision;
mod progress;
mod retry;

use batch_interval::BatchInterval;
use decision::{CommitDecision, Folded};
pub use progress::{Until, WorkerProgress, forward};

/// The most events that are read at once. Bounds the memory of events that are not
/// folded yet.
const READ_SIZE: usize = 4_096;

/// The most events in a batch of a replay. No query waits for a replay, so its
/// batches are larger than [`Projection::MAX_BATCH_EVENTS`].
const MAX_REPLAY_BATCH_EVENTS: usize = 1_048_576;

/// The pauses after one, two, three, and more consecutive failures. A server that
/// fails is not overloaded with retries, and the worker resumes within seconds after
/// it recovers.
const RETRY_DELAYS: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// Why a worker restarts from its checkpoint.
#[derive(Debug, Error)]
enum RunError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    TooManyDeadLetters(#[from] TooManyDeadLetters),
}

/// This many failures do not come from single bad events. Usually the process runs an
/// older build that cannot decode the events of a newer one.
#[derive(Debug, Error)]
#[error(
    "more than {} events cannot be applied; check that this process does not run an older build \
     than the others",
    dead_letters::MAX_DEAD_LETTERS
)]
pub struct TooManyDeadLetters;

impl From<sqlx::Error> for RunError {
    fn from(error: sqlx::Error) -> Self {
        Self::Commit(error.into())
    }
}

/// Events that are folded and not committed yet.
struct PendingBatch<P: Projection> {
    content: P::Batch,
    dead_letters: DeadLetterChanges,
    from: Checkpoint,
    /// The global position of the last event.
    to: i64,
    events: usize,
    started_at: Instant,
}

impl<P: Projection> PendingBatch<P> {
    fn new(from: Checkpoint) -> Self {
        Self {
            content: P::Batch::default(),
            dead_letters: DeadLetterChanges::default(),
            from,
            to: from.global_position,
            events: 0,
            started_at: Instant::now(),
        }
    }

    fn is_empty(&self) -> bool {
        self.events == 0
    }
}

/// Applies the log to a projection.
pub struct Worker<P> {
    projection: P,
    subscription: LogSubscription,
    /// Connections to the dead letters and to the log.
    pool: PgPool,
    /// Whether this is a replay. A replay does not log the events that it parks,
    /// because the live worker has logged them.
    is_replay: bool,
    /// The most events in a batch.
    max_events: usize,
    /// The most events in the next batch; less than `max_events` after a batch was
    /// refused.
    event_limit: usize,
    /// The global position of an event that was refused as the only one of its batch,
    /// and the error.
    refused: Option<(i64, String)>,
    progress: watch::Sender<WorkerProgress>,
}

impl<P: Projection> Worker<P> {
    /// A worker that keeps up with the log.
    #[must_use]
    pub fn live(projection: P, subscription: LogSubscription, pool: PgPool) -> Self {
        Self::new(projection, subscription, pool, false, P::MAX_BATCH_EVENTS)
    }

    /// A worker that applies the whole log with large batches.
    #[must_use]
    pub fn replay(projection: P, subscription: LogSubscription, pool: PgPool) -> Self {
        Self::new(
            projection,
            subscription,
            pool,
            true,
            MAX_REPLAY_BATCH_EVENTS,
        )
    }

    fn new(
        projection: P,
        subscription: LogSubscription,
        pool: PgPool,
        is_replay: bool,
        max_events: usize,
    ) -> Self {
        Self {
            projection,
            subscription,
            pool,
            is_replay,
            max_events,
            event_limit: max_events,
            refused: None,
            progress: watch::Sender::default(),
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
        let mut batch = PendingBatch::<P>::new(from);
        let mut interval = BatchInterval::new::<P>();
        // Whether the last read returned the end of the log.
        let mut caught_up = false;
        while !until.is_reached(batch.to) {
            if until.is_live() {
                let _ = tokio::time::timeout(interval.next_poll(), stop.cancelled()).await;
            }
            if batch.is_empty() {
                batch.started_at = Instant::now();
                if dead_letters.is_stale() {
                    dead_letters = self.refresh_dead_letters(batch.from).await?;
                }
            }
            let limit = (self.event_limit - batch.events).min(READ_SIZE);
            let may_wait = !caught_up || batch.is_empty();
            let Some(mut events) = self.next_batch(batch.to, limit, may_wait, stop).await? else {
                if !batch.is_empty() {
                    self.commit(batch).await?;
                }
                return Ok(());
            };
            caught_up = events.len() < limit;
            let is_quiet = events.is_empty();
            if let Until::Reached(end) = until {
                events.retain(|event| event.global_position() <= end);
            }
            self.fold(&events, &mut batch, &mut dead_letters)?;
            if !batch.is_empty() {
                self.progress.send_modify(|progress| {
                    progress.read = batch.to;
                    progress.folding = batch.events as u64;
                });
            } else if caught_up {
                self.check_idle(batch.from).await?;
            }
            let folded = Folded {
                to: batch.to,
                events: batch.events,
                max_events: self.event_limit,
                rows: P::rows(&batch.content),
                age: batch.started_at.elapsed(),
                caught_up,
                is_quiet,
                is_due: interval.is_due(),
            };
            match folded.next_step(until) {
                CommitDecision::CommitFull => {
                    batch = self.commit(batch).await?;
                    interval.catch_up();
                }
                CommitDecision::Commit => {
                    let began = Instant::now();
                    batch = self.commit(batch).await?;
                    interval.committed(began.elapsed());
                }
                CommitDecision::Collect => interval.polled(),
                CommitDecision::Read => {}
            }
            if caught_up && !until.is_live() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads the next events after a global position; none at the end of the log. With
    /// `may_wait`, waits a moment for new ones. Returns `None` if the worker is stopped.
    ///
    /// A stop interrupts only this read. A commit always completes.
    async fn next_batch(
        &mut self,
        after: i64,
        limit: usize,
        may_wait: bool,
        stop: &CancellationToken,
    ) -> Result<Option<Vec<LogEntry>>, LogError> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(None),
            events = self.subscription.next_batch(after, limit) => {
                Ok(Some(events?.unwrap_or_default()))
            }
            () = std::future::ready(()), if !may_wait => Ok(Some(Vec::new())),
        }
    }

    /// Adds events to a batch, or parks them.
    fn fold(
        &mut self,
        events: &[LogEntry],
        batch: &mut PendingBatch<P>,
        dead_letters: &mut DeadLetterIndex,
    ) -> Result<(), RunError> {
        for event in events {
            let global_position = event.global_position();
            batch.to = global_position;
            batch.events += 1;
            let refused = self
                .refused
                .take_if(|(refused, _)| *refused == global_position);
            let disposition = match refused {
                Some((_, error)) => Disposition::Park(ParkReason::Failed(error)),
                None => dead_letters.classify(event),
            };
            match (disposition, event) {
                (Disposition::Apply, LogEntry::Event(event)) => {
                    if let SessionEvent::SessionErased(_) = event.event {
                        let session = event.session_id.to_string();
                        if dead_letters.erase(&session) {
                            batch.dead_letters.erase(session);
                        }
                    }
                    P::fold(&mut batch.content, event);
                    continue;
                }
                (Disposition::Park(reason), event) => {
                    if dead_letters.is_full() {
                        return Err(TooManyDeadLetters.into());
                    }
                    if let ParkReason::Failed(_) = &reason
                        && !self.is_replay
                    {
                        // Without the error, which may quote the reader's data.
                        tracing::error!(
                            projection = P::NAME,
                            global_position,
                            "applying event {name}.{global_position} failed: it is parked; run \
                             `reading-sessions dead-letters show {name}.{global_position}`",
                            name = P::NAME
                        );
                    }
                    let parked = NewDeadLetter::new(event, reason);
                    batch.dead_letters.parked.push(parked);
                    dead_letters.park(event);
                }
                (Disposition::Apply | Disposition::Skip, _) => {}
            }
            if let Some(reader_id) = event.reader_id() {
                P::on_skipped(&mut batch.content, reader_id, global_position);
            }
        }
        Ok(())
    }

    /// Commits a batch. Returns the next one, which is empty.
    async fn commit(&mut self, batch: PendingBatch<P>) -> Result<PendingBatch<P>, RunError> {
        let PendingBatch {
            content,
            dead_letters,
            from,
            to,
            events,
            started_at: _,
        } = batch;
        let rows = P::rows(&content);
        let range = BatchRange { from, to };
        match self.projection.commit(content, range, &dead_letters).await {
            Ok(()) => {
                self.event_limit = (self.event_limit * 2).min(self.max_events);
                self.progress.send_modify(|progress| {
                    progress.checkpoint = to;
                    progress.events += events as u64;
                    progress.folding = 0;
                    progress.rows += rows as u64;
                    progress.error = None;
                });
                Ok(PendingBatch::new(Checkpoint {
                    global_position: to,
                    ..from
                }))
            }
            // Halving the batches isolates the bad event, which is then parked.
            Err(CommitError::Refused(error)) => {
                self.event_limit = (events / 2).max(1);
                if events == 1 {
                    if !dead_letters.parked.is_empty() {
                        // The event is parked already, so it did not cause the error.
                        return Err(CommitError::Unavailable(error.into()).into());
                    }
                    self.refused = Some((to, error_text(&error)));
                }
                Err(CommitError::Refused(error).into())
            }
            Err(error) => Err(error.into()),
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
