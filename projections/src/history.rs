//! The history of sessions: a row each, written and read here.
//!
//! Many events of one session in a batch become one row write, since the last
//! one says where the session stands.

use std::collections::BTreeMap;

use chrono_tz::Tz;
use domain::event::{Book, DeviceType, EndReason};
use domain::session::{Ending, Observation, Progress, ProgressChange, Session};
use domain::{BookId, Position, ReaderId, SessionEvent, SessionId, SessionStarted, Timestamp};
use eventlog::Recorded;
use eventlog::deadline::within;
use sqlx::PgPool;
use uuid::Uuid;

use crate::dead_letter::{Letters, TableStep};
use crate::projection::{DEADLINE, InTables};
use crate::{CommitError, Projection, Step, checkpoint};

mod columns;
mod retention;

use columns::{Changed, Started};
pub use retention::{Retired, retire};

/// The projection.
pub struct History {
    pool: PgPool,
}

impl InTables for History {
    const TABLES: &'static [&'static str] = &["history", "history_totals"];

    fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

/// What a batch does to one session.
#[derive(Debug)]
pub struct Row {
    /// The start, when it is in this batch: the row is new.
    start: Option<SessionStarted>,
    change: ProgressChange,
    version: i64,
}

impl Projection for History {
    const NAME: &'static str = "history";

    /// By session, and so in the order of the index that is written.
    type Batch = BTreeMap<SessionId, Row>;

    fn fold(batch: &mut Self::Batch, event: &Recorded) {
        let change = event.event.progress();
        let start = match &event.event {
            SessionEvent::SessionStarted(start) => Some(start.clone()),
            _ => None,
        };
        let row = match batch.remove(&event.session_id) {
            Some(row) => Row {
                start: row.start,
                change: row.change.then(change),
                version: event.sequence,
            },
            None => Row {
                start,
                change,
                version: event.sequence,
            },
        };
        batch.insert(event.session_id, row);
    }

    fn rows(batch: &Self::Batch) -> usize {
        batch.len()
    }

    async fn checkpoint(&mut self) -> Result<i64, CommitError> {
        Ok(within(DEADLINE, checkpoint::begin(&self.pool, Self::NAME)).await?)
    }

    async fn commit(
        &mut self,
        batch: Self::Batch,
        step: Step,
        letters: &Letters,
    ) -> Result<(), CommitError> {
        within(DEADLINE, self.make(batch, step, letters)).await
    }
}

impl History {
    async fn make(
        &self,
        batch: BTreeMap<SessionId, Row>,
        step: Step,
        letters: &Letters,
    ) -> Result<(), CommitError> {
        let mut started = Started::default();
        let mut changed = Changed::default();
        for (id, row) in &batch {
            match &row.start {
                Some(start) => started.push(*id, start, row),
                None => changed.push(*id, row),
            }
        }
        let mut table_step = TableStep::begin(&self.pool, letters).await?;
        let moved = sqlx::query_file_scalar!(
            "src/history/commit.sql",
            Self::NAME,
            step.from,
            step.to,
            &started.session_ids,
            &started.reader_ids,
            &started.book_ids,
            &started.versions,
            &started.started_at,
            started.ended_at as _,
            &started.last_activity_at,
            &started.active_ms,
            &started.start_positions,
            &started.positions,
            &started.furthest_positions,
            started.device_types as _,
            started.device_ids as _,
            started.end_reasons as _,
            started.locators as _,
            started.book_titles as _,
            started.book_authors as _,
            started.book_total_pages as _,
            started.time_zones as _,
            &changed.session_ids,
            &changed.versions,
            changed.ended_at as _,
            changed.last_activity_at as _,
            &changed.active_ms,
            changed.positions as _,
            &changed.furthest_positions,
            changed.end_reasons as _,
            changed.locators as _,
        )
        .fetch_one(table_step.connection())
        .await?;
        table_step.end(moved, letters, Self::NAME).await
    }
}

/// A session as the history shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub session_id: SessionId,
    /// How many events it has.
    pub version: i64,
    /// The session.
    pub session: Session,
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

/// A reader's sessions, newest first, of one book or of all.
///
/// # Errors
/// Those of Postgres.
pub async fn page(
    pool: &PgPool,
    reader_id: ReaderId,
    book_id: Option<BookId>,
    page: Page,
) -> sqlx::Result<Vec<Entry>> {
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
                EntryRow,
                "src/history/page.sql",
                reader_id.uuid(),
                started_at,
                session_id,
                page.limit,
                page.skip
            )
            .fetch_all(pool)
            .await?
        }
        Some(book_id) => {
            sqlx::query_file_as!(
                EntryRow,
                "src/history/page_of_book.sql",
                reader_id.uuid(),
                book_id.uuid(),
                started_at,
                session_id,
                page.limit,
                page.skip
            )
            .fetch_all(pool)
            .await?
        }
    };
    rows.into_iter().map(EntryRow::entry).collect()
}

