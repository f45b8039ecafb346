//! The checkpoint of the cache, and its initialisation.
//!
//! The checkpoint is stored in Redis, so a Redis that loses its data loses the
//! checkpoint too. With it is stored the Redis time of the initialisation: a fill
//! whose miss is older is rejected.

use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use redis::AsyncCommands;
use sqlx::PgPool;

use super::{COMMIT_DEADLINE, SCAN_COUNT, script};
use crate::CommitError;
use crate::cache::{Cache, CacheError};

/// The key of a string: the checkpoint and, after a space, the Redis time of the
/// initialisation in microseconds. It was a hash in an earlier release. Processes of that release
/// therefore fail to use a cache of this one.
pub(super) const PROJECTION_KEY: &str = "reading_session:projection";

/// Reads the checkpoint. `None` if the cache is not initialised.
pub(super) async fn read(cache: &Cache) -> Result<Option<i64>, CacheError> {
    cache
        .call(COMMIT_DEADLINE, async |mut redis| {
            // Unlike `GET`, returns no error for a hash of an earlier release.
            let [projection]: [Option<Vec<u8>>; 1] = redis.mget(&[PROJECTION_KEY]).await?;
            Ok(projection.as_deref().and_then(decode))
        })
        .await
}

/// Decodes the value of [`PROJECTION_KEY`].
pub(super) fn decode(projection: &[u8]) -> Option<i64> {
    let (checkpoint, _) = str::from_utf8(projection).ok()?.split_once(' ')?;
    checkpoint.parse().ok()
}

/// Reads the checkpoint. If there is none, or if it is beyond the end of the log
/// and so belongs to another log, initialises the cache and requests a warm-up.
/// The request comes first: a process that is killed in between leaves at most an
/// unnecessary warm-up.
pub(super) async fn read_or_initialise(cache: &Cache, pool: &PgPool) -> Result<i64, CommitError> {
    loop {
        let checkpoint = read(cache).await.map_err(unavailable)?;
        // Read after the checkpoint, so that a valid checkpoint is never beyond it.
        let head = with_deadline(STATEMENT_DEADLINE, eventlog::read::head(pool))
            .await
            .map_err(|error| CommitError::Unavailable(Box::new(error)))?;
        if let Some(checkpoint) = checkpoint.filter(|checkpoint| *checkpoint <= head) {
            return Ok(checkpoint);
        }
        with_deadline(STATEMENT_DEADLINE, request_warm_up(pool)).await?;
        if initialise(cache, checkpoint, head)
            .await
            .map_err(unavailable)?
        {
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

/// Removes all entries and sets the checkpoint to the end of the log. Queries
/// then fill the cache. `invalid` is the checkpoint to replace. Returns `false` if
/// another process has initialised the cache.
async fn initialise(cache: &Cache, invalid: Option<i64>, head: i64) -> Result<bool, CacheError> {
    let script = script(include_str!("initialise.lua"));
    let mut invalid = invalid.map_or_else(String::new, |checkpoint| checkpoint.to_string());
    let mut cursor = "0".to_owned();
    loop {
        let mut call = script.prepare_invoke();
        call.key(PROJECTION_KEY);
        call.arg(&invalid).arg(head).arg(&cursor).arg(SCAN_COUNT);
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
        invalid.clear();
    }
}

pub(super) fn unavailable(error: CacheError) -> CommitError {
    CommitError::Unavailable(Box::new(error))
}
