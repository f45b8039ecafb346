//! A scan of all cache entries, page by page.

use domain::ReaderId;
use redis::RedisResult;
use uuid::Uuid;

use super::entry::{CacheLookup, FIELDS, Fields, lookup};
use super::{COMMIT_DEADLINE, SCAN_COUNT, key};
use crate::cache::{Cache, CacheError};

#[derive(Debug)]
pub(super) struct ScannedEntry {
    pub(super) reader_id: ReaderId,
    /// The version as stored, which may not be a number.
    pub(super) version: String,
    /// The entry has a version only.
    pub(super) is_tombstone: bool,
    /// The result that a query would get.
    pub(super) lookup: CacheLookup,
}

/// Returns a page of entries and the cursor of the next page, 0 at the end.
pub(super) async fn page(
    cache: &Cache,
    cursor: u64,
) -> Result<(u64, Vec<ScannedEntry>), CacheError> {
    let (next, keys) = cache
        .call(
            COMMIT_DEADLINE,
            async |mut redis| -> RedisResult<(u64, Vec<String>)> {
                redis::cmd("SCAN")
                    .arg(cursor)
                    .arg("MATCH")
                    .arg("reading_session:active:*")
                    .arg("COUNT")
                    .arg(SCAN_COUNT)
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
    let mut reads = redis::pipe();
    for reader_id in &readers {
        reads.cmd("HMGET").arg(key(*reader_id)).arg(&FIELDS);
    }
    let rows: Vec<Fields> = cache
        .call(COMMIT_DEADLINE, async |mut redis| {
            reads.query_async(&mut redis).await
        })
        .await?;
    let entries = readers
        .into_iter()
        .zip(rows)
        .filter_map(|(reader_id, fields)| {
            Some(ScannedEntry {
                reader_id,
                version: fields.0.clone()?,
                is_tombstone: fields.1.is_none() && fields.8.is_none(),
                lookup: lookup(fields),
            })
        });
    Ok((next, entries.collect()))
}
