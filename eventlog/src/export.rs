//! A reader's events, for the reader: session by session in the order of their
//! ids, and so of time, and in each session as they happened. Read a page at a
//! time, so that nobody who reads slowly keeps a connection.

use std::time::Duration;

use domain::ReaderId;
use sqlx::PgExecutor;

use crate::deadline::with_deadline;
use crate::{LogError, Stored};

/// How long Postgres may take to answer; somewhat longer than a statement may
/// take there.
const DEADLINE: Duration = Duration::from_secs(35);

/// Some events of a reader, at most `limit`, after one that is named by its
/// session and its sequence, or from the first. Those of erased sessions are
/// not among them.
///
/// # Errors
/// [`LogError::Unavailable`]
pub async fn after(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    last: Option<(&str, i64)>,
    limit: i64,
) -> Result<Vec<Stored>, LogError> {
    let (session_id, sequence) = last.unwrap_or_default();
    let events = sqlx::query_file_as!(
        Stored,
        "src/export/after.sql",
        reader_id.uuid().to_string(),
        session_id,
        sequence,
        limit
    )
    .fetch_all(database);
    Ok(with_deadline(DEADLINE, events).await?)
}
