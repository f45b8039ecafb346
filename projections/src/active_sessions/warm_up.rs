//! Fills the cache with every active session of the log. After Redis lost its
//! data, the first query of each reader then needs no read of Postgres.
//!
//! A warm-up fills many misses under the same guards as a query does. It pauses
//! between batches, so that requests keep their share of Postgres. One process at
//! a time runs it.

use std::time::{Duration, Instant};

use domain::{ReaderId, SessionId};
use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use eventlog::load_state::LoadedSession;
use eventlog::{active_claims, load_state, read};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::entry::{fill_all, redis_time};
use super::write::EntryWrite;
use super::{
    ActiveSessions, COMMIT_DEADLINE, CachedSession, FillResult, MissedAt, RebuildProgress,
    checkpoint,
};
use crate::cache::Cache;
use crate::{OperationError, Projection, dead_letters, rebuild};

/// The number of sessions that are read together.
const READ_BATCH_SIZE: i64 = 1_024;

/// The number of sessions that one script call stores. A script blocks Redis
/// while it runs, about 20 µs per session, and queries wait for at most 100 ms.
const FILL_BATCH_SIZE: usize = 64;

/// The pause after a read is the time of the read divided by this, since Postgres
/// serves readers first.
const PAUSE_DIVISOR: u32 = 4;

const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Fills the cache. Newer entries stay. If it fails or is stopped, the work done
/// so far is valid; the next call starts again.
pub async fn warm_up(
    cache: &Cache,
    pool: &PgPool,
    progress: &watch::Sender<RebuildProgress>,
    stop: &CancellationToken,
) -> Result<RebuildProgress, OperationError> {
    let lock = rebuild::lock(pool, ActiveSessions::NAME).await?;
    let result = fill_cache(cache, pool, progress, stop).await;
    rebuild::unlock(lock).await?;
    result
}

pub(super) async fn fill_cache(
    cache: &Cache,
    pool: &PgPool,
    progress: &watch::Sender<RebuildProgress>,
    stop: &CancellationToken,
) -> Result<RebuildProgress, OperationError> {
    // Before the fills: a cache without a checkpoint rejects fills, and its
    // initialisation removes all entries.
    checkpoint::read_or_initialise(cache, pool).await?;
    let total = with_deadline(STATEMENT_DEADLINE, active_claims::count(pool)).await?;
    progress.send_modify(|progress| progress.total = total.unsigned_abs());
    let mut batch = Batch::read_after(cache, pool, None).await?;
    while let Some(current) = batch {
        if stop.is_cancelled() {
            return Err(OperationError::Stopped);
        }
        // Reads the next batch while this one is stored.
        let next = Batch::read_after(cache, pool, Some(current.last_reader));
        ((), batch) = tokio::try_join!(current.store(cache, pool, progress), next)?;
    }
    Ok(*progress.borrow())
}

struct Batch {
    claims: Vec<(ReaderId, SessionId)>,
    last_reader: ReaderId,
    sessions: ReadSessions,
}

/// Active sessions of the log, and when they were read.
struct ReadSessions {
    missed_at: MissedAt,
    /// The global position of the end of the log before the read.
    head: i64,
    writes: Vec<(ReaderId, EntryWrite)>,
}

impl Batch {
    /// Reads the active sessions of the readers after `after`. Returns `None` at
    /// the end.
    async fn read_after(
        cache: &Cache,
        pool: &PgPool,
        after: Option<ReaderId>,
    ) -> Result<Option<Self>, OperationError> {
        let began = Instant::now();
        let claims = active_claims::page(pool, after, READ_BATCH_SIZE);
        let claims = with_deadline(STATEMENT_DEADLINE, claims).await?;
        let Some(&(last_reader, _)) = claims.last() else {
            return Ok(None);
        };
        let sessions = read_sessions(cache, pool, &claims).await?;
        tokio::time::sleep((began.elapsed() / PAUSE_DIVISOR).min(MAX_PAUSE)).await;
        Ok(Some(Self {
            claims,
            last_reader,
            sessions,
        }))
    }

    /// Stores the batch. If the fill is too late, reads and stores it once more.
    async fn store(
        self,
        cache: &Cache,
        pool: &PgPool,
        progress: &watch::Sender<RebuildProgress>,
    ) -> Result<(), OperationError> {
        let mut stored = store(cache, &self.sessions).await?;
        if stored.is_none() {
            let sessions = read_sessions(cache, pool, &self.claims).await?;
            stored = store(cache, &sessions).await?;
        }
        let stored = stored.ok_or(OperationError::CacheTooSlow)?;
        progress.send_modify(|progress| {
            progress.sessions += self.claims.len() as u64;
            progress.stored += stored;
        });
        Ok(())
    }
}

/// Reads the current Redis time and the end of the log, and then active sessions.
async fn read_sessions(
    cache: &Cache,
    pool: &PgPool,
    claims: &[(ReaderId, SessionId)],
) -> Result<ReadSessions, OperationError> {
    let missed_at = cache.call(COMMIT_DEADLINE, redis_time).await?;
    let head = with_deadline(STATEMENT_DEADLINE, read::head(pool)).await?;
    let sequences: Vec<(SessionId, i64)> = claims.iter().map(|(_, id)| (*id, i64::MAX)).collect();
    let sessions = load_state::sessions(pool, &sequences);
    let sessions = with_deadline(STATEMENT_DEADLINE, sessions).await?;
    // A load reads a few events of each session only. It can succeed although the
    // session has an event that cannot be applied, and then its state is wrong.
    let ids: Vec<SessionId> = sessions.iter().map(|session| session.session_id).collect();
    let blocked = dead_letters::sessions_with_dead_letters(pool, ActiveSessions::NAME, &ids);
    let blocked = with_deadline(STATEMENT_DEADLINE, blocked).await?;
    let writes = sessions
        .iter()
        .filter(|session| !blocked.contains(&session.session_id.to_string()))
        .filter_map(entry_write)
        .collect();
    Ok(ReadSessions {
        missed_at,
        head,
        writes,
    })
}

/// Stores entries in small script calls. Returns the number of stored entries, or
/// `None` if a call was too late.
async fn store(cache: &Cache, sessions: &ReadSessions) -> Result<Option<u64>, OperationError> {
    let mut stored = 0;
    for writes in sessions.writes.chunks(FILL_BATCH_SIZE) {
        match fill_all(cache, sessions.missed_at, sessions.head, writes).await? {
            FillResult::Stored(count) => stored += count,
            FillResult::TooLate => return Ok(None),
        }
    }
    Ok(Some(stored))
}

/// Returns `None` if the session has ended since its active-session claim was read.
fn entry_write(loaded: &LoadedSession) -> Option<(ReaderId, EntryWrite)> {
    let session = loaded.session.started();
    let session = session.filter(|session| session.is_active())?;
    let cached = CachedSession {
        session_id: loaded.session_id,
        sequence: loaded.sequence,
        session: session.clone(),
    };
    let write = EntryWrite::new(Some(&cached), loaded.global_position);
    Some((session.start.reader_id, write))
}
