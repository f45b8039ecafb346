//! An entry of the cache, as queries read it and fill it in.

use std::sync::LazyLock;
use std::time::Duration;

use domain::session::{Observation, SessionProgress, StartedSession};
use domain::{Position, ReaderId, SessionId};
use redis::aio::ConnectionManager;
use redis::{AsyncCommands, RedisResult, Script, ScriptInvocation};

use super::checkpoint::PROJECTION;
use super::write::Write;
use super::{COMMIT_DEADLINE, TTL, key, millis};
use crate::cache::{Cache, CacheError};

/// How long a query waits for Redis before it asks Postgres.
const READ_DEADLINE: Duration = Duration::from_millis(10);

/// A fill that takes longer than this from its miss to its write, by Redis's
/// clock, is not made. Far shorter than a tombstone stays.
const FILL_DEADLINE: Duration = Duration::from_secs(5);

static FILL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("fill.lua")));

/// What an entry has.
pub(super) const FIELDS: [&str; 8] = [
    "version",
    "id",
    "sequence",
    "start",
    "latest",
    "furthest",
    "active_ms",
    "none",
];

/// A reader's active session as Redis has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub session_id: SessionId,
    /// How many events it has.
    pub sequence: i64,
    /// The session.
    pub session: StartedSession,
}

/// What Redis knows of a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The active session.
    Active(Box<Entry>),
    /// There is no active session.
    Inactive,
    /// Nothing, which says nothing of whether there is one.
    Unknown,
}

/// When a miss was, in microseconds of Redis's clock. Whoever fills it in says
/// so, and is late if too much may have happened since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed(pub u64);

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// So many entries were taken; Redis has the others newer.
    Taken(u64),
    /// None: it came too long after its miss, or the cache was begun since.
    Late,
}

/// What [`FIELDS`] names.
pub(super) type Fields = (
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<i32>,
    Option<i64>,
    Option<i64>,
);

/// What Redis knows of a reader, if it holds all events up to a position.
///
/// # Errors
/// See [`CacheError`].
pub async fn get(
    cache: &Cache,
    reader_id: ReaderId,
    min_position: Option<i64>,
) -> Result<Known, CacheError> {
    let Some(min_position) = min_position else {
        let fields = cache
            .ask(READ_DEADLINE, async |mut redis| {
                redis.hmget(key(reader_id), &FIELDS).await
            })
            .await?;
        return Ok(known(fields));
    };
    // The checkpoint first: what is read after it is as new at least.
    let (checkpoint, fields): (Option<i64>, Fields) = cache
        .ask(READ_DEADLINE, async |mut redis| {
            redis::pipe()
                .hget(PROJECTION, "checkpoint")
                .hmget(key(reader_id), &FIELDS)
                .query_async(&mut redis)
                .await
        })
        .await?;
    if checkpoint.is_none_or(|checkpoint| checkpoint < min_position) {
        return Ok(Known::Unknown);
    }
    Ok(known(fields))
}

/// What cannot be read is a miss: the next write replaces it. So is what has no
/// version, which `verify` could not compare with the log.
pub(super) fn known(fields: Fields) -> Known {
    match &fields {
        (None, ..) => return Known::Unknown,
        (.., Some(_none)) => return Known::Inactive,
        _ => {}
    }
    entry(fields).map_or(Known::Unknown, |entry| Known::Active(Box::new(entry)))
}

fn entry(fields: Fields) -> Option<Entry> {
    let (_, id, sequence, start, latest, furthest, active_ms, _) = fields;
    let latest: Observation = serde_json::from_str(&latest?).ok()?;
    Some(Entry {
        session_id: id?.parse().ok()?,
        sequence: sequence?,
        session: StartedSession {
            start: serde_json::from_str(&start?).ok()?,
            progress: SessionProgress {
                latest,
                furthest_position: Position::from_steps(furthest?).ok()?,
                active_ms: active_ms?,
                ended: None,
            },
        },
    })
}

/// Takes note of a miss, before Postgres is read.
///
/// # Errors
/// See [`CacheError`].
pub async fn miss(cache: &Cache) -> Result<Missed, CacheError> {
    cache.ask(READ_DEADLINE, now).await
}

pub(super) async fn now(mut redis: ConnectionManager) -> RedisResult<Missed> {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await?;
    Ok(Missed(seconds * 1_000_000 + micros))
}

/// Fills in what a miss found in Postgres: `version` is the global position of
/// the session's last event, or, when there is no active one, `head`, that of the
/// log's end when it was read. What is newer stays, an entry or a tombstone. Where
/// there is neither, it may have been evicted; then nothing is filled in unless
/// the projection has not come beyond what was read.
///
/// # Errors
/// See [`CacheError`].
pub async fn fill(
    cache: &Cache,
    missed: Missed,
    reader_id: ReaderId,
    entry: Option<&Entry>,
    version: i64,
    head: i64,
) -> Result<Filled, CacheError> {
    let writes = [(reader_id, Write::whole(entry, version))];
    // Nobody waits for it, and Redis itself says when it is late.
    let call = async |mut redis| {
        fills(missed, Some(head), &writes)
            .invoke_async(&mut redis)
            .await
    };
    Ok(filled(cache.call(COMMIT_DEADLINE, call).await?))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("far below 2^64")
}

/// As [`fill`], of many at once, and without a look at how far the projection
/// is: what is evicted as fast as it is filled in should not be filled in.
pub(super) async fn fill_all(
    cache: &Cache,
    missed: Missed,
    writes: &[(ReaderId, Write)],
) -> Result<Filled, CacheError> {
    let call = async |mut redis| fills(missed, None, writes).invoke_async(&mut redis).await;
    Ok(filled(cache.call(COMMIT_DEADLINE, call).await?))
}

/// Removes an erased reader's active session from Redis at once. If Redis does
/// not answer, the projection does it a moment later. `version` is the global
/// position of the reader's last `SessionErased`.
pub async fn erase(cache: &Cache, reader_id: ReaderId, version: i64) {
    if let Err(error) = put_tombstone(cache, reader_id, version).await {
        tracing::debug!(%error, "removing an erased reader's cache entry failed; the projection removes it");
    }
}

async fn put_tombstone(cache: &Cache, reader_id: ReaderId, version: i64) -> Result<(), CacheError> {
    let missed = miss(cache).await?;
    let writes = [(reader_id, Write::whole(None, version))];
    let call = async |mut redis| {
        let fills = fills(missed, Some(version), &writes);
        fills.invoke_async::<i64>(&mut redis).await
    };
    cache.ask(READ_DEADLINE, call).await?;
    Ok(())
}

fn fills(
    missed: Missed,
    head: Option<i64>,
    writes: &[(ReaderId, Write)],
) -> ScriptInvocation<'static> {
    let mut call = FILL.prepare_invoke();
    call.key(PROJECTION);
    call.arg(millis(TTL))
        .arg(missed.0)
        .arg(micros(FILL_DEADLINE))
        .arg(head.map_or_else(String::new, |head| head.to_string()));
    for (reader_id, write) in writes {
        call.key(key(*reader_id));
        write.args(&mut call);
    }
    call
}

fn filled(taken: i64) -> Filled {
    u64::try_from(taken).map_or(Filled::Late, Filled::Taken)
}
