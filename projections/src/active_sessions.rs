//! Each reader's active session, in Redis.
//!
//! Entries are guarded by version, the global position of the last event they
//! hold: an older write never replaces a newer one, whoever makes it. A write
//! with nothing to show (an end, or an update of a session that is not here)
//! leaves a tombstone, its version alone, for as long as a slow fill could
//! bring back what was before. The checkpoint stands in Redis too, so losing
//! one is losing both.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::session::{ProgressChange, Session};
use domain::{ReaderId, SessionEvent, SessionId, SessionStarted};
use eventlog::Recorded;
use eventlog::deadline::within;
use eventlog::read;
use redis::{AsyncCommands, Script};
use sqlx::PgPool;

use crate::cache::{Cache, CacheError};
use crate::dead_letter::Letters;
use crate::projection::DEADLINE;
use crate::{CommitError, Projection, Step};

mod check;
mod entry;
mod rebuild;
mod scan;

pub use check::check;
pub use entry::{Entry, FILL_DEADLINE, fill, get};
pub use rebuild::{Rebuilt, rebuild};

/// How long an entry stays without being written.
const TTL: Duration = Duration::from_hours(1);

/// How long a tombstone stays. Far longer than [`FILL_DEADLINE`].
const TOMBSTONE_TTL: Duration = Duration::from_mins(1);

/// After this a fill has arrived in Redis: its deadline, and as long again for
/// a call that nobody waits for any more.
const FILL_OVER: Duration = Duration::from_secs(1);

/// Keys looked at in one call when all entries are.
const SCANNED: usize = 1_000;

/// How long the projection waits for Redis.
const COMMIT_DEADLINE: Duration = Duration::from_secs(2);

const CHECKPOINT: &str = "reading_session:checkpoint";

fn key(reader_id: ReaderId) -> String {
    format!("reading_session:active:{reader_id}")
}

/// The projection.
pub struct ActiveSessions {
    cache: Cache,
    /// The log; to find its head when Redis is empty.
    pool: PgPool,
    commit: Script,
    empty: Script,
}

impl ActiveSessions {
    /// Writes to `cache`.
    #[must_use]
    pub fn new(cache: Cache, pool: PgPool) -> Self {
        Self {
            cache,
            pool,
            commit: Script::new(include_str!("active_sessions/commit.lua")),
            empty: Script::new(include_str!("active_sessions/empty.lua")),
        }
    }
}

/// What a batch does to a reader's entry.
#[derive(Debug)]
pub struct Write {
    version: i64,
    change: Change,
}

#[derive(Debug)]
enum Change {
    /// A session was started: the whole entry is known.
    Put(SessionId, i64, Box<SessionStarted>, ProgressChange),
    /// An entry that is there moves on; one that is not stays away, and so
    /// does what a query read before.
    Update(SessionId, i64, ProgressChange),
    /// The session has ended.
    Remove,
}

impl Change {
    /// The whole of an entry.
    fn of(entry: &Entry) -> Self {
        let Session { start, progress } = &entry.session;
        Self::Put(
            entry.session_id,
            entry.sequence,
            Box::new(start.clone()),
            ProgressChange {
                latest: Some(progress.latest.clone()),
                furthest_position: progress.furthest_position,
                active_ms: progress.active_ms,
                ended: None,
            },
        )
    }
}

impl Projection for ActiveSessions {
    const NAME: &'static str = "active_sessions";

    type Batch = BTreeMap<ReaderId, Write>;

    fn fold(batch: &mut Self::Batch, event: &Recorded) {
        let reader_id = event.event.reader_id();
        let id = event.session_id;
        let sequence = event.sequence;
        let progress = event.event.progress();
        let before = batch.remove(&reader_id).map(|write| write.change);
        let change = match (&event.event, before) {
            (SessionEvent::SessionStarted(start), _) => {
                Change::Put(id, sequence, Box::new(start.clone()), progress)
            }
            (SessionEvent::PositionUpdated(_), Some(Change::Put(of, _, start, before)))
                if of == id =>
            {
                Change::Put(id, sequence, start, before.then(progress))
            }
            (SessionEvent::PositionUpdated(_), Some(Change::Update(of, _, before))) if of == id => {
                Change::Update(id, sequence, before.then(progress))
            }
            // After a removal that is no end, something before it was left out.
            (SessionEvent::SessionEnded(_), _)
            | (SessionEvent::PositionUpdated(_), Some(Change::Remove)) => Change::Remove,
            (SessionEvent::PositionUpdated(_), _) => Change::Update(id, sequence, progress),
        };
        let version = event.global_position;
        batch.insert(reader_id, Write { version, change });
    }

    /// What Redis has may be newer; and what it has not, a query reads from the
    /// log and fills in.
    fn fold_late(batch: &mut Self::Batch, event: &Recorded) {
        Self::leave_out(batch, event.event.reader_id(), event.global_position);
    }

