//! Cache entries: how queries read them and fill misses.

use std::sync::LazyLock;
use std::time::Duration;

use domain::session::StartedSession;
use domain::{ReaderId, SessionId};
use redis::aio::ConnectionManager;
use redis::{AsyncCommands, RedisResult, Script, ScriptInvocation};

use super::checkpoint::{self, PROJECTION_KEY};
use super::format::{self, Content};
use super::write::EntryWrite;
use super::{COMMIT_DEADLINE, ENTRY_TTL, key, millis, script};
use crate::cache::{Cache, CacheError};

/// The time that a query waits for Redis before it reads Postgres. A healthy Redis
/// responds within a millisecond, but on a saturated machine it takes tens of them. A
/// read of Postgres would then be slower still, and make everything else slower.
const READ_DEADLINE: Duration = Duration::from_millis(100);

/// The maximum Redis time between a miss and its fill. Redis rejects later fills.
/// Far shorter than `TOMBSTONE_TTL`.
const MAX_FILL_AGE: Duration = Duration::from_secs(5);

static FILL: LazyLock<Script> = LazyLock::new(|| script(include_str!("fill.lua")));

static ERASE: LazyLock<Script> = LazyLock::new(|| script(include_str!("erase.lua")));

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

/// Looks up a reader's active session. A result other than a miss includes all
/// events up to `min_position`.
pub async fn get(
    cache: &Cache,
    reader_id: ReaderId,
    min_position: Option<i64>,
) -> Result<CacheLookup, CacheError> {
    let key = key(reader_id);
    let Some(min_position) = min_position else {
        let [entry] = read(cache, [key.as_str()]).await?;
        return Ok(lookup(entry.as_deref()));
    };
    // One command, so the entry is as new as the checkpoint.
    let [projection, entry] = read(cache, [PROJECTION_KEY, key.as_str()]).await?;
    let checkpoint = projection.as_deref().and_then(checkpoint::decode);
    if checkpoint.is_none_or(|checkpoint| checkpoint < min_position) {
        return Ok(CacheLookup::Miss);
    }
    Ok(lookup(entry.as_deref()))
}

/// Unlike `GET`, `MGET` returns no error for a hash of an earlier release. It counts as
/// missing.
async fn read<const N: usize>(
    cache: &Cache,
    keys: [&str; N],
) -> Result<[Option<Vec<u8>>; N], CacheError> {
    let call = async |mut redis: ConnectionManager| redis.mget(&keys).await;
    cache.call_if_available(READ_DEADLINE, call).await
}

/// The result of a lookup that found this value under the reader's [`key`]. An entry that
/// cannot be decoded is a miss; the next write replaces it.
#[must_use]
pub fn lookup(entry: Option<&[u8]>) -> CacheLookup {
    match entry.map(|entry| format::decode(entry).1) {
        Some(Content::Active(cached)) => CacheLookup::Active(cached),
        Some(Content::Inactive) => CacheLookup::Inactive,
        Some(Content::Tombstone | Content::Invalid) | None => CacheLookup::Miss,
    }
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
