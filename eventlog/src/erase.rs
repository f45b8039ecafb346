//! Erasure of a reader's data from the log, in two parts.
//!
//! [`reader`] appends an erasure event to each of the reader's sessions, and [`sessions`]
//! to some of them. After that, no query finds these sessions.
//! [`overwrite`] then replaces all their earlier events with copies of the erasure event,
//! batch by batch, so that neither sequences nor global positions get a gap. It can be
//! stopped at any time and continued later.
//!
//! Only SQL functions (migrations/README.md) can overwrite events,
//! and only events of a session that ends with an erasure event. This module never
//! touches the read tables, Redis or the stream.

use cqrs_es::Aggregate;
use domain::event::SessionErased;
use domain::session::CompleteSession;
use domain::{BookId, ReaderId, SessionEvent, SessionId, Timestamp};
use sqlx::PgExecutor;

use crate::LogError;
use crate::deadline::{STATEMENT_DEADLINE, with_deadline};

/// Events overwritten in one transaction. This takes about 0.1 s.
const BATCH_SIZE: i32 = 1_000;

/// Sessions erased in one transaction, which holds the order lock for about 20 ms.
pub const SESSIONS_AT_ONCE: usize = 500;

/// The result of the first part of an erasure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// The number of erased sessions.
    pub sessions: i64,
    /// The global position of the last erasure event; `None` if no session was erased.
    pub global_position: Option<i64>,
}

impl Erased {
    /// Adds the result of a later transaction.
    pub fn add(&mut self, later: Self) {
        self.sessions += later.sessions;
        self.global_position = self.global_position.max(later.global_position);
    }
}

/// How much the log holds of a reader. Erased sessions are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub sessions: i64,
    pub events: i64,
}

/// The progress of a reader's erasures, of all sessions or of single ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// The time of the last request.
    pub erased_at: Timestamp,
    /// The number of erased sessions.
    pub sessions: i64,
    /// The number of their events that are overwritten.
    pub events: i64,
    /// When the last event was overwritten; `None` while some remain.
    pub done_at: Option<Timestamp>,
}

/// Erases all sessions of a reader that exist when this begins, and the responses stored
/// under the reader's idempotency keys, [`SESSIONS_AT_ONCE`] in one transaction.
/// [`overwrite`] must follow.
///
/// # Errors
/// Some or all sessions may be erased even if this fails. Repeating the call is safe.
pub async fn reader(
    database: impl PgExecutor<'_> + Copy,
    reader_id: ReaderId,
    erased_at: Timestamp,
) -> Result<Erased, LogError> {
    let tombstone = Tombstone::new(reader_id, erased_at);
    let mut erased = Erased::default();
    let mut after = String::new();
    loop {
        let row = sqlx::query!(
            r#"select last_session, sessions as "sessions!", last_position
            from erase_reader_part($1, $2, $3, $4, $5, $6, $7)"#,
            reader_id.uuid(),
            after,
            i32::try_from(SESSIONS_AT_ONCE).expect("SESSIONS_AT_ONCE is small"),
            erased_at,
            CompleteSession::TYPE,
            tombstone.version,
            tombstone.payload
        )
        .fetch_one(database);
        let row = with_deadline(STATEMENT_DEADLINE, row).await?;
        erased.add(Erased {
            sessions: row.sessions,
            global_position: row.last_position,
        });
        match row.last_session {
            Some(last) => after = last,
            None => return Ok(erased),
        }
    }
}

/// Erases those of the given sessions that belong to the reader and are not erased, in
/// one transaction: pass at most [`SESSIONS_AT_ONCE`]. [`delete_responses`] and
/// [`overwrite`] must follow.
///
/// # Errors
/// The sessions may be erased even if this fails. Repeating the call is safe.
pub async fn sessions(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    session_ids: &[SessionId],
    erased_at: Timestamp,
) -> Result<Erased, LogError> {
    let tombstone = Tombstone::new(reader_id, erased_at);
    let ids: Vec<String> = session_ids.iter().map(ToString::to_string).collect();
    let row = sqlx::query!(
        r#"select sessions as "sessions!", last_position
        from erase_sessions($1, $2, $3, $4, $5, $6)"#,
        reader_id.uuid(),
        &ids,
        erased_at,
        CompleteSession::TYPE,
        tombstone.version,
        tombstone.payload
    )
    .fetch_one(database);
    let row = with_deadline(STATEMENT_DEADLINE, row).await?;
    Ok(Erased {
        sessions: row.sessions,
        global_position: row.last_position,
    })
}

