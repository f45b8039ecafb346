//! Cache entries: how queries read them and fill misses.

use std::sync::LazyLock;
use std::time::Duration;

use domain::session::{SessionProgress, StartedSession};
use domain::{FirstObservation, Observation, Position, ReaderId, SessionId};
use redis::aio::ConnectionManager;
use redis::{AsyncCommands, RedisResult, Script, ScriptInvocation};

use super::checkpoint::PROJECTION_KEY;
use super::write::EntryWrite;
use super::{COMMIT_DEADLINE, ENTRY_TTL, key, millis};
use crate::cache::{Cache, CacheError};

/// The time that a query waits for Redis before it reads Postgres. A healthy Redis
/// responds within a millisecond, but on a saturated machine it takes tens of them. A
/// read of Postgres would then be slower still, and make everything else slower.
const READ_DEADLINE: Duration = Duration::from_millis(100);

/// The maximum Redis time between a miss and its fill. Redis rejects later fills.
/// Far shorter than `TOMBSTONE_TTL`.
const MAX_FILL_AGE: Duration = Duration::from_secs(5);

static FILL: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("entry.lua"), include_str!("fill.lua"))));

static ERASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("entry.lua"),
        include_str!("erase.lua")
    ))
});

/// The fields of an entry.
pub(super) const FIELDS: [&str; 9] = [
    "version",
    "id",
    "sequence",
    "start",
    "latest",
    "furthest",
    "active_ms",
    "first",
    "none",
];

/// An active session in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedSession {
    pub session_id: SessionId,
    /// The sequence of the last event that the entry reflects.
    pub sequence: i64,
    pub session: StartedSession,
}

/// The result of a cache lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheLookup {
    Active(Box<CachedSession>),
    /// The reader has no active session.
    Inactive,
    /// The cache has no usable entry, so the reader may have an active session.
    Miss,
}

