//! Each reader's active session, cached in Redis.
//!
//! The version of an entry is the global position of its last event. No process
//! replaces an entry with an older version. The absence of an active session is
//! an entry too.
//!
//! An update of a session that is not cached has too little data for an entry. It
//! leaves a tombstone: a version only. So does the end of a session while the reader
//! has no entry. A tombstone lives longer than a fill may take after its miss.
//!
//! Sessions that are not active have events too: late observations, ends by the reader
//! and erasures. They never change the entry of another session, which is the active one.

use std::time::Duration;

use domain::ReaderId;
use eventlog::RecordedEvent;
use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use redis::Script;
use sqlx::PgPool;

use crate::cache::Cache;
use crate::dead_letters::DeadLetterChanges;
use crate::{BatchRange, Checkpoint, CommitError, Projection};

mod write;

mod unreadable;

mod checkpoint;
mod entry;
mod format;

mod scan;

mod check;
mod rebuild;
mod warm_up;

pub use check::check;
use checkpoint::{PROJECTION_KEY, unavailable};
pub use entry::{
    CacheLookup, CachedSession, FillResult, MissedAt, erase, fill, get, lookup, missed_at,
};
pub use rebuild::{RebuildProgress, rebuild};
pub use warm_up::warm_up;
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

/// The Redis key of a reader's entry.
#[must_use]
pub fn key(reader_id: ReaderId) -> String {
    format!("reading_session:active:{reader_id}")
}

/// A script with the functions of `entry.lua`.
fn script(code: &str) -> Script {
    Script::new(&[include_str!("active_sessions/entry.lua"), code].concat())
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
            commit: script(include_str!("active_sessions/commit.lua")),
        }
    }
}

impl Projection for ActiveSessions {
    const NAME: &'static str = "active_sessions";
    const STORE: &'static str = "redis";

    // A read must not be older than some milliseconds.
    const COALESCES: bool = false;

    // Short intervals and small batches: a script blocks Redis while it runs, about 6 µs
    // per entry, and queries wait for it. A minimum below 20 ms costs Redis more for each
    // entry (decision 0027), because fewer entries share a commit.
    const MIN_BATCH_INTERVAL: Duration = Duration::from_millis(20);
    const MAX_BATCH_INTERVAL: Duration = Duration::from_millis(50);
    const MAX_COMMIT_ROWS: usize = 1_024;

    type Key = ReaderId;
    type Change = EntryWrite;

    fn key(event: &RecordedEvent) -> ReaderId {
        event.event.reader_id()
    }

    fn fold(change: &mut Option<EntryWrite>, event: &RecordedEvent) {
        *change = EntryWrite::with_event(change.take(), event);
    }

    /// Invalidates the entry: a later event may be in the cache already. The next
    /// query reads the session from the log.
    fn fold_retried(event: &RecordedEvent) -> Option<(ReaderId, EntryWrite)> {
        Self::on_skipped(event.event.reader_id(), event.global_position)
    }

    /// Invalidates the entry, since the state after the skipped event is unknown.
    fn on_skipped(reader_id: ReaderId, global_position: i64) -> Option<(ReaderId, EntryWrite)> {
        Some((reader_id, EntryWrite::invalidate(global_position)))
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
        mut rows: Vec<(ReaderId, EntryWrite)>,
        range: BatchRange,
        dead_letters: &DeadLetterChanges,
    ) -> Result<(), CommitError> {
        let (pool, name) = (&self.pool, Self::NAME);
        with_deadline(STATEMENT_DEADLINE, dead_letters.park(pool, name)).await?;
        rows.extend(unreadable::invalidations(pool, &dead_letters.parked, range.to).await?);
        self.write(&rows, range).await?;
        with_deadline(STATEMENT_DEADLINE, dead_letters.resolve(pool, name)).await?;
        with_deadline(STATEMENT_DEADLINE, dead_letters.delete_erased(pool, name)).await
    }
}

