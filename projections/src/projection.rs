//! A projection is a pure fold of events into changes of rows, and an atomic commit that
//! writes rows and moves the checkpoint.

use std::collections::BTreeMap;
use std::hash::Hash;
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

    /// The system that stores the rows, as the semantic conventions of OpenTelemetry name it.
    const STORE: &'static str = "postgresql";

    /// Whether the worker keeps position updates in memory for the coalesce window, and
    /// writes a row once for many of them (decision 0026). Otherwise it writes every row
    /// within the batch interval.
    const COALESCES: bool = true;

    /// The least time between two commits of a worker that keeps up. The first row after a
    /// quiet period is written at once. Rows that change within this time after it are
    /// written together, which costs far less. Queries with `min_position` wait for it.
    const MIN_BATCH_INTERVAL: Duration = Duration::from_millis(50);

    /// The most time between two commits, if commits are slow and events keep coming.
    /// Shorter than queries with `min_position` wait (five seconds).
    const MAX_BATCH_INTERVAL: Duration = Duration::from_millis(500);

    /// The most rows in one commit of a live worker. The bound limits how long other
    /// transactions wait for the locks of a commit.
    const MAX_COMMIT_ROWS: usize = 16_384;

    /// The key of a row or cache entry, in the order in which a commit writes rows.
    type Key: Copy + Ord + Hash + Send + Sync;

    /// The effect of events on one row, before it is written.
    type Change: Send;

    /// The row that an event changes.
    fn key(event: &RecordedEvent) -> Self::Key;

    /// Adds an event to the change of its row; leaves `None` if there is nothing to write. In
    /// place, because a change is large and events are many. Pure: reads no clock and does no
    /// I/O.
    ///
    /// A worker that restarts folds events again that some rows contain already. A commit
    /// must leave such rows as they are.
    fn fold(change: &mut Option<Self::Change>, event: &RecordedEvent);

    /// Like [`Projection::fold`], for an event that was parked and is retried.
    #[must_use]
    fn fold_retried(event: &RecordedEvent) -> Option<(Self::Key, Self::Change)> {
        let mut change = None;
        Self::fold(&mut change, event);
        Some((Self::key(event), change?))
    }

    /// The change if the projection skips the event of a reader at `global_position`: the
    /// data of this reader is incomplete from there on. It replaces an earlier change of the
    /// same row. Most projections do nothing.
    #[must_use]
    fn on_skipped(
        _reader_id: ReaderId,
        _global_position: i64,
    ) -> Option<(Self::Key, Self::Change)> {
        None
    }

    /// The memory of a change, in units of a usual one.
    fn weight(_change: &Self::Change) -> usize {
        1
    }

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

    /// Writes rows, in the order of their keys, and the changes of dead letters, and moves
    /// the checkpoint to [`BatchRange::checkpoint_after`], atomically. Writes nothing unless
    /// the checkpoint is [`BatchRange::from`].
    fn commit(
        &mut self,
        rows: Vec<(Self::Key, Self::Change)>,
        range: BatchRange,
        dead_letters: &DeadLetterChanges,
    ) -> impl Future<Output = Result<(), CommitError>> + Send;
}

/// The changes of one commit that contains the events, in the order of their keys.
#[must_use]
pub fn fold_all<P: Projection>(events: &[RecordedEvent]) -> Vec<(P::Key, P::Change)> {
    let mut changes: BTreeMap<P::Key, Option<P::Change>> = BTreeMap::new();
    for event in events {
        P::fold(changes.entry(P::key(event)).or_default(), event);
    }
    let changes = changes.into_iter();
    changes
        .filter_map(|(key, change)| Some((key, change?)))
        .collect()
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
    /// No row contains an event after this global position. Rows between the two positions
    /// may lack events that are in the memory of a worker.
    pub written_to: i64,
    /// A random number that each commit, each replay and each removal of old days replaces. A
    /// worker that read its checkpoint before one of them cannot commit after it, because its
    /// rows and its dead letters may be out of date. Not a counter: a crash of Postgres can
    /// lose commits, and two commits would then have the same number.
    pub revision: i64,
}

impl Checkpoint {
    /// A checkpoint of a projection whose rows are never ahead of it.
    #[must_use]
    pub fn at(global_position: i64) -> Self {
        Self {
            global_position,
            written_to: global_position,
            revision: 0,
        }
    }
}

/// The part of the log that a commit completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRange {
    /// The checkpoint before the commit.
    pub from: Checkpoint,
    /// The global position of the checkpoint after the commit: that of the last event before
    /// the first one whose row is not written.
    pub to: i64,
    /// The global position of the last folded event.
    pub written_to: i64,
    /// The revision of the checkpoint after the commit.
    pub revision: i64,
}

/// A revision that no earlier commit has.
#[must_use]
pub fn new_revision() -> i64 {
    uuid::Uuid::new_v4().as_u64_pair().0.cast_signed()
}

impl BatchRange {
    /// The checkpoint after a commit to Postgres.
    #[must_use]
    pub fn checkpoint_after(self) -> Checkpoint {
        Checkpoint {
            global_position: self.to,
            written_to: self.written_to,
            revision: self.revision,
        }
    }
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
