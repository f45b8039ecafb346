//! Runs a projection: source, fold, commit. Live and replay are the same code;
//! they differ in when they stop.

use std::time::{Duration, Instant};

use domain::SessionEvent;
use eventlog::deadline::with_deadline;
use eventlog::{LogError, Logged, read};
use messaging::fan_out::LogSubscription;
use sqlx::PgPool;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::dead_letters::{self, DeadLetterIndex, NewDeadLetter, DeadLetterChanges, Disposition, Why, text};
use crate::projection::DEADLINE;
use crate::{Checkpoint, CommitError, Projection, Step};

mod batch_interval;
mod progress;

use batch_interval::Pace;
pub use progress::{WorkerProgress, Until};

/// Events read at once; bounds the memory that they take undigested.
const CHUNK: usize = 4_096;

/// Events in one step of who has far to go, and nobody waits for; see
/// [`Projection::MAX_STEP`].
const MAX_REPLAY_BATCH: usize = 1_048_576;

/// Rows that a batch may come to before it is written; bounds its memory.
const MAX_ROWS: usize = 65_536;

/// How long events are folded before they are written; bounds what a kill costs.
/// Rows are written again in each step, so shorter ones make a replay slower.
const MAX_FOLDING: Duration = Duration::from_secs(5);

/// The pauses after failures in a row: a store that is away is not hammered,
/// one that is back is noticed within seconds.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// Why a projection starts over from its checkpoint.
#[derive(Debug, Error)]
enum RunError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    TooManyLetters(#[from] TooManyLetters),
}

/// A projection has more dead letters than a bad event now and then would make.
#[derive(Debug, Error)]
#[error(
    "more than {} events cannot be applied; is this an old build beside a newer one?",
    dead_letters::MAX_LETTERS
)]
pub struct TooManyLetters;

impl From<sqlx::Error> for RunError {
    fn from(error: sqlx::Error) -> Self {
        Self::Commit(error.into())
    }
}

/// Events on their way into a step.
struct Folded<P: Projection> {
    batch: P::Batch,
    letters: DeadLetterChanges,
    from: Checkpoint,
    to: i64,
    events: usize,
    began: Instant,
}

impl<P: Projection> Folded<P> {
    fn after(from: Checkpoint) -> Self {
        Self {
            batch: P::Batch::default(),
            letters: DeadLetterChanges::default(),
            from,
            to: from.global_position,
            events: 0,
            began: Instant::now(),
        }
    }
}

/// Applies the log to a projection.
pub struct Worker<P> {
    projection: P,
    reader: LogSubscription,
    /// Where the dead letters are.
    pool: PgPool,
    /// It makes a projection again: what it meets is no news.
    is_replay: bool,
    /// Events in a step at most.
    max_batch: usize,
    /// Less than `max_batch` after a batch that was refused.
    batch: usize,
    /// An event that was refused all by itself, and the error.
    refused: Option<(i64, String)>,
    progress: watch::Sender<WorkerProgress>,
}

impl<P: Projection> Worker<P> {
    /// A worker that keeps up with the log.
    #[must_use]
    pub fn live(projection: P, reader: LogSubscription, pool: PgPool) -> Self {
        Self::new(projection, reader, pool, false, P::MAX_STEP)
    }

    /// A worker that goes through the whole log.
    #[must_use]
    pub fn replay(projection: P, reader: LogSubscription, pool: PgPool) -> Self {
        Self::new(projection, reader, pool, true, MAX_REPLAY_BATCH)
    }

    fn new(projection: P, reader: LogSubscription, pool: PgPool, is_replay: bool, max_batch: usize) -> Self {
        Self {
            projection,
            reader,
            pool,
            is_replay,
            max_batch,
            batch: max_batch,
            refused: None,
            progress: watch::Sender::default(),
        }
    }

