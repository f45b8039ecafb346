//! Each reader's active session, cached in Redis.
//!
//! The version of an entry is the global position of its last event. No process
//! replaces an entry with an older version. The absence of an active session is
//! an entry too.
//!
//! An update of a session that is not cached has too little data for an entry. It
//! leaves a tombstone: a version only. A tombstone lives longer than a fill may
//! take after its miss.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::event::EndReason;
use domain::{ReaderId, SessionEvent};
use eventlog::RecordedEvent;
use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use redis::Script;
use sqlx::PgPool;

use crate::cache::Cache;
use crate::dead_letters::DeadLetterChanges;
use crate::{BatchRange, Checkpoint, CommitError, Projection};

mod write;

mod checkpoint;
mod entry;

mod scan;

mod check;
mod rebuild;
mod warm_up;

pub use check::check;
use checkpoint::{PROJECTION_KEY, unavailable};
pub use entry::{CacheLookup, CachedSession, FillResult, MissedAt, erase, fill, get, missed_at};
pub use rebuild::{RebuildProgress, rebuild};
pub use warm_up::warm_up;
use write::Change;
pub use write::EntryWrite;

/// The time after which Redis removes an entry that is not written again.
const ENTRY_TTL: Duration = Duration::from_hours(1);

/// The time after which Redis removes a tombstone. Far longer than
/// `entry::MAX_FILL_AGE`.
const TOMBSTONE_TTL: Duration = Duration::from_mins(1);

/// The `COUNT` of a `SCAN` over all entries.
const SCAN_COUNT: usize = 1_000;

/// The deadline for calls to Redis that no request waits for.
const COMMIT_DEADLINE: Duration = Duration::from_secs(2);

fn key(reader_id: ReaderId) -> String {
    format!("reading_session:active:{reader_id}")
}

pub struct ActiveSessions {
    cache: Cache,
    /// For the head of the log when Redis is empty, and for dead letters.
    pool: PgPool,
    commit: Script,
}

impl ActiveSessions {
    #[must_use]
    pub fn new(cache: Cache, pool: PgPool) -> Self {
        Self {
            cache,
            pool,
            commit: Script::new(include_str!("active_sessions/commit.lua")),
        }
    }
}

impl Projection for ActiveSessions {
    const NAME: &'static str = "active_sessions";

    // Short intervals and small batches: a script blocks Redis while it runs, about 6 µs
    // per entry, and queries wait for at most 10 ms.
    const MIN_BATCH_INTERVAL: Duration = Duration::from_millis(5);
    const MAX_BATCH_INTERVAL: Duration = Duration::from_millis(50);
    const MAX_BATCH_EVENTS: usize = 1_024;

    type Batch = BTreeMap<ReaderId, EntryWrite>;

    fn fold(batch: &mut Self::Batch, event: &RecordedEvent) {
        let reader_id = event.event.reader_id();
        let id = event.session_id;
        let sequence = event.sequence;
        let before = batch.remove(&reader_id).map(|write| write.change);
        let progress = event.event.progress_change();
        let change = match (&event.event, progress, before) {
            (SessionEvent::SessionStarted(start), Some(progress), _) => {
                Change::Put(id, sequence, Box::new(start.clone()), progress)
            }
            // The start of the next session follows.
            (SessionEvent::SessionEnded(end), ..) if end.reason == EndReason::Superseded => {
                Change::Invalidate
            }
            // Only an erasure has no progress.
            (SessionEvent::SessionEnded(_), ..) | (_, None, _) => Change::Inactive,
            (_, Some(progress), Some(Change::Put(session_id, _, start, mut merged)))
                if session_id == id =>
            {
                merged.merge(progress);
                Change::Put(id, sequence, start, merged)
            }
            (_, Some(progress), Some(Change::Update(session_id, _, mut merged)))
                if session_id == id =>
            {
                merged.merge(progress);
                Change::Update(id, sequence, merged)
            }
            // The batch skipped an earlier event of the reader.
            (_, Some(_), Some(Change::Invalidate)) => Change::Invalidate,
            (_, Some(progress), _) => Change::Update(id, sequence, progress),
        };
        let version = event.global_position;
        batch.insert(reader_id, EntryWrite { version, change });
    }

    /// Invalidates the entry: a later event may be in the cache already. The next
    /// query reads the session from the log.
    fn fold_retried(batch: &mut Self::Batch, event: &RecordedEvent) {
        Self::on_skipped(batch, event.event.reader_id(), event.global_position);
    }

    /// Invalidates the entry, since the state after the skipped event is unknown.
    fn on_skipped(batch: &mut Self::Batch, reader_id: ReaderId, global_position: i64) {
        let write = EntryWrite {
            version: global_position,
            change: Change::Invalidate,
        };
        batch.insert(reader_id, write);
    }

    fn rows(batch: &Self::Batch) -> usize {
        batch.len()
    }

