//! Erasures of readers' data. From the moment that one is asked for on, nobody
//! is shown anything of the reader; what the log holds is written over after
//! that, whoever asked and whatever was killed in the middle.

use domain::{ReaderId, Timestamp};
use eventlog::erase::Erased;
use eventlog::{LogError, erase};
use projections::cache::Cache;
use projections::{active_sessions, upkeep};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::maintenance::Job;

/// Readers taken on together.
const READERS: i64 = 100;

/// Erases a reader, also from Redis, where it answers: the projection does the
/// same a moment later.
///
/// # Errors
/// See [`erase::reader`].
pub async fn begin(
    pool: &PgPool,
    cache: Option<&Cache>,
    reader_id: ReaderId,
    erased_at: Timestamp,
) -> Result<Erased, LogError> {
    let erased = erase::reader(pool, reader_id, erased_at).await?;
    if let (Some(cache), Some(position)) = (cache, erased.global_position)
        && let Err(error) = active_sessions::erase(cache, reader_id, position).await
    {
        tracing::debug!(%error, "an erased reader's entry is left to the projection");
    }
    if let Err(error) = upkeep::ask(pool, Job::Erasures.as_str()).await {
        tracing::debug!(%error, "what was erased is written over when upkeep comes to it");
    }
    Ok(erased)
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

/// Finishes what anybody has begun and was cut off at; tells `told` of every
/// piece. Safe in several processes at the same time: what is written over
/// already is passed over.
///
/// # Errors
/// As [`finish`].
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
