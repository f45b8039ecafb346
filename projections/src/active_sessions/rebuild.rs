//! The cache made again while it is in use: what is not as the log has it is
//! removed, and every active session is put in.
//!
//! There is no second cache to swap with, and no need for one: writes are
//! guarded by version, so the live worker and queries go on, and an entry is at
//! no moment older than it was.

use std::time::Instant;

use domain::SessionId;
use eventlog::deadline::within;
use eventlog::fold::Folded;
use eventlog::{claims, fold, read};
use redis::Script;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::scan::{self, Seen};
use super::{
    ActiveSessions, COMMIT_DEADLINE, Change, Entry, FILL_DEADLINE, TTL, Write, check, key, millis,
    position,
};
use crate::cache::Cache;
use crate::projection::{DEADLINE, Projection};
use crate::replay::ReplayError;

/// Sessions that are read and put together; fewer when that takes too long for
/// a fill.
const PAGE: i64 = 256;

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
    // One without a checkpoint is emptied as soon as its worker sees that, at
    // the next event. That must be before.
    ActiveSessions::new(cache.clone(), pool.clone())
        .checkpoint()
        .await?;
    let of = within(DEADLINE, claims::count(pool)).await?;
    progress.send_modify(|rebuilt| rebuilt.of = of.unsigned_abs());
    remove_wrong(cache, pool, progress, stop).await?;
    put_all(cache, pool, progress, stop).await?;
    Ok(*progress.borrow())
}

async fn put_all(
    cache: &Cache,
    pool: &PgPool,
    progress: &watch::Sender<Rebuilt>,
    stop: &CancellationToken,
) -> Result<(), ReplayError> {
    let script = Script::new(include_str!("fill.lua"));
    let mut after = None;
    let mut limit = PAGE;
    loop {
        if stop.is_cancelled() {
            return Err(ReplayError::Stopped);
        }
        let read_at = Instant::now();
        let claims = within(DEADLINE, claims::page(pool, after, limit)).await?;
        let Some((last, _)) = claims.last() else {
            return Ok(());
        };
        let wanted: Vec<(SessionId, i64)> = claims.iter().map(|(_, id)| (*id, i64::MAX)).collect();
        let sessions = within(DEADLINE, fold::sessions(pool, &wanted)).await?;
        let late = read_at.elapsed() > FILL_DEADLINE;
        if late && limit > 1 {
            limit = (limit / 4).max(1);
            continue;
        }
        // A session that alone takes longer than a fill may is left to its events.
        let put = if late {
            0
        } else {
            put(cache, &script, &sessions).await?
        };
        progress.send_modify(|rebuilt| {
            rebuilt.sessions += claims.len() as u64;
            rebuilt.put += put;
        });
        after = Some(*last);
        limit = (limit * 2).min(PAGE);
    }
}

async fn put(cache: &Cache, script: &Script, sessions: &[Folded]) -> Result<u64, ReplayError> {
    let mut call = script.prepare_invoke();
    call.arg(millis(TTL));
    let mut any = false;
    for folded in sessions {
        // One that has ended since its claim was read is not put.
        let session = folded.session.started();
        let Some(session) = session.filter(|session| session.is_active()) else {
            continue;
        };
        let write = Write {
            version: folded.global_position,
            change: Change::of(&Entry {
                session_id: folded.session_id,
                sequence: folded.sequence,
                session: session.clone(),
            }),
        };
        call.key(key(session.start.reader_id));
        write.args(&mut call);
        any = true;
    }
    if !any {
        return Ok(0);
    }
    // As long as any fill takes at most: a cache that is begun waits for it.
    let put = cache
        .call(FILL_DEADLINE, async |mut redis| {
            call.invoke_async(&mut redis).await
        })
        .await?;
    Ok(put)
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
    let checkpoint = position(cache).await?.unwrap_or(0);
    let mut cursor = 0;
    loop {
        if stop.is_cancelled() {
            return Err(ReplayError::Stopped);
        }
        let (next, seen) = scan::page(cache, cursor).await?;
        let head = within(DEADLINE, read::head(pool)).await?;
        // A tombstone of no event keeps out all that comes.
        let ahead = |seen: &&Seen| {
            let version: Result<i64, _> = seen.version.parse();
            seen.tombstone && version.map_or(true, |version| version > head)
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