impl ActiveSessions {
    async fn write(
        &self,
        rows: &[(ReaderId, EntryWrite)],
        range: BatchRange,
    ) -> Result<(), CommitError> {
        let mut call = self.commit.prepare_invoke();
        call.key(PROJECTION_KEY);
        call.arg(range.from.global_position).arg(range.to);
        call.arg(millis(ENTRY_TTL)).arg(millis(TOMBSTONE_TTL));
        for (reader_id, write) in rows {
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
    use domain::event::EndReason;
    use domain::{SessionId, Standing};

    use super::write::{Change, NextActive};
    use super::*;
    use crate::testing::{Story, at, folded, reader, session};

    fn change(events: &[RecordedEvent]) -> (i64, Change) {
        let mut batch = folded::<ActiveSessions>(events);
        let write = batch.remove(&reader()).expect("the only reader");
        assert!(batch.is_empty());
        (write.version, write.change)
    }

    /// The kind of a change and its session.
    fn kind(events: &[RecordedEvent]) -> (&'static str, Option<SessionId>) {
        match change(events).1 {
            Change::Put(id, ..) => ("put", Some(id)),
            Change::Update(id, ..) => ("update", Some(id)),
            Change::End(id, NextActive::None) => ("end", Some(id)),
            Change::End(id, NextActive::Other) => ("supersede", Some(id)),
            Change::Inactive => ("none", None),
            Change::Invalidate => ("invalidate", None),
        }
    }

    /// Some events of several sessions, in the order of the log.
    fn in_order(events: &[&RecordedEvent]) -> Vec<RecordedEvent> {
        let events = (1..).zip(events.iter().copied().cloned());
        events
            .map(|(global_position, event)| RecordedEvent {
                global_position,
                ..event
            })
            .collect()
    }

    #[test]
    fn start_in_the_batch_writes_a_whole_entry() {
        let (version, change) = change(&Story::starts(1, "UTC", 0).seen(10, 1).events());
        assert_eq!(version, 102);
        let Change::Put(id, sequence, _, progress) = change else {
            panic!("{change:?}")
        };
        assert_eq!((id, sequence), (session(1), 2));
        assert_eq!(progress.latest.unwrap().position.steps(), 10_000);
        assert_eq!(progress.first, None);
    }

    #[test]
    fn updates_without_a_start_change_an_existing_entry() {
        let events = Story::starts(1, "UTC", 0)
            .seen(10, 1)
            .seen(20, 2)
            .seen_late(-5, 9)
            .events();
        let (version, change) = change(&events[1..]);
        assert_eq!(version, 104);
        let Change::Update(id, sequence, progress) = change else {
            panic!("{change:?}")
        };
        assert_eq!((id, sequence), (session(1), 4));
        assert_eq!(progress.latest.unwrap().position.steps(), 20_000);
        assert_eq!(progress.furthest_position.steps(), 90_000);
        assert_eq!(progress.first.map(|first| first.at), Some(at(-5)));
    }

    #[test]
    fn end_of_the_active_session_writes_an_inactive_entry() {
        let finished = Story::starts(1, "UTC", 0).seen(5, 1).ends(10).events();
        let idle = Story::starts(1, "UTC", 0)
            .seen(5, 1)
            .deactivates(EndReason::Idle)
            .events();
        let erased = Story::starts(1, "UTC", 0).seen(5, 1).erased(9).events();
        for events in [finished, idle, erased] {
            assert_eq!(change(&events).0, 103);
            assert_eq!(kind(&events), ("none", None));
            assert_eq!(kind(&events[1..]), ("none", None));
        }
    }

    #[test]
    fn end_depends_on_the_entry_if_the_active_session_is_unknown() {
        let one = Some(session(1));
        let ended = Story::starts(1, "UTC", 0).ends(10).events();
        assert_eq!(kind(&ended[1..]), ("end", one));
        let corrected = Story::starts(1, "UTC", 0)
            .ends(10)
            .corrected(Some(20), None, None)
            .events();
        assert_eq!(kind(&corrected[1..]), ("end", one));
        let superseded = Story::starts(1, "UTC", 0)
            .deactivates(EndReason::Superseded)
            .ends(10)
            .erased(20)
            .events();
        for end in 2..=4 {
            assert_eq!(kind(&superseded[1..end]), ("supersede", one));
        }
        let late = Story::starts_as(Standing::Superseded, 1, "UTC", 0)
            .seen_as(Standing::Superseded, 10, 1)
            .events();
        assert_eq!(kind(&late[1..]), ("supersede", one));
    }

    #[test]
    fn superseded_session_is_invalidated_until_the_next_start() {
        let mut events = Story::starts(1, "UTC", 0)
            .deactivates(EndReason::Superseded)
            .events();
        let (version, invalidated) = change(&events);
        assert_eq!(version, 102);
        assert!(matches!(invalidated, Change::Invalidate));

        events.extend(Story::starts(2, "UTC", 10).events());
        let (version, replaced) = change(&events);
        assert_eq!(version, 201);
        assert!(matches!(replaced, Change::Put(id, 1, ..) if id == session(2)));
    }

    #[test]
    fn start_of_a_session_that_is_not_active_writes_nothing() {
        let past = Story::starts_as(Standing::Superseded, 1, "UTC", 0).events();
        assert!(folded::<ActiveSessions>(&past).is_empty());
    }

    #[test]
    fn other_sessions_keep_the_write_of_the_active_one() {
        let active = Story::starts(1, "UTC", 100).seen(110, 1).events();
        let past = Story::starts_as(Standing::Superseded, 2, "UTC", 0)
            .seen_as(Standing::Superseded, 10, 1)
            .ends(20)
            .erased(200)
            .events();
        for kept in [&active[..], &active[1..]] {
            let events: Vec<&RecordedEvent> = kept.iter().chain(&past).collect();
            let (version, change) = change(&in_order(&events));
            assert_eq!(version, i64::try_from(kept.len()).unwrap());
            let (Change::Put(id, 2, ..) | Change::Update(id, 2, _)) = change else {
                panic!("{change:?}")
            };
            assert_eq!(id, session(1));
        }
    }

    #[test]
    fn active_session_is_updated_after_the_end_of_another() {
        let active = Story::starts(1, "UTC", 0).seen(100, 1).events();
        let past = Story::starts(2, "UTC", 10)
            .deactivates(EndReason::Superseded)
            .ends(20)
            .events();
        let events = in_order(&[&past[2], &active[1]]);
        assert_eq!(change(&events).0, 2);
        assert_eq!(kind(&events), ("update", Some(session(1))));
    }

    #[test]
    fn session_that_is_active_again_is_read_from_the_log() {
        let story = Story::starts(1, "UTC", 0)
            .deactivates(EndReason::Idle)
            .resumes(20, 1)
            .events();
        assert_eq!(kind(&story), ("invalidate", None));
        assert_eq!(kind(&story[1..]), ("invalidate", None));
        assert_eq!(kind(&story[2..]), ("update", Some(session(1))));
    }

    #[test]
    fn ends_of_several_sessions_invalidate_the_entry() {
        let one = Story::starts(1, "UTC", 0).ends(10).events();
        let two = Story::starts(2, "UTC", 0).ends(10).events();
        assert_eq!(kind(&in_order(&[&one[1], &two[1]])), ("invalidate", None),);
        // None of them is active after the end of the active one.
        assert_eq!(
            kind(&in_order(&[&one[0], &one[1], &two[1]])),
            ("none", None),
        );
    }
}
