//! The cache filled with every active session as the log has it: after Redis was
//! emptied, so that the first read of each reader need not ask Postgres.
//!
//! It is a fill of many misses, under the same guards, and rests between its
//! steps: the service goes on meanwhile. One process does it at a time.

use std::time::{Duration, Instant};

use domain::{ReaderId, SessionId};
use eventlog::deadline::with_deadline;
use eventlog::load_state::Folded;
use eventlog::{active_claims, load_state};
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::checkpoint::position_or_begin;
use super::entry::{fill_all, now};
use super::write::Write;
use super::{ActiveSessions, COMMIT_DEADLINE, Entry, Filled, Missed, Rebuilt};
use crate::cache::Cache;
use crate::projection::DEADLINE;
use crate::rebuild::{self, ReplayError};
use crate::{Projection, dead_letters};

/// Sessions that are read together.
const PAGE: i64 = 1_024;

/// Sessions that are put together. A script holds up Redis for as long as it
/// runs, about 20 µs for each, and readers wait for 10 ms at most.
const FILLED: usize = 64;

/// A rest after each page, as a part of the time that it took: Postgres is there
/// for readers first.
const REST: u32 = 4;

/// The longest rest.
const MAX_REST: Duration = Duration::from_millis(100);

/// Fills the cache; what Redis has newer stays.
///
/// # Errors
/// When Postgres or Redis does not answer, or it was told to stop. What was
/// done is right; beginning anew does no harm.
pub async fn warm_up(
    cache: &Cache,
    pool: &PgPool,
    progress: &watch::Sender<Rebuilt>,
    stop: &CancellationToken,
) -> Result<Rebuilt, ReplayError> {
    let alone = alone(pool).await?;
    let warm = put_all(cache, pool, progress, stop).await;
    rebuild::unlock(alone).await?;
    warm
}

/// Makes sure that nobody else makes the cache, as long as what is returned lives.
pub(super) async fn alone(pool: &PgPool) -> Result<PgConnection, ReplayError> {
    let mut connection = with_deadline(DEADLINE, pool.acquire()).await?.detach();
    rebuild::lock(&mut connection, ActiveSessions::NAME).await?;
    Ok(connection)
}

pub(super) async fn put_all(
    cache: &Cache,
    pool: &PgPool,
    progress: &watch::Sender<Rebuilt>,
    stop: &CancellationToken,
) -> Result<Rebuilt, ReplayError> {
    // One without a checkpoint takes no fills, and is emptied when it is begun.
    position_or_begin(cache, pool).await?;
    let of = with_deadline(DEADLINE, active_claims::count(pool)).await?;
    progress.send_modify(|rebuilt| rebuilt.of = of.unsigned_abs());
    let mut page = Page::after(cache, pool, None).await?;
    while let Some(read) = page {
        if stop.is_cancelled() {
            return Err(ReplayError::Stopped);
        }
        // The next one is read while this one is put.
        let next = Page::after(cache, pool, Some(read.last));
        ((), page) = tokio::try_join!(read.put(cache, pool, progress), next)?;
    }
    Ok(*progress.borrow())
}

/// Some active sessions.
struct Page {
    claims: Vec<(ReaderId, SessionId)>,
    last: ReaderId,
    /// When Redis did not have them.
    missed: Missed,
    writes: Vec<(ReaderId, Write)>,
}

impl Page {
    /// Those after a reader; `None` at the end.
    async fn after(
        cache: &Cache,
        pool: &PgPool,
        after: Option<ReaderId>,
    ) -> Result<Option<Self>, ReplayError> {
        let began = Instant::now();
        let claims = with_deadline(DEADLINE, active_claims::page(pool, after, PAGE)).await?;
        let Some(&(last, _)) = claims.last() else {
            return Ok(None);
        };
        let (missed, writes) = read(cache, pool, &claims).await?;
        tokio::time::sleep((began.elapsed() / REST).min(MAX_REST)).await;
        Ok(Some(Self {
            claims,
            last,
            missed,
            writes,
        }))
    }

    /// What comes too late is read once more.
    async fn put(
        self,
        cache: &Cache,
        pool: &PgPool,
        progress: &watch::Sender<Rebuilt>,
    ) -> Result<(), ReplayError> {
        let mut taken = put(cache, self.missed, &self.writes).await?;
        if taken.is_none() {
            let (missed, writes) = read(cache, pool, &self.claims).await?;
            taken = put(cache, missed, &writes).await?;
        }
        let put = taken.ok_or(ReplayError::Late)?;
        progress.send_modify(|rebuilt| {
            rebuilt.sessions += self.claims.len() as u64;
            rebuilt.put += put;
        });
        Ok(())
    }
}

/// Reads some active sessions, after a look at Redis's clock.
async fn read(
    cache: &Cache,
    pool: &PgPool,
    claims: &[(ReaderId, SessionId)],
) -> Result<(Missed, Vec<(ReaderId, Write)>), ReplayError> {
    let missed = cache.call(COMMIT_DEADLINE, now).await?;
    let wanted: Vec<(SessionId, i64)> = claims.iter().map(|(_, id)| (*id, i64::MAX)).collect();
    let sessions = with_deadline(DEADLINE, load_state::sessions(pool, &wanted)).await?;
    // What cannot be told is not shown: of a session, not all events are read.
    let ids: Vec<SessionId> = sessions.iter().map(|folded| folded.session_id).collect();
    let held = dead_letters::held(pool, ActiveSessions::NAME, &ids);
    let held = with_deadline(DEADLINE, held).await?;
    let told = |folded: &&Folded| !held.contains(&folded.session_id.to_string());
    let writes = sessions.iter().filter(told).filter_map(write).collect();
    Ok((missed, writes))
}

/// Puts them, a few at a time; tells how many were taken, or nothing when they
/// came too late.
async fn put(
    cache: &Cache,
    missed: Missed,
    writes: &[(ReaderId, Write)],
) -> Result<Option<u64>, ReplayError> {
    let mut put = 0;
    for writes in writes.chunks(FILLED) {
        match fill_all(cache, missed, writes).await? {
            Filled::Taken(taken) => put += taken,
            Filled::Late => return Ok(None),
        }
    }
    Ok(Some(put))
}

/// One that has ended since its claim was read is not put.
fn write(folded: &Folded) -> Option<(ReaderId, Write)> {
    let session = folded.session.started();
    let session = session.filter(|session| session.is_active())?;
    let entry = Entry {
        session_id: folded.session_id,
        sequence: folded.sequence,
        session: session.clone(),
    };
    let write = Write::whole(Some(&entry), folded.global_position);
    Some((session.start.reader_id, write))
}
