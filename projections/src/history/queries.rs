//! Queries of the history.

use std::cmp::Reverse;

use domain::event::{Book, DeviceType, EndReason};
use domain::session::{Ending, SessionProgress, StartedSession};
use domain::{
    BookId, Observation, Position, ReaderId, SessionId, SessionStarted, Timestamp, ZoneName,
};
use sqlx::PgExecutor;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    pub session_id: SessionId,
    /// The sequence of the session's last applied event.
    pub version: i64,
    /// The session as the table contains it: the start event has the time of the first
    /// observation, and no locator. The times by the device's own clock are missing, and
    /// whether the active time was corrected.
    pub session: StartedSession,
}

/// The last session of a page. The next page starts after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCursor {
    pub started_at: Timestamp,
    pub session_id: SessionId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageQuery {
    /// Start after this session. The cost does not depend on the depth.
    pub after: Option<PageCursor>,
    /// Number of sessions to skip. The cost is that of reading them.
    pub skip: i64,
    pub limit: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// Newest first.
    pub entries: Vec<HistoryEntry>,
    /// Number of sessions on all pages.
    pub total: i64,
}

/// Later than any session, within what Postgres can hold.
const LATEST: Timestamp = Timestamp::from_timestamp_nanos(i64::MAX);

/// Reads a page of a reader's sessions, of one book or of all books. One
/// statement reads the page and the total, so that they match.
pub async fn page(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    book_id: Option<BookId>,
    query: PageQuery,
) -> sqlx::Result<HistoryPage> {
    let (started_at, session_id) = match query.after {
        Some(cursor) => (cursor.started_at, cursor.session_id.to_string()),
        // Sorts after every session.
        None => (Timestamp::MAX_UTC, "g".to_owned()),
    };
    let started_at = started_at.min(LATEST);
    // One statement per index: a single statement with an optional filter would get
    // one plan for both.
    let rows = match book_id {
        None => {
            sqlx::query_file_as!(
                Row,
                "src/history/page.sql",
                reader_id.uuid(),
                started_at,
                session_id,
                query.limit,
                query.skip
            )
            .fetch_all(database)
            .await?
        }
        Some(book_id) => {
            sqlx::query_file_as!(
                Row,
                "src/history/page_of_book.sql",
                reader_id.uuid(),
                book_id.uuid(),
                started_at,
                session_id,
                query.limit,
                query.skip
            )
            .fetch_all(database)
            .await?
        }
    };
    let total = rows.first().map_or(0, |row| row.total);
    let entries = rows.into_iter().filter_map(|row| row.entry().transpose());
    let mut entries = entries.collect::<sqlx::Result<Vec<HistoryEntry>>>()?;
    entries
        .sort_unstable_by_key(|entry| Reverse((entry.session.start.started_at, entry.session_id)));
    Ok(HistoryPage { entries, total })
}

/// A session with the total. The left join makes all columns nullable: an empty
/// page is one row that contains the total only.
struct Row {
    total: i64,
    session_id: Option<String>,
    reader_id: Option<Uuid>,
    book_id: Option<Uuid>,
    version: Option<i64>,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    last_activity_at: Option<Timestamp>,
    position_at: Option<Timestamp>,
    active_ms: Option<i64>,
    start_position: Option<i32>,
    position: Option<i32>,
    furthest_position: Option<i32>,
    device_type: Option<String>,
    device_id: Option<String>,
    end_reason: Option<String>,
    locator: Option<String>,
    book_title: Option<String>,
    book_author: Option<String>,
    book_total_pages: Option<i32>,
    time_zone: Option<String>,
}

impl Row {
    /// Returns `None` for the row of an empty page.
    fn entry(self) -> sqlx::Result<Option<HistoryEntry>> {
        let Some(session_id) = self.session_id else {
            return Ok(None);
        };
        let book = Book {
            title: self.book_title,
            author: self.book_author,
            total_pages: self
                .book_total_pages
                .and_then(|pages| pages.try_into().ok()),
        };
        let start = SessionStarted {
            reader_id: ReaderId::from(not_null(self.reader_id)?),
            book_id: BookId::from(not_null(self.book_id)?),
            started_at: not_null(self.started_at)?,
            device_time: None,
            position: position(self.start_position)?,
            device_type: self.device_type.as_deref().and_then(DeviceType::parse),
            device_id: self.device_id,
            time_zone: ZoneName::new(&not_null(self.time_zone)?),
            // The table contains the latest locator only.
            locator: None,
            book: Some(book).filter(|book| *book != Book::default()),
            // An end by the service is in the progress.
            end_reason: None,
        };
        let ended = self.ended_at.map(|at| Ending {
            at,
            reason: self
                .end_reason
                .as_deref()
                .and_then(EndReason::parse)
                .unwrap_or(EndReason::Finished),
        });
        let progress = SessionProgress {
            latest: Observation {
                at: self
                    .position_at
                    .map_or_else(|| not_null(self.last_activity_at), Ok)?,
                device_time: None,
                position: position(self.position)?,
                locator: self.locator,
            },
            first: None,
            furthest_position: position(self.furthest_position)?,
            active_ms: not_null(self.active_ms)?,
            active_fixed: false,
            ended,
        };
        Ok(Some(HistoryEntry {
            session_id: session_id
                .parse()
                .map_err(|error: uuid::Error| sqlx::Error::Decode(Box::new(error)))?,
            version: not_null(self.version)?,
            session: StartedSession { start, progress },
        }))
    }
}

fn position(steps: Option<i32>) -> sqlx::Result<Position> {
    Position::from_steps(not_null(steps)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// The value of a column that is `not null` in the table.
fn not_null<T>(value: Option<T>) -> sqlx::Result<T> {
    value.ok_or_else(|| sqlx::Error::Decode("unexpected null in read.history".into()))
}