    async fn checkpoint(&mut self) -> Result<Checkpoint, CommitError> {
        let checkpoint = checkpoint::read_or_initialise(&self.cache, &self.pool).await?;
        Ok(Checkpoint::at(checkpoint))
    }

    /// A Redis that lost its data has no checkpoint. The worker then initialises it
    /// again, even if no event arrives.
    async fn is_at(&mut self, checkpoint: Checkpoint) -> Result<bool, CommitError> {
        let found = checkpoint::read(&self.cache).await;
        Ok(found.map_err(unavailable)? == Some(checkpoint.global_position))
    }

    /// Redis and Postgres share no transaction. The dead letters of skipped events
    /// are stored before the commit, and resolved ones are deleted after it. A commit
    /// that is repeated after a failure therefore loses nothing.
    async fn commit(
        &mut self,
        batch: Self::Batch,
        range: BatchRange,
        dead_letters: &DeadLetterChanges,
    ) -> Result<(), CommitError> {
        let (pool, name) = (&self.pool, Self::NAME);
        with_deadline(STATEMENT_DEADLINE, dead_letters.park(pool, name)).await?;
        self.write(&batch, range).await?;
        with_deadline(STATEMENT_DEADLINE, dead_letters.resolve(pool, name)).await?;
        with_deadline(STATEMENT_DEADLINE, dead_letters.delete_erased(pool, name)).await
    }
}

impl ActiveSessions {
    async fn write(
        &self,
        batch: &BTreeMap<ReaderId, EntryWrite>,
        range: BatchRange,
    ) -> Result<(), CommitError> {
        let mut call = self.commit.prepare_invoke();
        call.key(PROJECTION_KEY);
        call.arg(range.from.global_position).arg(range.to);
        call.arg(millis(ENTRY_TTL)).arg(millis(TOMBSTONE_TTL));
        for (reader_id, write) in batch {
            call.key(key(*reader_id));
            write.push_args(&mut call);
        }
        let moved: bool = self
            .cache
            .call(COMMIT_DEADLINE, async |mut redis| {
                call.invoke_async(&mut redis).await
            })
            .await
            .map_err(unavailable)?;
        if moved {
            Ok(())
        } else {
            Err(CommitError::CheckpointMoved)
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("far below 2^64")
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::*;
    use crate::testing::{Story, folded, reader, session};

    fn change(events: &[RecordedEvent]) -> (i64, Change) {
        let mut batch = folded::<ActiveSessions>(events);
        let write = batch.remove(&reader()).expect("the only reader");
        assert!(batch.is_empty());
        (write.version, write.change)
    }

    #[test]
    fn start_in_the_batch_writes_a_whole_entry() {
        let (version, change) = change(&Story::starts(1, Tz::UTC, 0).seen(10, 1).events());
        assert_eq!(version, 102);
        let Change::Put(id, sequence, _, progress) = change else {
            panic!("{change:?}")
        };
        assert_eq!((id, sequence), (session(1), 2));
        assert_eq!(progress.latest.unwrap().position.steps(), 10_000);
    }

    #[test]
    fn updates_without_a_start_change_an_existing_entry() {
        let events = Story::starts(1, Tz::UTC, 0)
            .seen(10, 1)
            .seen(20, 2)
            .seen_late(15, 9)
            .events();
        let (version, change) = change(&events[1..]);
        assert_eq!(version, 104);
        let Change::Update(id, sequence, progress) = change else {
            panic!("{change:?}")
        };
        assert_eq!((id, sequence), (session(1), 4));
        assert_eq!(progress.latest.unwrap().position.steps(), 20_000);
        assert_eq!(progress.furthest_position.steps(), 90_000);
    }

    #[test]
    fn end_writes_an_inactive_entry() {
        let events = Story::starts(1, Tz::UTC, 0).ends(10, EndReason::Finished);
        let (version, ended) = change(&events.events());
        assert_eq!(version, 102);
        assert!(matches!(ended, Change::Inactive));
    }

    #[test]
    fn erasure_writes_an_inactive_entry() {
        let (version, change) = change(&Story::starts(1, Tz::UTC, 0).seen(5, 1).erased(9).events());
        assert_eq!(version, 103);
        assert!(matches!(change, Change::Inactive));
    }

    #[test]
    fn superseded_session_is_invalidated_until_the_next_start() {
        let mut events = Story::starts(1, Tz::UTC, 0)
            .ends(10, EndReason::Superseded)
            .events();
        let (version, invalidated) = change(&events);
        assert_eq!(version, 102);
        assert!(matches!(invalidated, Change::Invalidate));

        events.extend(Story::starts(2, Tz::UTC, 10).events());
        let (version, replaced) = change(&events);
        assert_eq!(version, 201);
        assert!(matches!(replaced, Change::Put(id, 1, ..) if id == session(2)));
    }
}
