//! Each reader's active session, in Redis.
//!
//! Entries are guarded by version, the global position of the last event they
//! hold: an older write never replaces a newer one, whoever makes it. That a
//! reader has no active session is an entry too. A write with nothing to tell
//! (an update of a session that is not here) leaves a tombstone, its version
//! alone, for longer than a fill can come after its miss.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::event::EndReason;
use domain::{ReaderId, SessionEvent};
use eventlog::Recorded;
use eventlog::deadline::with_deadline;
use redis::Script;
use sqlx::PgPool;

use crate::cache::Cache;
use crate::dead_letters::DeadLetterChanges;
use crate::projection::DEADLINE;
use crate::{Checkpoint, CommitError, Projection, Step};

mod write;

mod checkpoint;
mod entry;

mod scan;

mod check;
mod rebuild;
mod warm_up;

pub use check::check;
use checkpoint::{PROJECTION, position, position_or_begin, unavailable};
pub use entry::{Entry, Filled, Known, Missed, erase, fill, get, miss};
pub use rebuild::{Rebuilt, rebuild};
pub use warm_up::warm_up;
use write::Change;
pub use write::Write;

/// How long an entry stays without being written.
const TTL: Duration = Duration::from_hours(1);

/// How long a tombstone stays. Far longer than a fill may come after its miss.
const TOMBSTONE_TTL: Duration = Duration::from_mins(1);

/// Keys looked at in one call when all entries are.
const SCANNED: usize = 1_000;

/// How long the projection waits for Redis.
const COMMIT_DEADLINE: Duration = Duration::from_secs(2);

fn key(reader_id: ReaderId) -> String {
    format!("reading_session:active:{reader_id}")
}

/// The projection.
pub struct ActiveSessions {
    cache: Cache,
    /// The log, to find its head when Redis is empty, and the dead letters.
    pool: PgPool,
    commit: Script,
}

impl ActiveSessions {
    /// Writes to `cache`.
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

    /// Short, and small: a script holds up Redis for as long as it runs, some 6 µs an
    /// entry, and calls wait for 10 ms at most.
    const PACE: Duration = Duration::from_millis(5);
    const MAX_PACE: Duration = Duration::from_millis(50);
    const MAX_STEP: usize = 1_024;

    type Batch = BTreeMap<ReaderId, Write>;

    fn fold(batch: &mut Self::Batch, event: &Recorded) {
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
                Change::Forget
            }
            // It has ended or was erased.
            (SessionEvent::SessionEnded(_), ..) | (_, None, _) => Change::None,
            (_, Some(progress), Some(Change::Put(of, _, start, mut all))) if of == id => {
                all.merge(progress);
                Change::Put(id, sequence, start, all)
            }
            (_, Some(progress), Some(Change::Update(of, _, mut all))) if of == id => {
                all.merge(progress);
                Change::Update(id, sequence, all)
            }
            // Something before it was left out.
            (_, Some(_), Some(Change::Forget)) => Change::Forget,
            (_, Some(progress), _) => Change::Update(id, sequence, progress),
        };
        let version = event.global_position;
        batch.insert(reader_id, Write { version, change });
    }

    /// What Redis has may be newer; and what it has not, a query reads from the
    /// log and fills in.
    fn fold_retried(batch: &mut Self::Batch, event: &Recorded) {
        Self::on_skipped(batch, event.event.reader_id(), event.global_position);
    }

    /// What cannot be told is not shown.
    fn on_skipped(batch: &mut Self::Batch, reader_id: ReaderId, position: i64) {
        let write = Write {
            version: position,
            change: Change::Forget,
        };
        batch.insert(reader_id, write);
    }

    fn rows(batch: &Self::Batch) -> usize {
        batch.len()
    }

    async fn checkpoint(&mut self) -> Result<Checkpoint, CommitError> {
        let position = position_or_begin(&self.cache, &self.pool).await?;
        Ok(Checkpoint::at(position))
    }

    /// An emptied Redis is begun anew also when nothing happens.
    async fn is_at(&mut self, checkpoint: Checkpoint) -> Result<bool, CommitError> {
        let found = checkpoint::position(&self.cache).await;
        Ok(found.map_err(unavailable)? == Some(checkpoint.global_position))
    }

    /// A parked letter is written before the step that passes its event, and a
    /// settled one removed after it: a step that is made twice does no harm.
    async fn commit(
        &mut self,
        batch: Self::Batch,
        step: Step,
        letters: &DeadLetterChanges,
    ) -> Result<(), CommitError> {
        if !letters.parked.is_empty() {
            with_deadline(DEADLINE, letters.park(&self.pool, Self::NAME)).await?;
        }
        self.write(&batch, step).await?;
        if !letters.settled.is_empty() {
            with_deadline(DEADLINE, letters.settle(&self.pool, Self::NAME)).await?;
        }
        if !letters.erased.is_empty() {
            with_deadline(DEADLINE, letters.forget(&self.pool, Self::NAME)).await?;
        }
        Ok(())
    }
}

impl ActiveSessions {
    async fn write(
        &self,
        batch: &BTreeMap<ReaderId, Write>,
        step: Step,
    ) -> Result<(), CommitError> {
        let mut call = self.commit.prepare_invoke();
        call.key(PROJECTION);
        call.arg(step.from.global_position).arg(step.to);
        call.arg(millis(TTL)).arg(millis(TOMBSTONE_TTL));
        for (reader_id, write) in batch {
            call.key(key(*reader_id));
            write.args(&mut call);
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
            Err(CommitError::Moved)
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

    fn change(events: &[Recorded]) -> (i64, Change) {
        let mut batch = folded::<ActiveSessions>(events);
        let write = batch.remove(&reader()).expect("the only reader");
        assert!(batch.is_empty());
        (write.version, write.change)
    }

    #[test]
    fn a_start_in_the_batch_makes_the_whole_entry() {
        let (version, change) = change(&Story::starts(1, Tz::UTC, 0).seen(10, 1).events());
        assert_eq!(version, 102);
        let Change::Put(id, sequence, _, progress) = change else {
            panic!("{change:?}")
        };
        assert_eq!((id, sequence), (session(1), 2));
        assert_eq!(progress.latest.unwrap().position.steps(), 10_000);
    }

    #[test]
    fn updates_alone_only_move_an_entry_that_is_there() {
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
    fn after_an_end_there_is_no_active_session() {
        let events = Story::starts(1, Tz::UTC, 0).ends(10, EndReason::Finished);
        let (version, ended) = change(&events.events());
        assert_eq!(version, 102);
        assert!(matches!(ended, Change::None));
    }

    #[test]
    fn after_an_erasure_there_is_no_active_session() {
        let (version, change) = change(&Story::starts(1, Tz::UTC, 0).seen(5, 1).erased(9).events());
        assert_eq!(version, 103);
        assert!(matches!(change, Change::None));
    }

    #[test]
    fn a_superseded_session_is_forgotten_and_the_next_start_replaces_it() {
        let mut events = Story::starts(1, Tz::UTC, 0)
            .ends(10, EndReason::Superseded)
            .events();
        let (version, removed) = change(&events);
        assert_eq!(version, 102);
        assert!(matches!(removed, Change::Forget));

        events.extend(Story::starts(2, Tz::UTC, 10).events());
        let (version, replaced) = change(&events);
        assert_eq!(version, 201);
        assert!(matches!(replaced, Change::Put(id, 1, ..) if id == session(2)));
    }
}
