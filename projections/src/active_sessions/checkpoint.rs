//! How far the cache is, and how it begins. The checkpoint stands in Redis, so
//! losing one is losing both; beside it stands when the cache was begun, by
//! Redis's own clock: what a query read before that is not filled in.

use redis::{AsyncCommands, Script};
use sqlx::PgPool;

use eventlog::deadline::with_deadline;
use eventlog::read;

use super::{COMMIT_DEADLINE, SCANNED};
use crate::CommitError;
use crate::cache::{Cache, CacheError};
use crate::projection::DEADLINE;

/// A hash of `checkpoint` and, in microseconds, `begun_at`.
pub(super) const PROJECTION: &str = "reading_session:projection";

/// The position that the cache is at.
pub(super) async fn position(cache: &Cache) -> Result<Option<i64>, CacheError> {
    cache
        .call(COMMIT_DEADLINE, async |mut redis| {
            redis.hget(PROJECTION, "checkpoint").await
        })
        .await
}

/// Where the projection goes on; begins the cache if it must, and has it warmed up
/// then. That is asked for before: whoever is killed in between has asked in vain
/// at worst.
pub(super) async fn position_or_begin(cache: &Cache, pool: &PgPool) -> Result<i64, CommitError> {
    loop {
        let position = position(cache).await.map_err(unavailable)?;
        // Read after it: what is ahead of the log is of another log.
        let head = with_deadline(DEADLINE, read::head(pool))
            .await
            .map_err(|error| CommitError::Unavailable(Box::new(error)))?;
        if let Some(position) = position.filter(|position| *position <= head) {
            return Ok(position);
        }
        with_deadline(DEADLINE, request_warm_up(pool)).await?;
        if begin(cache, position, head).await.map_err(unavailable)? {
            return Ok(head);
        }
    }
}

/// Requests the job `warm_up`. The job table belongs to the crate `jobs`, which
/// imports this one, so the request is a statement of its own.
async fn request_warm_up(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query!("update jobs set asked = true where job = 'warm_up'")
        .execute(pool)
        .await?;
    Ok(())
}

/// A cache without a checkpoint, or with that of another log, is nothing: it
/// is emptied and begun at the head of the log, and queries fill it. `false`
/// when somebody else has begun it.
async fn begin(cache: &Cache, wrong: Option<i64>, head: i64) -> Result<bool, CacheError> {
    let script = Script::new(include_str!("empty.lua"));
    let mut wrong = wrong.map_or_else(String::new, |position| position.to_string());
    let mut cursor = "0".to_owned();
    loop {
        let mut call = script.prepare_invoke();
        call.key(PROJECTION);
        call.arg(&wrong).arg(head).arg(&cursor).arg(SCANNED);
        let next: Option<String> = cache
            .call(COMMIT_DEADLINE, async |mut redis| {
                call.invoke_async(&mut redis).await
            })
            .await?;
        match next {
            None => return Ok(false),
            Some(next) if next == "0" => return Ok(true),
            Some(next) => cursor = next,
        }
        wrong.clear();
    }
}

pub(super) fn unavailable(error: CacheError) -> CommitError {
    CommitError::Unavailable(Box::new(error))
}
