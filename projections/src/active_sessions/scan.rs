//! A scan of all cache entries, page by page.

use domain::ReaderId;
use redis::{AsyncCommands, RedisResult};
use uuid::Uuid;

use super::format::{self, Content};
use super::{COMMIT_DEADLINE, SCAN_COUNT, key};
use crate::cache::{Cache, CacheError};

#[derive(Debug)]
pub(super) struct ScannedEntry {
    pub(super) reader_id: ReaderId,
    pub(super) text: Vec<u8>,
    /// `None` if the text does not begin with a version.
    pub(super) version: Option<i64>,
    pub(super) content: Content,
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
    let keys: Vec<String> = readers.iter().copied().map(key).collect();
    let texts: Vec<Option<Vec<u8>>> = cache
        .call(COMMIT_DEADLINE, async |mut redis| redis.mget(&keys).await)
        .await?;
    let entries = readers.into_iter().zip(texts);
    let entries = entries.filter_map(|(reader_id, text)| {
        let text = text?;
        let (version, content) = format::decode(&text);
        Some(ScannedEntry {
            reader_id,
            text,
            version,
            content,
        })
    });
    Ok((next, entries.collect()))
}
