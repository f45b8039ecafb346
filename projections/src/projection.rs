//! A projection is a pure fold of events into a batch, and an atomic commit that
//! writes the batch and moves the checkpoint.

use std::time::Duration;

use domain::ReaderId;
use eventlog::RecordedEvent;
use eventlog::sqlstate::SqlState;
use sqlx::PgPool;
use thiserror::Error;

use crate::dead_letters::DeadLetterChanges;
use crate::zones::Zones;

/// A read model of the log.
pub trait Projection: Send {
    /// The name of the projection and of its checkpoint.
    const NAME: &'static str;

    /// The least time between two commits of a worker that keeps up. The first event
    /// after a quiet period is committed at once. Events that arrive within this time
    /// after it are committed together, which costs far less. Queries with
    /// `min_position` wait for it.
    const MIN_BATCH_INTERVAL: Duration = Duration::from_millis(50);

    /// The most time between two commits, if commits are slow and events keep coming.
    /// Shorter than queries with `min_position` wait (five seconds).
    const MAX_BATCH_INTERVAL: Duration = Duration::from_millis(500);

    /// The most events in one commit of a worker that keeps up. Many events of a
    /// session become one row, so larger batches cost less per event. The bound limits
    /// how long other transactions wait for the locks of a commit, and how much is
    /// applied again after a failure. A saturated log appends fewer events within
    /// [`Projection::MAX_BATCH_INTERVAL`].
    const MAX_BATCH_EVENTS: usize = 16_384;

    /// The effect of many events, before it is written.
    type Batch: Default + Send;

    /// Adds an event to a batch. Pure: reads no clock and does no I/O.
    fn fold(batch: &mut Self::Batch, event: &RecordedEvent);

    /// Like [`Projection::fold`], for an event that was parked and is retried.
    fn fold_retried(batch: &mut Self::Batch, event: &RecordedEvent) {
        Self::fold(batch, event);
    }

    /// Adds to a batch that the projection skips the event of a reader at
    /// `global_position`: the data of this reader is incomplete from there on. Most
    /// projections do nothing.
    fn on_skipped(_batch: &mut Self::Batch, _reader_id: ReaderId, _global_position: i64) {}

    /// The number of rows or cache entries that a batch writes.
    fn rows(batch: &Self::Batch) -> usize;

    /// Reads the checkpoint.
    fn checkpoint(&mut self) -> impl Future<Output = Result<Checkpoint, CommitError>> + Send;

    /// Whether the checkpoint is still `checkpoint`; an idle worker checks this.
    /// Commits of projections do not wait for the disk, so Postgres may lose the last
    /// ones in a crash.
    fn is_at(
        &mut self,
        checkpoint: Checkpoint,
    ) -> impl Future<Output = Result<bool, CommitError>> + Send {
        let current = self.checkpoint();
        async move { Ok(current.await? == checkpoint) }
    }

    /// Writes a batch and the changes of dead letters, and moves the checkpoint to the
    /// end of `range`, atomically. Writes nothing unless the checkpoint is at the start
    /// of `range`.
    fn commit(
        &mut self,
        batch: Self::Batch,
        range: BatchRange,
        dead_letters: &DeadLetterChanges,
    ) -> impl Future<Output = Result<(), CommitError>> + Send;
}

/// A projection whose rows are stored in Postgres. It can be built in another schema
/// than the one that queries read.
pub trait TableProjection: Projection {
    const TABLES: &'static [&'static str];

    /// `pool` determines the schema: its connections use the `search_path`. `zones`
    /// determines the days of readers.
    fn new(pool: PgPool, zones: &Zones) -> Self;
}

/// How far a projection has applied the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The global position up to which events have been applied.
    pub global_position: i64,
    /// The number of replays that have replaced the tables, and of removals of old days. A
    /// worker that read its checkpoint before one of them cannot commit after it, because a
    /// replay also replaces the dead letters that the worker has read, and a removal deletes
    /// rows that the worker may have read.
    pub replays: i64,
}

impl Checkpoint {
    /// A checkpoint of a projection that no replay has replaced.
    #[must_use]
    pub fn at(global_position: i64) -> Self {
        Self {
            global_position,
            replays: 0,
        }
    }
}

/// The part of the log that a batch contains: the events after `from` up to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRange {
    /// The checkpoint before the commit.
    pub from: Checkpoint,
    /// The global position of the last event, and of the checkpoint after the commit.
    pub to: i64,
}

/// A batch was not committed.
#[derive(Debug, Error)]
pub enum CommitError {
    /// Another worker runs the projection, or an earlier commit succeeded although its
    /// response was lost. Nothing was written. Read the checkpoint and continue there.
    #[error("the checkpoint has moved")]
    CheckpointMoved,
    /// Postgres cannot store the values of the batch. Nothing was written, and a retry
    /// fails again.
    #[error("Postgres rejected the values of an event")]
    Refused(#[source] sqlx::Error),
    /// Postgres or Redis did not respond, so the commit may have succeeded. Read the
    /// checkpoint and retry.
    #[error("the read tables or Redis are unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<sqlx::Error> for CommitError {
    fn from(error: sqlx::Error) -> Self {
        if SqlState::from_error(&error).is_some_and(SqlState::is_bad_data) {
            Self::Refused(error)
        } else {
            Self::Unavailable(Box::new(error))
        }
    }
}
