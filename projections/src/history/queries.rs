//! What is read of the history.

use std::cmp::Reverse;

use chrono_tz::Tz;
use domain::event::{Book, DeviceType, EndReason};
use domain::session::{Ending, Observation, SessionProgress, StartedSession};
use domain::{BookId, Position, ReaderId, SessionId, SessionStarted, Timestamp};
use sqlx::PgExecutor;
use uuid::Uuid;

/// A session as the history shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub session_id: SessionId,
    /// How many events it has.
    pub version: i64,
    /// The session.
    pub session: StartedSession,
}

/// Where a page of the history ends; the next one begins after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// When the page's last session started.
    pub started_at: Timestamp,
    /// Its id.
    pub session_id: SessionId,
}

/// Which part of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// What comes after here: costs the same at any depth.
    pub after: Option<Bound>,
    /// Sessions to leave out first: costs what reading them would.
    pub skip: i64,
    /// Sessions to return at most.
    pub limit: i64,
}

/// A page of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Newest first.
    pub entries: Vec<Entry>,
    /// How many there are on all pages.
    pub total: i64,
}

/// Later than any session, within what Postgres can hold.
const LATEST: Timestamp = Timestamp::from_timestamp_nanos(i64::MAX);

/// A reader's sessions, of one book or of all. One statement, so that sessions
/// and total are of the same moment.
///
/// # Errors
/// Those of Postgres.
pub async fn page(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    book_id: Option<BookId>,
    page: Page,
) -> sqlx::Result<Listed> {
    let (started_at, session_id) = match page.after {
        Some(bound) => (bound.started_at, bound.session_id.to_string()),
        // Sorts after every session.
        None => (Timestamp::MAX_UTC, "g".to_owned()),
    };
    let started_at = started_at.min(LATEST);
    // One statement for each index, so that neither plan is a compromise.
    let rows = match book_id {
        None => {
            sqlx::query_file_as!(
                Row,
                "src/history/page.sql",
                reader_id.uuid(),
                started_at,
                session_id,
                page.limit,
                page.skip
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
                page.limit,
                page.skip
            )
            .fetch_all(database)
            .await?
        }
    };
    let total = rows.first().map_or(0, |row| row.total);
    let entries = rows.into_iter().filter_map(|row| row.entry().transpose());
    let mut entries = entries.collect::<sqlx::Result<Vec<Entry>>>()?;
    entries
        .sort_unstable_by_key(|entry| Reverse((entry.session.start.started_at, entry.session_id)));
    Ok(Listed { entries, total })
}

/// A session with the total beside it; of an empty page, the total alone.
struct Row {
    total: i64,
    session_id: Option<String>,
    reader_id: Option<Uuid>,
    book_id: Option<Uuid>,
    version: Option<i64>,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    last_activity_at: Option<Timestamp>,
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
    fn entry(self) -> sqlx::Result<Option<Entry>> {
        let decode = |error: domain::SessionError| sqlx::Error::Decode(Box::new(error));
        let (
            Some(session_id),
            Some(reader_id),
            Some(book_id),
            Some(version),
            Some(started_at),
            Some(last_activity_at),
            Some(active_ms),
            Some(start_position),
            Some(position),
            Some(furthest_position),
            Some(time_zone),
        ) = (
            self.session_id,
            self.reader_id,
            self.book_id,
            self.version,
            self.started_at,
            self.last_activity_at,
            self.active_ms,
            self.start_position,
            self.position,
            self.furthest_position,
            self.time_zone,
        )
        else {
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
            reader_id: ReaderId::from(reader_id),
            book_id: BookId::from(book_id),
            started_at,
            position: Position::from_steps(start_position).map_err(decode)?,
            device_type: self.device_type.as_deref().and_then(DeviceType::parse),
            device_id: self.device_id,
            time_zone: time_zone.parse().unwrap_or(Tz::UTC),
            // The locator of the start is not kept; the latest one is.
            locator: None,
            book: Some(book).filter(|book| *book != Book::default()),
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
                at: last_activity_at,
                position: Position::from_steps(position).map_err(decode)?,
                locator: self.locator,
            },
            furthest_position: Position::from_steps(furthest_position).map_err(decode)?,
            active_ms,
            ended,
        };
        Ok(Some(Entry {
            session_id: session_id
                .parse()
                .map_err(|error: uuid::Error| sqlx::Error::Decode(Box::new(error)))?,
            version,
            session: StartedSession { start, progress },
        }))
    }
}