    /// How it gets on.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<WorkerProgress> {
        self.progress.subscribe()
    }

    /// Applies the log. Failures are logged and met by starting over from the
    /// checkpoint, so a step whose outcome is unknown is not made twice.
    ///
    /// # Errors
    /// [`TooManyLetters`], unless it is to go on until it is stopped.
    pub async fn run(
        &mut self,
        until: Until,
        stop: &CancellationToken,
    ) -> Result<(), TooManyLetters> {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let before = self.progress.borrow().position;
            let error = match self.apply(until, stop).await {
                Ok(()) => return Ok(()),
                // Another worker was faster; what it did need not be done. Or
                // an event is refused, and found by halves.
                Err(RunError::Commit(CommitError::Moved | CommitError::Refused(_))) => continue,
                Err(RunError::TooManyLetters(error)) if until != Until::Stopped => {
                    return Err(error);
                }
                Err(error) => error,
            };
            if self.progress.borrow().position > before {
                failures = 0;
            }
            let error = text(&error);
            tracing::warn!(
                projection = P::NAME,
                error,
                "starts over from its checkpoint"
            );
            self.progress
                .send_modify(|progress| progress.error = Some(error));
            let pause = PAUSES[failures.min(PAUSES.len() - 1)];
            failures += 1;
            let _ = tokio::time::timeout(pause, stop.cancelled()).await;
        }
        Ok(())
    }

    async fn apply(&mut self, until: Until, stop: &CancellationToken) -> Result<(), RunError> {
        let from = self.projection.checkpoint().await?;
        self.progress.send_modify(|progress| {
            progress.position = from.global_position;
            progress.read = from.global_position;
            progress.folding = 0;
        });
        let mut known = DeadLetterIndex::read(&self.pool, P::NAME).await?;
        let mut folded = Folded::<P>::after(from);
        let mut pace = Pace::of::<P>();
        // Whether there was nothing more at the last look.
        let mut all = false;
        loop {
            if until.is_reached(folded.to) {
                return Ok(());
            }
            if until == Until::Stopped {
                let _ = tokio::time::timeout(pace.rest(), stop.cancelled()).await;
            }
            if folded.events == 0 {
                folded.began = Instant::now();
            }
            if folded.events == 0 && known.is_old() {
                known = DeadLetterIndex::read(&self.pool, P::NAME).await?;
                if !known.asked().is_empty() {
                    self.settle(&known, folded.from).await?;
                    known = DeadLetterIndex::read(&self.pool, P::NAME).await?;
                }
            }
            let room = (self.batch - folded.events).min(CHUNK);
            // Only waiting is cut short; a commit is never torn, and what has been
            // folded is kept.
            let gathers = all && folded.events > 0;
            let events = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    if folded.events > 0 {
                        self.commit(folded).await?;
                    }
                    return Ok(());
                }
                events = self.reader.next_or_quiet(folded.to, room) => events?,
                // Who has something to write does not wait for more.
                () = std::future::ready(()), if gathers => None,
            };
            let mut events = events.unwrap_or_default();
            all = events.len() < room;
            let quiet = events.is_empty();
            if let Until::Reached(end) = until {
                events.retain(|event| event.global_position() <= end);
            }
            self.fold(&events, &mut folded, &mut known)?;
            if folded.events > 0 {
                self.progress.send_modify(|progress| {
                    progress.read = folded.to;
                    progress.folding = folded.events as u64;
                });
            } else if all {
                if !self.projection.is_at(folded.from).await? {
                    return Err(CommitError::Moved.into());
                }
                // Nothing to apply, and nothing fails.
                self.progress
                    .send_if_modified(|progress| progress.error.take().is_some());
            }
            let full = folded.events >= self.batch
                || P::rows(&folded.batch) >= MAX_ROWS
                || folded.began.elapsed() >= MAX_FOLDING;
            let due = until != Until::Stopped || quiet || pace.is_due();
            if folded.events > 0 && (full || (all && due) || until.is_reached(folded.to)) {
                let began = Instant::now();
                folded = self.commit(folded).await?;
                if full {
                    pace.hurry();
                } else {
                    pace.stepped(began.elapsed());
                }
            } else if folded.events > 0 && all {
                pace.looked();
            }
            if all && until != Until::Stopped {
                return Ok(());
            }
        }
    }

    /// Adds events to a batch, or parks them.
    fn fold(
        &mut self,
        events: &[Logged],
        folded: &mut Folded<P>,
        known: &mut DeadLetterIndex,
    ) -> Result<(), RunError> {
        for event in events {
            let position = event.global_position();
            folded.to = position;
            folded.events += 1;
            let refused = self.refused.take_if(|(refused, _)| *refused == position);
            let verdict = match refused {
                Some((_, error)) => Disposition::Park(Why::Parked(error)),
                None => known.judge(event),
            };
            match (verdict, event) {
                (Disposition::Apply, Logged::Event(event)) => {
                    if let SessionEvent::SessionErased(_) = event.event {
                        let session = event.session_id.to_string();
                        if known.erase(&session) {
                            folded.letters.erase(session);
                        }
                    }
                    P::fold(&mut folded.batch, event);
                    continue;
                }
                (Disposition::Park(why), event) => {
                    if known.is_full() {
                        return Err(TooManyLetters.into());
                    }
                    if let Why::Parked(_) = &why
                        && !self.is_replay
                    {
                        // Not the error: it may quote what a reader reads.
                        tracing::error!(
                            projection = P::NAME,
                            position,
                            "an event is parked; `dead-letters show` says why"
                        );
                    }
                    folded.letters.parked.push(NewDeadLetter::of(event, why));
                    known.park(event);
                }
                (Disposition::Apply | Disposition::Skip, _) => {}
            }
            if let Some(reader_id) = event.reader_id() {
                P::on_skipped(&mut folded.batch, reader_id, position);
            }
        }
        Ok(())
    }

    /// Makes a step; returns the beginning of the next.
    async fn commit(&mut self, folded: Folded<P>) -> Result<Folded<P>, RunError> {
        let Folded {
            batch,
            letters,
            from,
            to,
            events,
            began: _,
        } = folded;
        let rows = P::rows(&batch);
        let made = self.projection.commit(batch, Step { from, to }, &letters);
        match made.await {
            Ok(()) => {
                self.batch = (self.batch * 2).min(self.max_batch);
                self.progress.send_modify(|progress| {
                    progress.position = to;
                    progress.events += events as u64;
                    progress.folding = 0;
                    progress.rows += rows as u64;
                    progress.error = None;
                });
                Ok(Folded::after(Checkpoint {
                    global_position: to,
                    ..from
                }))
            }
            // The one event at fault is found by halves, and parked.
            Err(CommitError::Refused(error)) => {
                self.batch = (events / 2).max(1);
                if events == 1 {
                    if !letters.parked.is_empty() {
                        // It is not the event.
                        return Err(CommitError::Unavailable(error.into()).into());
                    }
                    self.refused = Some((to, text(&error)));
                }
                Err(CommitError::Refused(error).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Applies the parked events of the sessions that are to be tried again, at
    /// a checkpoint that stays where it is, as far as they can be applied now.
    async fn settle(&mut self, known: &DeadLetterIndex, at: Checkpoint) -> Result<(), RunError> {
        for session in known.asked() {
            let stored = read::at(&self.pool, known.of(session));
            let mut stored = with_deadline(DEADLINE, stored).await?.into_iter().peekable();
            for &position in known.of(session) {
                let event = stored.next_if(|event| event.global_position == position);
                let error = match event.map(eventlog::Stored::logged) {
                    Some(Logged::Event(event)) => {
                        let mut batch = P::Batch::default();
                        P::fold_retried(&mut batch, &event);
                        let letters = DeadLetterChanges {
                            settled: vec![position],
                            ..DeadLetterChanges::default()
                        };
                        let step = Step {
                            from: at,
                            to: at.global_position,
                        };
                        match self.projection.commit(batch, step, &letters).await {
                            Ok(()) => continue,
                            Err(CommitError::Refused(error)) => text(&error),
                            Err(error) => return Err(error.into()),
                        }
                    }
                    Some(Logged::Undecodable(event)) => text(&event.error),
                    None => "the log does not hold it any more".to_owned(),
                };
                let refused = dead_letters::refuse(&self.pool, P::NAME, session, position, &error);
                with_deadline(DEADLINE, refused).await?;
                break;
            }
        }
        Ok(())
    }
}
