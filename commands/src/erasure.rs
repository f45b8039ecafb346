//! The second part of an erasure: deleting stored responses, and overwriting the erased
//! events in the log.
//!
//! The first part ([`crate::CommandService::erase`]) has already hidden the
//! reader's sessions from all queries. This part can be stopped or killed at any
//! time; the next call, from any process, continues. It touches neither the read
//! tables nor Redis.

use domain::ReaderId;
use eventlog::{LogError, erase};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// Deletes the stored responses that contain erased sessions of a reader. The process that
/// erased single sessions may have ended before it did so.
pub async fn delete_responses(pool: &PgPool, reader_id: ReaderId) -> Result<(), LogError> {
    let sessions = erase::unfinished_sessions(pool, reader_id).await?;
    erase::delete_responses(pool, reader_id, &sessions).await
}

/// Overwrites the erased events of a reader until none is left or `stop` is
/// cancelled. The erasure is done when none is left, so the caller must have removed
/// the reader from Redis before. Calls `on_batch` with the number of events in each
/// batch.
pub async fn finish(
    pool: &PgPool,
    reader_id: ReaderId,
    stop: &CancellationToken,
    mut on_batch: impl FnMut(i64),
) -> Result<(), LogError> {
    let mut more = true;
    while more && !stop.is_cancelled() {
        let events;
        (events, more) = erase::overwrite(pool, reader_id).await?;
        on_batch(events);
    }
    Ok(())
}
