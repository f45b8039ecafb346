//! What comes after a reader is erased in the log, and nobody is shown anything
//! of them any more: Redis forgets them at once, and what the log holds is
//! written over, whoever asked and whatever was killed in the middle.

use domain::ReaderId;
use eventlog::{LogError, erase};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// Readers taken on together.
const READERS: i64 = 100;

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