    /// What cannot be told is not shown.
    fn leave_out(batch: &mut Self::Batch, reader_id: ReaderId, position: i64) {
        let write = Write {
            version: position,
            change: Change::Remove,
        };
        batch.insert(reader_id, write);
    }

    fn rows(batch: &Self::Batch) -> usize {
        batch.len()
    }

    async fn checkpoint(&mut self) -> Result<i64, CommitError> {
        loop {
            let position = position(&self.cache).await.map_err(unavailable)?;
            // Read after it: what is ahead of the log is of another log.
            let head = self.head().await?;
            if let Some(position) = position.filter(|position| *position <= head) {
                return Ok(position);
            }
            if let Some(head) = self.begin(position).await? {
                return Ok(head);
            }
        }
    }

    /// A parked letter is written before the step that passes its event, and a
    /// settled one removed after it: a step that is made twice does no harm.
    async fn commit(
        &mut self,
        batch: Self::Batch,
        step: Step,
        letters: &Letters,
    ) -> Result<(), CommitError> {
        if !letters.parked.is_empty() {
            within(DEADLINE, letters.park(&self.pool, Self::NAME)).await?;
        }
        self.write(&batch, step).await?;
        if !letters.settled.is_empty() {
            within(DEADLINE, letters.settle(&self.pool, Self::NAME)).await?;
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
        call.key(CHECKPOINT);
        call.arg(step.from).arg(step.to);
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

    async fn head(&self) -> Result<i64, CommitError> {
        within(DEADLINE, read::head(&self.pool))
            .await
            .map_err(|error| CommitError::Unavailable(Box::new(error)))
    }

    /// A cache without a checkpoint, or with that of another log, is nothing: it
    /// is emptied and begun at the head of the log, and queries fill it. Fills
    /// that read the log before its head was read are over by the time it is
    /// emptied. `None` when somebody else has begun it.
    async fn begin(&self, wrong: Option<i64>) -> Result<Option<i64>, CommitError> {
        let head = self.head().await?;
        tokio::time::sleep(FILL_OVER).await;
        let wrong = wrong.map_or_else(String::new, |position| position.to_string());
        let mut cursor = "0".to_owned();
        loop {
            let mut call = self.empty.prepare_invoke();
            call.key(CHECKPOINT);
            call.arg(&wrong).arg(head).arg(&cursor).arg(SCANNED);
            let next: Option<String> = self
                .cache
                .call(COMMIT_DEADLINE, async |mut redis| {
                    call.invoke_async(&mut redis).await
                })
                .await
                .map_err(unavailable)?;
            match next {
                None => return Ok(None),
                Some(next) if next == "0" => return Ok(Some(head)),
                Some(next) => cursor = next,
            }
        }
    }
}

/// The position that the cache is at.
async fn position(cache: &Cache) -> Result<Option<i64>, CacheError> {
    let get = async |mut redis: redis::aio::ConnectionManager| redis.get(CHECKPOINT).await;
    cache.call(COMMIT_DEADLINE, get).await
}

fn unavailable(error: CacheError) -> CommitError {
    CommitError::Unavailable(Box::new(error))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("far below 2^64")
}

impl Write {
    /// What the script takes for one key.
    fn args(&self, call: &mut redis::ScriptInvocation<'_>) {
        let json =
            |value: &SessionStarted| serde_json::to_string(value).expect("events are plain JSON");
        let (kind, id, sequence, start, progress) = match &self.change {
            Change::Put(id, sequence, start, progress) => (
                "put",
                id.to_string(),
                *sequence,
                json(start),
                Some(progress),
            ),
            Change::Update(id, sequence, progress) => (
                "update",
                id.to_string(),
                *sequence,
                String::new(),
                Some(progress),
            ),
            Change::Remove => ("remove", String::new(), 0, String::new(), None),
        };
        let latest = progress
            .and_then(|progress| progress.latest.as_ref())
            .map(|latest| serde_json::to_string(latest).expect("an observation is plain JSON"))
            .unwrap_or_default();
        call.arg(kind)
            .arg(self.version)
            .arg(id)
            .arg(sequence)
            .arg(start)
            .arg(latest);
        call.arg(progress.map_or(0, |progress| progress.furthest_position.steps()));
        call.arg(progress.map_or(0, |progress| progress.active_ms));
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;
    use domain::event::EndReason;

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
    fn an_end_removes_and_a_next_start_replaces() {
        let mut events = Story::starts(1, Tz::UTC, 0)
            .ends(10, EndReason::Superseded)
            .events();
        let (version, removed) = change(&events);
        assert_eq!(version, 102);
        assert!(matches!(removed, Change::Remove));

        events.extend(Story::starts(2, Tz::UTC, 10).events());
        let (version, replaced) = change(&events);
        assert_eq!(version, 201);
        assert!(matches!(replaced, Change::Put(id, 1, ..) if id == session(2)));
    }
}
