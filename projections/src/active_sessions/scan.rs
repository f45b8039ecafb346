//! All entries of the cache, a page at a time.

use domain::ReaderId;
use redis::RedisResult;
use uuid::Uuid;

use super::entry::{FIELDS, Fields, Known, known};
use super::{COMMIT_DEADLINE, SCANNED, key};
use crate::cache::{Cache, CacheError};

/// A key of the cache.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Whose it is.
    pub(crate) reader_id: ReaderId,
    /// Its version, as it stands there.
    pub(crate) version: String,
    /// It has a version alone.
    pub(crate) tombstone: bool,
    /// What a query would make of it.
    pub(crate) known: Known,
}

/// Some keys, and the cursor for the next page; 0 at the end.
pub(crate) async fn page(cache: &Cache, cursor: u64) -> Result<(u64, Vec<Seen>), CacheError> {
    let (next, keys) = cache
        .call(
            COMMIT_DEADLINE,
            async |mut redis| -> RedisResult<(u64, Vec<String>)> {
                redis::cmd("SCAN")
                    .arg(cursor)
                    .arg("MATCH")
                    .arg("reading_session:active:*")
                    .arg("COUNT")
                    .arg(SCANNED)
                    .query_async(&mut redis)
                    .await
            },
        )
        .await?;
    let readers: Vec<ReaderId> = keys
        .iter()
        .filter_map(|key| key.rsplit(':').next()?.parse().ok())
        .map(|id: Uuid| id.into())
        .collect();
    if readers.is_empty() {
        return Ok((next, Vec::new()));
    }
    let mut all = redis::pipe();
    for reader_id in &readers {
        all.cmd("HMGET").arg(key(*reader_id)).arg(&FIELDS);
    }
    let rows: Vec<Fields> = cache
        .call(COMMIT_DEADLINE, async |mut redis| {
            all.query_async(&mut redis).await
        })
        .await?;
    let seen = readers
        .into_iter()
        .zip(rows)
        .filter_map(|(reader_id, fields)| {
            Some(Seen {
                reader_id,
                version: fields.0.clone()?,
                tombstone: fields.1.is_none() && fields.7.is_none(),
                known: known(fields),
            })
        });
    Ok((next, seen.collect()))
}
