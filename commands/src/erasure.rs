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

/// Readers loaded at a time.
const PAGE_SIZE: i64 = 100;

/// Overwrites the erased events of a reader until none is left or `stop` is
/// cancelled. Calls `on_batch` with the number of events in each batch.
pub async fn finish(
    pool: &PgPool,
    reader_id: ReaderId,
    stop: &CancellationToken,
    mut on_batch: impl FnMut(i64),
) -> Result<(), LogError> {
    // The process that erased single sessions may have ended before it deleted the
    // responses that contain them.
    let sessions = erase::unfinished_sessions(pool, reader_id).await?;
    erase::delete_responses(pool, reader_id, &sessions).await?;
    let mut more = true;
    while more && !stop.is_cancelled() {
        let events;
        (events, more) = erase::overwrite(pool, reader_id).await?;
        on_batch(events);
    }
    Ok(())
}

/// Like [`finish`], for all readers with an unfinished erasure.
pub async fn finish_all(
    pool: &PgPool,
    stop: &CancellationToken,
    mut on_batch: impl FnMut(i64),
) -> Result<(), LogError> {
    loop {
        let readers = erase::unfinished(pool, PAGE_SIZE).await?;
        if readers.is_empty() || stop.is_cancelled() {
            return Ok(());
        }
        for reader_id in readers {
            finish(pool, reader_id, stop, &mut on_batch).await?;
        }
    }
}
