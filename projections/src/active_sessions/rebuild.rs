//! Rebuilds the cache while it is in use: removes wrong entries, and fills in
//! every active session.
//!
//! The cache needs no second copy to swap with. Writes are guarded by version, so
//! the live worker and queries continue, and no entry ever becomes older.

use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use eventlog::read;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::format::Content;
use super::scan::{self, ScannedEntry};
use super::warm_up::fill_cache;
use super::{ActiveSessions, COMMIT_DEADLINE, check, checkpoint, key, script};
use crate::cache::Cache;
use crate::{OperationError, Projection, rebuild};

/// The progress, and in the end the result, of a rebuild or a warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RebuildProgress {
    /// Number of active sessions that are done.
    pub sessions: u64,
    /// Approximate number of all active sessions.
    pub total: u64,
    /// Number of stored entries. Redis had newer entries for the other sessions.
    pub stored: u64,
    /// Number of removed entries, which differed from the log.
    pub removed: u64,
}

/// Rebuilds the cache from the log. If it fails or is stopped, the work done so
/// far is valid; the next call starts again.
pub async fn rebuild(
    cache: &Cache,
    pool: &PgPool,
    progress: &watch::Sender<RebuildProgress>,
    stop: &CancellationToken,
) -> Result<RebuildProgress, OperationError> {
    let lock = rebuild::lock(pool, ActiveSessions::NAME).await?;
    let rebuilt = async {
        remove_mismatches(cache, pool, progress, stop).await?;
        fill_cache(cache, pool, progress, stop).await
    };
    let rebuilt = rebuilt.await;
    rebuild::unlock(lock).await?;
    rebuilt
}

/// Removes entries that differ from the log. Deletes the keys instead of leaving
/// tombstones: the version of a wrong entry may be wrong too, and a tombstone with
/// it could reject the correct entry.
async fn remove_mismatches(
    cache: &Cache,
    pool: &PgPool,
    progress: &watch::Sender<RebuildProgress>,
    stop: &CancellationToken,
) -> Result<(), OperationError> {
    let script = script(include_str!("remove.lua"));
    // Before the scan, since an initialisation removes all entries.
    let checkpoint = checkpoint::read_or_initialise(cache, pool).await?;
    let mut cursor = 0;
    loop {
        if stop.is_cancelled() {
            return Err(OperationError::Stopped);
        }
        let (next, entries) = scan::page(cache, cursor).await?;
        let head = with_deadline(STATEMENT_DEADLINE, read::head(pool)).await?;
        // A version beyond the log would reject all later writes.
        let is_beyond_log = |entry: &&ScannedEntry| {
            let has_no_session = matches!(entry.content, Content::Tombstone | Content::Inactive);
            has_no_session && entry.version > Some(head)
        };
        let mismatches = check::find_mismatches(pool, &entries, checkpoint).await?;
        let mismatches = mismatches.iter().map(|mismatch| mismatch.entry);
        let beyond_log = entries.iter().filter(is_beyond_log);
        let wrong: Vec<&ScannedEntry> = mismatches.chain(beyond_log).collect();
        if !wrong.is_empty() {
            let mut call = script.prepare_invoke();
            for entry in wrong {
                call.key(key(entry.reader_id)).arg(&entry.text);
            }
            let removed: u64 = cache
                .call(COMMIT_DEADLINE, async |mut redis| {
                    call.invoke_async(&mut redis).await
                })
                .await?;
            progress.send_modify(|progress| progress.removed += removed);
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}
