//! What comes after a reader is erased in the log, and nobody is shown anything
//! of them any more: Redis forgets them at once, and what the log holds is
//! written over, whoever asked and whatever was killed in the middle.

use domain::ReaderId;
use eventlog::{LogError, erase};
use projections::active_sessions;
use projections::cache::Cache;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// Readers taken on together.
const READERS: i64 = 100;

/// Has Redis know that an erased reader has no active session, if it answers:
/// the projection does the same a moment later. `position` is that of the last
/// event that says so.
pub async fn forget(cache: &Cache, reader_id: ReaderId, position: i64) {
    if let Err(error) = active_sessions::erase(cache, reader_id, position).await {
        tracing::debug!(%error, "an erased reader's entry is left to the projection");
    }
}

/// Writes over what the log holds of a reader who was erased, until there is
/// nothing more or it is to stop. Tells `told` of every piece.
///
/// # Errors
/// [`LogError::Unavailable`]; asking again goes on where it was.
pub async fn finish(
    pool: &PgPool,
    reader_id: ReaderId,
    stop: &CancellationToken,
    mut told: impl FnMut(i64),
) -> Result<(), LogError> {
    let mut more = true;
    while more && !stop.is_cancelled() {
        let events;
        (events, more) = erase::overwrite(pool, reader_id).await?;
        told(events);
    }
    Ok(())
}

/// Finishes what anybody has begun; as [`finish`].
///
/// # Errors
/// [`LogError::Unavailable`]
pub async fn finish_all(
    pool: &PgPool,
    stop: &CancellationToken,
    mut told: impl FnMut(i64),
) -> Result<(), LogError> {
    loop {
        let readers = erase::unfinished(pool, READERS).await?;
        if readers.is_empty() || stop.is_cancelled() {
            return Ok(());
        }
        for reader_id in readers {
            finish(pool, reader_id, stop, &mut told).await?;
        }
    }
}
