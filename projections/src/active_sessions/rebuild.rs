//! The cache made again while it is in use: what is not as the log has it is
//! removed, and every active session is put in.
//!
//! There is no second cache to swap with, and no need for one: writes are
//! guarded by version, so the live worker and queries go on, and an entry is at
//! no moment older than it was.

use eventlog::deadline::with_deadline;
use eventlog::read;
use redis::Script;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::scan::{self, Seen};
use super::warm_up::{alone, put_all};
use super::{COMMIT_DEADLINE, Known, check, key, position_or_begin};
use crate::cache::Cache;
use crate::projection::DEADLINE;
use crate::rebuild::{self, ReplayError};

/// How far a rebuild is, and what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Active sessions looked at.
    pub sessions: u64,
    /// How many there are, about.
    pub of: u64,
    /// Entries put; Redis had the others newer.
    pub put: u64,
    /// Entries removed that were not what the log says.
    pub removed: u64,
}

/// Rebuilds the cache from the log.
///
/// # Errors
/// When Postgres or Redis does not answer, or it was told to stop. What was
/// done is right; beginning anew does no harm.
pub async fn rebuild(
    cache: &Cache,
    pool: &PgPool,
    progress: &watch::Sender<Rebuilt>,
    stop: &CancellationToken,
) -> Result<Rebuilt, ReplayError> {
    let alone = alone(pool).await?;
    let rebuilt = async {
        remove_wrong(cache, pool, progress, stop).await?;
        put_all(cache, pool, progress, stop).await
    };
    let rebuilt = rebuilt.await;
    rebuild::unlock(alone).await?;
    rebuilt
}

/// Removes entries that are not what the log says. Not by a tombstone: their
/// version may be as wrong as the rest, and keep out what is right.
async fn remove_wrong(
    cache: &Cache,
    pool: &PgPool,
    progress: &watch::Sender<Rebuilt>,
    stop: &CancellationToken,
) -> Result<(), ReplayError> {
    let script = Script::new(include_str!("remove.lua"));
    // One without a checkpoint is emptied when it is begun; that must be before.
    let checkpoint = position_or_begin(cache, pool).await?;
    let mut cursor = 0;
    loop {
        if stop.is_cancelled() {
            return Err(ReplayError::Stopped);
        }
        let (next, seen) = scan::page(cache, cursor).await?;
        let head = with_deadline(DEADLINE, read::head(pool)).await?;
        // What has the version of no event keeps out all that comes.
        let ahead = |seen: &&Seen| {
            let version: Result<i64, _> = seen.version.parse();
            let without = seen.tombstone || seen.known == Known::Inactive;
            without && version.map_or(true, |version| version > head)
        };
        let wrong = check::wrong(pool, &seen, checkpoint).await?;
        let wrong = wrong.iter().map(|wrong| wrong.seen);
        let wrong: Vec<&Seen> = wrong.chain(seen.iter().filter(ahead)).collect();
        if !wrong.is_empty() {
            let mut call = script.prepare_invoke();
            for seen in wrong {
                call.key(key(seen.reader_id)).arg(&seen.version);
            }
            let removed: u64 = cache
                .call(COMMIT_DEADLINE, async |mut redis| {
                    call.invoke_async(&mut redis).await
                })
                .await?;
            progress.send_modify(|rebuilt| rebuilt.removed += removed);
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}