/// Deletes the stored responses of a reader that contain the state of one of the sessions.
/// It looks at all rows of the reader, so it is no part of the transaction of
/// [`sessions`], which holds the order lock. No such response is stored after that
/// transaction: an append with a response checks the sessions in it.
pub async fn delete_responses(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    session_ids: &[SessionId],
) -> Result<(), LogError> {
    if session_ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = session_ids.iter().map(ToString::to_string).collect();
    let delete = sqlx::query_file!("src/erase/delete_responses.sql", reader_id.uuid(), &ids)
        .execute(database);
    with_deadline(STATEMENT_DEADLINE, delete).await?;
    Ok(())
}

/// The sessions of a reader with a book, in the order of their ids. Leaves out erased
/// sessions.
pub async fn sessions_of_book(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    book_id: BookId,
) -> Result<Vec<SessionId>, LogError> {
    let ids = sqlx::query_file_scalar!(
        "src/erase/sessions_of_book.sql",
        reader_id.uuid().to_string(),
        book_id.uuid().to_string()
    )
    .fetch_all(database);
    let ids = with_deadline(STATEMENT_DEADLINE, ids).await?;
    Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
}

/// The event that ends an erased session, and that all its earlier events become.
struct Tombstone {
    version: &'static str,
    payload: String,
}

impl Tombstone {
    fn new(reader_id: ReaderId, erased_at: Timestamp) -> Self {
        let event = SessionEvent::SessionErased(SessionErased {
            reader_id,
            erased_at,
        });
        Self {
            version: event.version(),
            payload: serde_json::to_string(&event).expect("events are plain JSON"),
        }
    }
}

/// The reader's sessions that were erased one by one and are not overwritten yet.
pub async fn unfinished_sessions(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
) -> Result<Vec<SessionId>, LogError> {
    let ids = sqlx::query_scalar!(
        "select session_id from erased_sessions
        where reader_id = $1
            and exists (
                select from events
                where aggregate_id = session_id and event_type <> 'SessionErased'
            )",
        reader_id.uuid()
    )
    .fetch_all(database);
    let ids = with_deadline(STATEMENT_DEADLINE, ids).await?;
    Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
}

/// Overwrites a batch of events of the reader's erased sessions. Returns their
/// number, and whether more may remain.
pub async fn overwrite(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
) -> Result<(i64, bool), LogError> {
    let overwritten = sqlx::query_scalar!(
        r#"select overwrite_events($1, $2) as "overwritten!""#,
        reader_id.uuid(),
        BATCH_SIZE
    )
    .fetch_one(database);
    let overwritten = with_deadline(STATEMENT_DEADLINE, overwritten).await?;
    Ok((overwritten, overwritten == i64::from(BATCH_SIZE)))
}

/// At most `limit` readers with erased events that are not overwritten, oldest
/// erasure first.
pub async fn unfinished(
    database: impl PgExecutor<'_>,
    limit: i64,
) -> Result<Vec<ReaderId>, LogError> {
    let readers = sqlx::query_scalar!(
        "select reader_id from erasures where done_at is null order by erased_at limit $1",
        limit
    )
    .fetch_all(database);
    let readers = with_deadline(STATEMENT_DEADLINE, readers).await?;
    Ok(readers.into_iter().map(ReaderId::from).collect())
}

/// The reader's erasure; `None` if the reader was never erased.
pub async fn find(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
) -> Result<Option<Erasure>, LogError> {
    let found = sqlx::query_as!(
        Erasure,
        "select erased_at, sessions, events, done_at from erasures where reader_id = $1",
        reader_id.uuid()
    )
    .fetch_optional(database);
    Ok(with_deadline(STATEMENT_DEADLINE, found).await?)
}

/// How much the log holds of a reader.
pub async fn extent(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
) -> Result<Extent, LogError> {
    let extent = sqlx::query_file_as!(
        Extent,
        "src/erase/extent.sql",
        reader_id.uuid().to_string(),
        false
    )
    .fetch_one(database);
    Ok(with_deadline(STATEMENT_DEADLINE, extent).await?)
}

/// The number of events of the reader's erased sessions that are not overwritten.
pub async fn remaining_events(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
) -> Result<i64, LogError> {
    let remaining = sqlx::query_file_as!(
        Extent,
        "src/erase/extent.sql",
        reader_id.uuid().to_string(),
        true
    )
    .fetch_one(database);
    Ok(with_deadline(STATEMENT_DEADLINE, remaining).await?.events)
}
