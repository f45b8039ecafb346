//! Reads a reader's events for an export: sessions in the order of their ids, so
//! of their start times, and the events of a session in the order of the log.
//!
//! The export reads page by page, so that a slow client holds no connection. This
//! module formats nothing.

use domain::ReaderId;
use sqlx::PgExecutor;

use crate::deadline::{STATEMENT_DEADLINE, with_deadline};
use crate::{LogError, StoredEvent};

/// The size of a page. It ends with the event that reaches one of the limits.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    pub events: i64,
    /// Bytes of payloads and metadata: the size of an event depends on the client.
    pub bytes: i64,
}

/// The next page of a reader's events after the event `last`, which is named by session
/// id and sequence; from the first event if it is `None`. Leaves out erased sessions. The
/// page is empty after the last event.
pub async fn after(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    last: Option<(&str, i64)>,
    limit: PageLimit,
) -> Result<Vec<StoredEvent>, LogError> {
    let (session_id, sequence) = last.unwrap_or_default();
    let events = sqlx::query_file_as!(
        StoredEvent,
        "src/export/after.sql",
        reader_id.uuid().to_string(),
        session_id,
        sequence,
        limit.events,
        limit.bytes
    )
    .fetch_all(database);
    Ok(with_deadline(STATEMENT_DEADLINE, events).await?)
}
