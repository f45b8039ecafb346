//! What a projection is: a pure fold of events into a batch, and one atomic
//! step that writes the batch and moves the checkpoint.

use std::time::Duration;

use domain::ReaderId;
use eventlog::Recorded;
use sqlx::PgPool;
use thiserror::Error;

use crate::dead_letters::DeadLetterChanges;

/// How long Postgres may take over a step; somewhat longer than a statement
/// may take there.
pub(crate) const DEADLINE: Duration = Duration::from_secs(35);

/// A read model of the log.
pub trait Projection: Send {
    /// Its name, of its checkpoint too.
    const NAME: &'static str;

    /// The least time between the steps of a worker that keeps up. The first event
    /// after a rest is written at once; what comes within this time after it is
    /// written together, which is far cheaper. Readers wait for it who ask for what
    /// they just did.
    const PACE: Duration = Duration::from_millis(50);

    /// The most time between them, where steps are dear and events keep coming.
    /// Shorter than readers wait for what they just did.
    const MAX_PACE: Duration = Duration::from_millis(500);

    /// Events in one step of a worker that keeps up, at most. Many events of one
    /// session become one row, so larger steps are cheaper; this bounds the time that
    /// others wait for its locks, and what is applied again after a failure. More
    /// than a saturated log gets in the longest pace.
    const MAX_STEP: usize = 16_384;

    /// What many events come to before they are written.
    type Batch: Default + Send;

    /// Adds an event to a batch. Pure: no clock, no I/O.
    fn fold(batch: &mut Self::Batch, event: &Recorded);

    /// As [`Projection::fold`], of an event that was left out in its time.
    fn fold_retried(batch: &mut Self::Batch, event: &Recorded) {
        Self::fold(batch, event);
    }

    /// Adds to a batch that an event of a reader is left out: at `position`,
    /// what is known of the reader is behind the log. Most have nothing to do.
    fn on_skipped(_batch: &mut Self::Batch, _reader_id: ReaderId, _position: i64) {}

    /// How many rows or entries a batch writes.
    fn rows(batch: &Self::Batch) -> usize;

    /// Up to where events have been applied.
    fn checkpoint(&mut self) -> impl Future<Output = Result<Checkpoint, CommitError>> + Send;

    /// Whether the checkpoint still is where a worker that has nothing to do
    /// left it. A Postgres that was killed may have lost the last steps, which
    /// did not wait for the disk.
    fn is_at(
        &mut self,
        checkpoint: Checkpoint,
    ) -> impl Future<Output = Result<bool, CommitError>> + Send {
        let is = self.checkpoint();
        async move { Ok(is.await? == checkpoint) }
    }

    /// Writes a batch and the dead letters, and moves the checkpoint, in one
    /// atomic step. Nothing is written unless the checkpoint still is where the
    /// step begins.
    fn commit(
        &mut self,
        batch: Self::Batch,
        step: Step,
        letters: &DeadLetterChanges,
    ) -> impl Future<Output = Result<(), CommitError>> + Send;
}

/// A projection whose rows are in Postgres, and so can be made in another
/// schema than the one that queries read.
pub trait TableProjection: Projection {
    /// Its tables.
    const TABLES: &'static [&'static str];

    /// Writes by `pool`.
    fn new(pool: PgPool) -> Self;
}

/// How far a projection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The global position up to which events have been applied.
    pub global_position: i64,
    /// How often a replay has taken the place of the tables. What a worker knows
    /// of dead letters is of the tables of one replay.
    pub replays: i64,
}

impl Checkpoint {
    /// That of what no replay takes the place of, or none has yet.
    #[must_use]
    pub fn at(global_position: i64) -> Self {
        Self {
            global_position,
            replays: 0,
        }
    }
}

/// The way of a checkpoint: the events after `from` up to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where the checkpoint is before.
    pub from: Checkpoint,
    /// The global position of the last event in the batch.
    pub to: i64,
}

/// A step was not made.
#[derive(Debug, Error)]
pub enum CommitError {
    /// The checkpoint is elsewhere: another worker is at the same projection,
    /// or an earlier step was made after all. Nothing was written.
    #[error("the checkpoint has moved")]
    Moved,
    /// The store does not take what is in the batch; trying the same again
    /// does not help. Nothing was written.
    #[error("the read side refuses an event")]
    Refused(#[source] sqlx::Error),
    /// The store did not answer; whether the step was made is not known.
    #[error("the read side is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<sqlx::Error> for CommitError {
    fn from(error: sqlx::Error) -> Self {
        // Wrong data (22), or data that break a constraint (23).
        let refused = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .is_some_and(|code| code.starts_with("22") || code.starts_with("23"));
        if refused {
            Self::Refused(error)
        } else {
            Self::Unavailable(Box::new(error))
        }
    }
}