/// The Redis time of a miss, in microseconds. Redis checks the age of a fill by
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissedAt(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillResult {
    /// Redis stored this number of entries. Its other entries are newer than the
    /// fill.
    Stored(u64),
    /// Redis stored nothing: the miss is too old, or the cache was initialised
    /// after it.
    TooLate,
}

/// The values of [`FIELDS`].
pub(super) type Fields = (
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<i32>,
    Option<i64>,
    Option<String>,
    Option<i64>,
);

/// Looks up a reader's active session. A result other than a miss includes all
/// events up to `min_position`.
pub async fn get(
    cache: &Cache,
    reader_id: ReaderId,
    min_position: Option<i64>,
) -> Result<CacheLookup, CacheError> {
    let Some(min_position) = min_position else {
        let fields = cache
            .call_if_available(READ_DEADLINE, async |mut redis| {
                redis.hmget(key(reader_id), &FIELDS).await
            })
            .await?;
        return Ok(lookup(fields));
    };
    // The checkpoint is read first, so the entry is at least as new.
    let (checkpoint, fields): (Option<i64>, Fields) = cache
        .call_if_available(READ_DEADLINE, async |mut redis| {
            redis::pipe()
                .hget(PROJECTION_KEY, "checkpoint")
                .hmget(key(reader_id), &FIELDS)
                .query_async(&mut redis)
                .await
        })
        .await?;
    if checkpoint.is_none_or(|checkpoint| checkpoint < min_position) {
        return Ok(CacheLookup::Miss);
    }
    Ok(lookup(fields))
}

/// An entry that cannot be decoded is a miss; the next write replaces it. An entry
/// without a version is a miss too, since `verify` could not compare it with the
/// log.
pub(super) fn lookup(fields: Fields) -> CacheLookup {
    match &fields {
        (None, ..) => return CacheLookup::Miss,
        (.., Some(_none)) => return CacheLookup::Inactive,
        _ => {}
    }
    decode(fields).map_or(CacheLookup::Miss, |cached| {
        CacheLookup::Active(Box::new(cached))
    })
}

fn decode(fields: Fields) -> Option<CachedSession> {
    let (_, id, sequence, start, latest, furthest, active_ms, first, _) = fields;
    let latest: Observation = serde_json::from_str(&latest?).ok()?;
    let first = first.map(|first| serde_json::from_str(&first));
    let first: Option<FirstObservation> = first.transpose().ok()?;
    Some(CachedSession {
        session_id: id?.parse().ok()?,
        sequence: sequence?,
        session: StartedSession {
            start: serde_json::from_str(&start?).ok()?,
            progress: SessionProgress {
                latest,
                first,
                furthest_position: Position::from_steps(furthest?).ok()?,
                active_ms: active_ms?,
                // A correction ends the session.
                active_fixed: false,
                ended: None,
            },
        },
    })
}

/// Returns the current Redis time. A query that missed calls this before it reads
/// Postgres.
pub async fn missed_at(cache: &Cache) -> Result<MissedAt, CacheError> {
    cache.call_if_available(READ_DEADLINE, redis_time).await
}

pub(super) async fn redis_time(mut redis: ConnectionManager) -> RedisResult<MissedAt> {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await?;
    Ok(MissedAt(seconds * 1_000_000 + micros))
}

/// Fills a miss with the result of a read of the log.
///
/// `head` is the global position of the end of the log at the time of the read.
/// `version` is that of the session's last event, or `head` if `active` is `None`. It
/// may be beyond `head`: the session is then as of its own last event.
///
/// Redis keeps an entry or tombstone that is newer than both. If the key is missing,
/// Redis may have evicted one. The fill is then stored only if the projection has not
/// advanced beyond `head`.
pub async fn fill(
    cache: &Cache,
    missed_at: MissedAt,
    reader_id: ReaderId,
    active: Option<&CachedSession>,
    version: i64,
    head: i64,
) -> Result<FillResult, CacheError> {
    let writes = [(reader_id, EntryWrite::new(active, version))];
    // No request waits for a fill, and Redis rejects a late one.
    let call = async |mut redis| {
        fill_call(missed_at, head, DetectEviction::Yes, &writes)
            .invoke_async(&mut redis)
            .await
    };
    Ok(fill_result(cache.call(COMMIT_DEADLINE, call).await?))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("far below 2^64")
}

/// Like [`fill`], for many readers and without the check of the checkpoint. That
/// check protects against eviction, and a Redis that evicts fresh entries is too
/// small for a warm-up anyway. The log was read when it ended at `head` or later.
pub(super) async fn fill_all(
    cache: &Cache,
    missed_at: MissedAt,
    head: i64,
    writes: &[(ReaderId, EntryWrite)],
) -> Result<FillResult, CacheError> {
    let call = async |mut redis| {
        fill_call(missed_at, head, DetectEviction::No, writes)
            .invoke_async(&mut redis)
            .await
    };
    Ok(fill_result(cache.call(COMMIT_DEADLINE, call).await?))
}

/// Removes a reader's entry from Redis after an erasure of sessions. `version` is the
/// global position of the last `SessionErased`, or a later one.
///
/// Leaves a tombstone, because another session of the reader may be active. It stays as
/// long as an entry: a projection that was paused must not write the session again.
///
/// # Errors
/// The entry may still exist. Repeating the call is safe.
pub async fn erase(cache: &Cache, reader_id: ReaderId, version: i64) -> Result<(), CacheError> {
    let call = async |mut redis| {
        let mut erase = ERASE.prepare_invoke();
        erase.key(key(reader_id)).arg(millis(ENTRY_TTL));
        EntryWrite::invalidate(version).push_args(&mut erase);
        erase.invoke_async::<()>(&mut redis).await
    };
    cache.call(COMMIT_DEADLINE, call).await
}

/// Whether a fill of a missing key is rejected if the projection has advanced beyond
/// the log that was read: Redis may have evicted a tombstone.
#[derive(Clone, Copy)]
enum DetectEviction {
    Yes,
    No,
}

fn fill_call(
    missed_at: MissedAt,
    head: i64,
    detect_eviction: DetectEviction,
    writes: &[(ReaderId, EntryWrite)],
) -> ScriptInvocation<'static> {
    let mut call = FILL.prepare_invoke();
    call.key(PROJECTION_KEY);
    call.arg(millis(ENTRY_TTL))
        .arg(missed_at.0)
        .arg(micros(MAX_FILL_AGE))
        .arg(head)
        .arg(match detect_eviction {
            DetectEviction::Yes => 1,
            DetectEviction::No => 0,
        });
    for (reader_id, write) in writes {
        call.key(key(*reader_id));
        write.push_args(&mut call);
    }
    call
}

/// The script returns -1 if the fill is too late.
fn fill_result(stored: i64) -> FillResult {
    u64::try_from(stored).map_or(FillResult::TooLate, FillResult::Stored)
}
