//! Parked events that do not contain their reader.

use std::collections::BTreeSet;

use domain::ReaderId;
use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use eventlog::{StoredEvent, read};
use sqlx::PgPool;

use super::EntryWrite;
use crate::CommitError;
use crate::dead_letters::NewDeadLetter;

/// Invalidates the entries of the readers of these events. The first event of a session
/// contains its reader. If it cannot be read either, no entry contains the session.
///
/// `to` is the end of the batch: no other write of the batch has a later version.
pub(super) async fn invalidations(
    pool: &PgPool,
    parked: &[NewDeadLetter],
    to: i64,
) -> Result<Vec<(ReaderId, EntryWrite)>, CommitError> {
    let unknown = parked.iter().filter(|event| event.reader_id.is_none());
    let sessions: BTreeSet<String> = unknown.map(|event| event.session_id.clone()).collect();
    if sessions.is_empty() {
        return Ok(Vec::new());
    }
    let sessions = Vec::from_iter(sessions);
    let first = with_deadline(STATEMENT_DEADLINE, read::first(pool, &sessions))
        .await
        .map_err(|error| CommitError::Unavailable(Box::new(error)))?;
    let readers = first.iter().filter_map(StoredEvent::reader_id);
    Ok(readers
        .map(|reader_id| (reader_id, EntryWrite::invalidate(to)))
        .collect())
}
