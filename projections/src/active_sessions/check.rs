//! The cache compared with the log: every entry is what its session was after
//! as many events, and none is behind the checkpoint or over.

use domain::SessionId;
use eventlog::deadline::within;
use eventlog::fold;
use redis::AsyncCommands;
use serde_json::json;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::scan::{self, Seen};
use super::{CHECKPOINT, COMMIT_DEADLINE, Entry, key};
use crate::cache::Cache;
use crate::projection::DEADLINE;
use crate::replay::ReplayError;
use crate::verify::{Compared, Difference};

/// Compares every entry.
///
/// # Errors
/// When Postgres or Redis does not answer, or it was told to stop.
pub async fn check(
    cache: &Cache,
    pool: &PgPool,
    stop: &CancellationToken,
) -> Result<Compared, ReplayError> {
    let checkpoint: Option<i64> = cache
        .call(COMMIT_DEADLINE, async |mut redis| {
            redis.get(CHECKPOINT).await
        })
        .await?;
    let mut compared = Compared::new("active_sessions");
    let mut cursor = 0;
    loop {
        if stop.is_cancelled() {
            return Err(ReplayError::Stopped);
        }
        let (next, seen) = scan::page(cache, cursor).await?;
        page(pool, &seen, checkpoint.unwrap_or(0), &mut compared).await?;
        if next == 0 {
            return Ok(compared);
        }
        cursor = next;
    }
}

async fn page(
    pool: &PgPool,
    seen: &[Seen],
    checkpoint: i64,
    compared: &mut Compared,
) -> Result<(), ReplayError> {
    let entries = || seen.iter().filter_map(|seen| seen.entry.as_ref());
    let wanted: Vec<(SessionId, i64)> = entries()
        .map(|entry| (entry.session_id, entry.sequence))
        .collect();
    let ids: Vec<SessionId> = entries().map(|entry| entry.session_id).collect();
    let folded = within(DEADLINE, fold::sessions(pool, &wanted)).await?;
    let applied = within(DEADLINE, fold::sequences(pool, &ids, checkpoint)).await?;
    for seen in seen.iter().filter(|seen| !seen.tombstone) {
        compared.rows += 1;
        let found = seen.entry.as_ref();
        let log = found.and_then(|entry| {
            folded
                .iter()
                .find(|folded| folded.session_id == entry.session_id)
        });
        let expected = log.and_then(|log| {
            let session = log.session.started().filter(|session| session.is_active());
            Some(Entry {
                session_id: log.session_id,
                sequence: log.sequence,
                session: session?.clone(),
            })
        });
        let behind = found.is_some_and(|entry| {
            applied
                .iter()
                .any(|(id, sequence)| *id == entry.session_id && *sequence > entry.sequence)
        });
        let its_own = log.is_some_and(|log| {
            let reader_id = log.session.started().map(|session| session.start.reader_id);
            reader_id == Some(seen.reader_id) && log.global_position.to_string() == seen.version
        });
        if found.is_some() && found == expected.as_ref() && its_own && !behind {
            continue;
        }
        compared.differs(Difference {
            found: Some(json!({
                "key": key(seen.reader_id),
                "version": seen.version,
                "entry": found.map(shown),
            })),
            expected: if behind {
                Some(json!("what later events say, up to its checkpoint"))
            } else {
                expected.as_ref().map(|entry| {
                    json!({
                        "version": log.map(|log| log.global_position.to_string()),
                        "entry": shown(entry),
                    })
                })
            },
        });
    }
    Ok(())
}

fn shown(entry: &Entry) -> serde_json::Value {
    json!({
        "session_id": entry.session_id,
        "sequence": entry.sequence,
        "session": entry.session,
    })
}
