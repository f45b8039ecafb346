//! The last steps of an erasure, after its events are in the log. A request starts them: it
//! removes the sessions from Redis and requests the job `erasures`. The job and the command
//! `reader erase` do all of them.

use std::time::{Duration, Instant};

use commands::erasure;
use domain::ReaderId;
use eventlog::erase::Erased;
use eventlog::{Pool, read};
use projections::active_sessions;
use projections::cache::Cache;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::error::JobError;
use crate::schedule::Job;
use crate::store;

const FORGET_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Removes erased sessions from Redis, and requests the job that overwrites their events.
/// If either fails, the job does both within a minute.
pub async fn start(cache: &Cache, pool: Pool, reader_id: ReaderId, erased: Erased) {
    let Some(global_position) = erased.global_position else {
        return;
    };
    let forgotten = active_sessions::erase(cache, reader_id, global_position).await;
    if let Err(error) = forgotten {
        tracing::warn!(
            %error,
            "removing an erased session from Redis failed: {error}; the job erasures tries again"
        );
    }
    tokio::spawn(async move {
        if let Err(error) = store::request(&pool, Job::Erasures).await {
            tracing::debug!(
                %error,
                "requesting the job erasures failed: {error}; it runs within a minute"
            );
        }
    });
}

/// Deletes the stored responses, removes the reader from Redis, and overwrites the erased
/// events, in this order: the erasure is done when its last event is overwritten. Tries
/// Redis for `redis_timeout`, at least once. Calls `on_batch` with the number of overwritten
/// events in each batch. Cancelling `stop` ends the work; the next call continues.
///
/// # Errors
/// [`JobError::Cache`] if Redis does not confirm. No event is overwritten then.
pub async fn finish(
    pool: &PgPool,
    cache: &Cache,
    reader_id: ReaderId,
    redis_timeout: Duration,
    stop: &CancellationToken,
    on_batch: impl FnMut(i64),
) -> Result<(), JobError> {
    erasure::delete_responses(pool, reader_id).await?;
    forget(pool, cache, reader_id, redis_timeout, stop).await?;
    Ok(erasure::finish(pool, reader_id, stop, on_batch).await?)
}

async fn forget(
    pool: &PgPool,
    cache: &Cache,
    reader_id: ReaderId,
    timeout: Duration,
    stop: &CancellationToken,
) -> Result<(), JobError> {
    let head = read::head(pool).await?;
    let began = Instant::now();
    loop {
        match active_sessions::erase(cache, reader_id, head).await {
            Ok(()) => return Ok(()),
            Err(error) if began.elapsed() >= timeout => return Err(JobError::Cache(error)),
            Err(_) => {}
        }
        if tokio::time::timeout(FORGET_RETRY_INTERVAL, stop.cancelled())
            .await
            .is_ok()
        {
            return Err(JobError::Stopped);
        }
    }
}
