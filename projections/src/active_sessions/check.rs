//! The cache compared with the log: every entry is what its session was after
//! as many events, and none is behind the checkpoint or over.

use domain::SessionId;
use eventlog::deadline::within;
use eventlog::fold;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::scan::{self, Seen};
use super::{Entry, key, position};
use crate::cache::Cache;
use crate::projection::DEADLINE;
use crate::replay::ReplayError;
use crate::verify::{Compared, Difference};

/// An entry that is not what the log says.
pub(super) struct Wrong<'a> {
    pub(super) seen: &'a Seen,
    expected: Option<Value>,
}

/// Compares every entry.
///
/// # Errors
/// When Postgres or Redis does not answer, or it was told to stop.
pub async fn check(
    cache: &Cache,
    pool: &PgPool,
    stop: &CancellationToken,
) -> Result<Compared, ReplayError> {
    let checkpoint = position(cache).await?.unwrap_or(0);
    let mut compared = Compared::new("active_sessions");
    let mut cursor = 0;
    loop {
        if stop.is_cancelled() {
            return Err(ReplayError::Stopped);
        }
        let (next, seen) = scan::page(cache, cursor).await?;
        compared.rows += seen.iter().filter(|seen| !seen.tombstone).count() as u64;
        for wrong in wrong(pool, &seen, checkpoint).await? {
            compared.differs(Difference {
                found: Some(json!({
                    "key": key(wrong.seen.reader_id),
                    "version": wrong.seen.version,
                    "entry": wrong.seen.entry.as_ref().map(shown),
                })),
                expected: wrong.expected,
            });
        }
        if next == 0 {
            return Ok(compared);
        }
        cursor = next;
    }
}

/// The wrong ones of some entries; `checkpoint` was read before them.
pub(super) async fn wrong<'a>(
    pool: &PgPool,
    seen: &'a [Seen],
    checkpoint: i64,
) -> Result<Vec<Wrong<'a>>, ReplayError> {
    let entries = || seen.iter().filter_map(|seen| seen.entry.as_ref());
    let wanted: Vec<(SessionId, i64)> = entries()
        .map(|entry| (entry.session_id, entry.sequence))
        .collect();
    let ids: Vec<SessionId> = entries().map(|entry| entry.session_id).collect();
    let folded = within(DEADLINE, fold::sessions(pool, &wanted)).await?;
    let applied = within(DEADLINE, fold::sequences(pool, &ids, checkpoint)).await?;
    let mut all = Vec::new();
    for seen in seen.iter().filter(|seen| !seen.tombstone) {
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
        let expected = if behind {
            Some(json!("what later events say, up to its checkpoint"))
        } else {
            expected.as_ref().map(|entry| {
                json!({
                    "version": log.map(|log| log.global_position.to_string()),
                    "entry": shown(entry),
                })
            })
        };
        all.push(Wrong { seen, expected });
    }
    Ok(all)
}

fn shown(entry: &Entry) -> Value {
    json!({
        "session_id": entry.session_id,
        "sequence": entry.sequence,
        "session": entry.session,
    })
}
