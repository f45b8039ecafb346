//! An entry of the cache, as queries read it and fill it in.

use std::time::Duration;

use domain::session::{Observation, Progress, Session};
use domain::{Position, ReaderId, SessionId};
use redis::{AsyncCommands, Script};

use super::{Change, TTL, Write, key, millis};
use crate::cache::{Cache, CacheError};

/// How long a query waits for Redis before it asks Postgres.
const READ_DEADLINE: Duration = Duration::from_millis(10);

/// A fill that takes longer from its read of Postgres to its write here is
/// not made.
pub const FILL_DEADLINE: Duration = Duration::from_millis(500);

/// What an entry has besides its version.
pub(super) const FIELDS: [&str; 6] = ["id", "sequence", "start", "latest", "furthest", "active_ms"];

/// A reader's active session as Redis has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub session_id: SessionId,
    /// How many events it has.
    pub sequence: i64,
    /// The session.
    pub session: Session,
}

/// What [`FIELDS`] names.
pub(super) type Fields = (
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<i32>,
    Option<i64>,
);

/// A reader's active session; `None` when Redis does not have it, which says
/// nothing of whether there is one.
///
/// # Errors
/// See [`CacheError`].
pub async fn get(cache: &Cache, reader_id: ReaderId) -> Result<Option<Entry>, CacheError> {
    let fields: Fields = cache
        .call(READ_DEADLINE, async |mut redis| {
            redis.hmget(key(reader_id), &FIELDS).await
        })
        .await?;
    Ok(entry(fields))
}

/// What cannot be read is a miss: the next write replaces it.
pub(super) fn entry(fields: Fields) -> Option<Entry> {
    let (id, sequence, start, latest, furthest, active_ms) = fields;
    let latest: Observation = serde_json::from_str(&latest?).ok()?;
    Some(Entry {
        session_id: id?.parse().ok()?,
        sequence: sequence?,
        session: Session {
            start: serde_json::from_str(&start?).ok()?,
            progress: Progress {
                latest,
                furthest_position: Position::from_steps(furthest?).ok()?,
                active_ms: active_ms?,
                ended: None,
            },
        },
    })
}

/// Puts what a miss found in Postgres: `version` is the global position of the
/// session's last event. What is newer stays, an entry or a tombstone. The
/// caller makes sure that no more than [`FILL_DEADLINE`] went by since it read
/// Postgres.
///
/// # Errors
/// See [`CacheError`].
pub async fn fill(cache: &Cache, entry: &Entry, version: i64) -> Result<bool, CacheError> {
    let write = Write {
        version,
        change: Change::of(entry),
    };
    let script = Script::new(include_str!("fill.lua"));
    let mut call = script.prepare_invoke();
    call.key(key(entry.session.start.reader_id))
        .arg(millis(TTL));
    write.args(&mut call);
    cache
        .call(READ_DEADLINE, async |mut redis| {
            call.invoke_async(&mut redis).await
        })
        .await
}
