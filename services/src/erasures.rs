//! Erasures of readers' data. From the moment that one is asked for on, nobody
//! is shown anything of the reader; what the log holds is written over after
//! that, whoever asked and whatever was killed in the middle.

use std::time::Duration;

use domain::{ReaderId, Timestamp};
use eventlog::erase::Erased;
use eventlog::{LogError, erase};
use projections::active_sessions;
use projections::cache::Cache;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// How often it is looked for what is still to be written over.
const EVERY: Duration = Duration::from_secs(5);

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

/// Finishes what anybody has begun, until `shutdown`. Safe in several processes
/// at the same time: what is written over already is passed over.
pub async fn run(pool: PgPool, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match finish_all(&pool, &shutdown).await {
            Ok(0) => {}
            // Not whose: who was erased is not to be read in the log.
            Ok(events) => tracing::info!(events, "events of erased sessions were written over"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "events of erased sessions were not written over; they are tried again"
            ),
        }
        let _ = tokio::time::timeout(EVERY, shutdown.cancelled()).await;
    }
}

async fn finish_all(pool: &PgPool, stop: &CancellationToken) -> Result<i64, LogError> {
    let mut events = 0;
    for reader_id in erase::unfinished(pool, READERS).await? {
        finish(pool, reader_id, stop, |piece| events += piece).await?;
    }
    Ok(events)
}
