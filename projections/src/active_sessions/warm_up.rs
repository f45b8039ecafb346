//! The cache filled with every active session as the log has it: after Redis was
//! emptied, so that the first read of each reader need not ask Postgres.
//!
//! It is a fill of many misses, under the same guards, and rests between its
//! steps: the service goes on meanwhile. One process does it at a time.

use std::time::{Duration, Instant};

use domain::{ReaderId, SessionId};
use eventlog::deadline::within;
use eventlog::fold::Folded;
use eventlog::{claims, fold};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::checkpoint::position_or_begin;
use super::entry::{fill_all, now};
use super::write::Write;
use super::{ActiveSessions, COMMIT_DEADLINE, Entry, Filled, Rebuilt};
use crate::Projection;
use crate::cache::Cache;
use crate::projection::DEADLINE;
use crate::replay::{self, ReplayError};

/// Sessions that are read and put together; fewer when that takes too long for
/// a fill.
const PAGE: i64 = 512;

/// A rest after each page, as a part of the time that it took: Postgres and
/// Redis are there for readers first.
const REST: u32 = 3;

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
    alone.close().await?;
    warm
}

/// Makes sure that nobody else makes the cache, as long as what is returned lives.
pub(super) async fn alone(pool: &PgPool) -> Result<PgConnection, ReplayError> {
    let mut connection = within(DEADLINE, pool.acquire()).await?.detach();
    replay::lock(&mut connection, ActiveSessions::NAME).await?;
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
    let of = within(DEADLINE, claims::count(pool)).await?;
    progress.send_modify(|rebuilt| rebuilt.of = of.unsigned_abs());
    let mut after = None;
    let mut limit = PAGE;
    loop {
        if stop.is_cancelled() {
            return Err(ReplayError::Stopped);
        }
        let began = Instant::now();
        let missed = cache.call(COMMIT_DEADLINE, now).await?;
        let claims = within(DEADLINE, claims::page(pool, after, limit)).await?;
        let Some((last, _)) = claims.last() else {
            return Ok(*progress.borrow());
        };
        let wanted: Vec<(SessionId, i64)> = claims.iter().map(|(_, id)| (*id, i64::MAX)).collect();
        let sessions = within(DEADLINE, fold::sessions(pool, &wanted)).await?;
        let writes: Vec<(ReaderId, Write)> = sessions.iter().filter_map(write).collect();
        let put = match fill_all(cache, COMMIT_DEADLINE, missed, &writes).await? {
            Filled::Taken(put) => put,
            Filled::Late if limit > 1 => {
                limit = (limit / 4).max(1);
                continue;
            }
            // One that alone takes longer than a fill may is left to its events.
            Filled::Late => 0,
        };
        progress.send_modify(|rebuilt| {
            rebuilt.sessions += claims.len() as u64;
            rebuilt.put += put;
        });
        after = Some(*last);
        limit = (limit * 2).min(PAGE);
        let rest = (began.elapsed() / REST).min(MAX_REST);
        let _ = tokio::time::timeout(rest, stop.cancelled()).await;
    }
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