/// Later than any session, within what Postgres can hold.
const LATEST: Timestamp = Timestamp::from_timestamp_nanos(i64::MAX);

/// How many sessions a reader has, of one book or of all.
///
/// # Errors
/// Those of Postgres.
pub async fn total(
    pool: &PgPool,
    reader_id: ReaderId,
    book_id: Option<BookId>,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select coalesce(sum(sessions), 0)::bigint as "total!" from history_totals
        where reader_id = $1 and ($2::uuid is null or book_id = $2)"#,
        reader_id.uuid(),
        book_id.map(BookId::uuid)
    )
    .fetch_one(pool)
    .await
}

struct EntryRow {
    session_id: String,
    reader_id: Uuid,
    book_id: Uuid,
    version: i64,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
    last_activity_at: Timestamp,
    active_ms: i64,
    start_position: i32,
    position: i32,
    furthest_position: i32,
    device_type: Option<String>,
    device_id: Option<String>,
    end_reason: Option<String>,
    locator: Option<String>,
    book_title: Option<String>,
    book_author: Option<String>,
    book_total_pages: Option<i32>,
    time_zone: String,
}

impl EntryRow {
    fn entry(self) -> sqlx::Result<Entry> {
        let decode = |error: domain::SessionError| sqlx::Error::Decode(Box::new(error));
        let book = Book {
            title: self.book_title,
            author: self.book_author,
            total_pages: self
                .book_total_pages
                .and_then(|pages| pages.try_into().ok()),
        };
        let start = SessionStarted {
            reader_id: ReaderId::from(self.reader_id),
            book_id: BookId::from(self.book_id),
            started_at: self.started_at,
            position: Position::from_steps(self.start_position).map_err(decode)?,
            device_type: self.device_type.as_deref().and_then(DeviceType::parse),
            device_id: self.device_id,
            time_zone: self.time_zone.parse().unwrap_or(Tz::UTC),
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
        let progress = Progress {
            latest: Observation {
                at: self.last_activity_at,
                position: Position::from_steps(self.position).map_err(decode)?,
                locator: self.locator,
            },
            furthest_position: Position::from_steps(self.furthest_position).map_err(decode)?,
            active_ms: self.active_ms,
            ended,
        };
        Ok(Entry {
            session_id: self
                .session_id
                .parse()
                .map_err(|error: uuid::Error| sqlx::Error::Decode(Box::new(error)))?,
            version: self.version,
            session: Session { start, progress },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, at, folded, session};

    #[test]
    fn many_events_of_a_session_are_one_row() {
        let events = Story::starts(1, Tz::UTC, 0)
            .seen(10, 1)
            .seen(20, 2)
            .seen_late(15, 9)
            .events();
        let rows = folded::<History>(&events);
        assert_eq!(rows.len(), 1);
        let row = &rows[&session(1)];
        assert!(row.start.is_some());
        assert_eq!(row.version, 4);
        let latest = row.change.latest.as_ref().unwrap();
        assert_eq!((latest.at, latest.position.steps()), (at(20), 20_000));
        assert_eq!(row.change.furthest_position.steps(), 90_000);
        assert_eq!(row.change.active_ms, 20_000);
    }

    #[test]
    fn late_observations_alone_leave_the_latest_position_to_the_row() {
        let events = Story::starts(1, Tz::UTC, 0)
            .seen(10, 1)
            .seen_late(5, 9)
            .events();
        let rows = folded::<History>(&events[2..]);
        let row = &rows[&session(1)];
        assert!(row.start.is_none());
        assert_eq!(row.change.latest, None);
        assert_eq!(row.change.furthest_position.steps(), 90_000);
    }

    #[test]
    fn sessions_do_not_mix() {
        let mut events = Story::starts(1, Tz::UTC, 0).seen(10, 1).events();
        events.extend(
            Story::starts(2, Tz::UTC, 20)
                .ends(30, EndReason::Finished)
                .events(),
        );
        let rows = folded::<History>(&events);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[&session(1)].change.ended, None);
        assert_eq!(rows[&session(2)].change.ended.unwrap().at, at(30));
    }
}
