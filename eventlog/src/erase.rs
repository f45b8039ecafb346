//! A reader's data leaves the log, in two parts. First every session of the
//! reader gets one event more, which says that it is erased: from then on
//! nothing is known of it, anywhere. Then all that stood before is written
//! over, in place and piece by piece, so that neither sequences nor positions
//! get a hole. What is cut off in the middle goes on where it was.
//!
//! Nothing but the two functions of `migrations/0008_erase.sql` writes over
//! events, and only by copies of a session's last event that says so.

use std::time::Duration;

use cqrs_es::Aggregate;
use domain::event::SessionErased;
use domain::{ReaderId, ReadingSession, SessionEvent, Timestamp};
use sqlx::PgExecutor;

use crate::LogError;
use crate::deadline::with_deadline;

/// Events written over in one transaction: a tenth of a second.
const PIECE: i32 = 1_000;

/// How long Postgres may take to answer; somewhat longer than a statement may
/// take there.
const DEADLINE: Duration = Duration::from_secs(35);

/// What an erasure came to at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// Sessions of which nothing is known any more.
    pub sessions: i64,
    /// The global position of the last event that says so; `None` without a
    /// session.
    pub global_position: Option<i64>,
}

/// How much the log holds of a reader; what is erased is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Sessions.
    pub sessions: i64,
    /// Events in them.
    pub events: i64,
}

/// A reader's erasure, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// When it was asked for last.
    pub erased_at: Timestamp,
    /// Sessions erased.
    pub sessions: i64,
    /// Their events written over so far.
    pub events: i64,
    /// When the last of them was; `None` while there are more.
    pub done_at: Option<Timestamp>,
}

/// Erases a reader's sessions, all of them in one transaction, and the answers
/// kept under the reader's keys. The events are still to be written over: see
/// [`overwrite`].
///
/// # Errors
/// [`LogError::Unavailable`]; it may be erased all the same, and asking again
/// does no harm.
pub async fn reader(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    erased_at: Timestamp,
) -> Result<Erased, LogError> {
    let event = SessionEvent::SessionErased(SessionErased {
        reader_id,
        erased_at,
    });
    let row = sqlx::query!(
        r#"select sessions as "sessions!", last_position
        from erase_reader($1, $2, $3, $4, $5)"#,
        reader_id.uuid(),
        erased_at,
        ReadingSession::TYPE,
        event.version(),
        serde_json::to_string(&event).expect("events are plain JSON")
    )
    .fetch_one(database);
    let row = with_deadline(DEADLINE, row).await?;
    Ok(Erased {
        sessions: row.sessions,
        global_position: row.last_position,
    })
}

/// Writes over events of a reader's erased sessions; returns how many, and
/// whether there are more.
///
/// # Errors
/// [`LogError::Unavailable`]
pub async fn overwrite(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
) -> Result<(i64, bool), LogError> {
    let overwritten = sqlx::query_scalar!(
        r#"select overwrite_events($1, $2) as "overwritten!""#,
        reader_id.uuid(),
        PIECE
    )
    .fetch_one(database);
    let overwritten = with_deadline(DEADLINE, overwritten).await?;
    Ok((overwritten, overwritten == i64::from(PIECE)))
}

/// Readers whose erased events are not all written over yet, those that wait
/// longest first.
///
/// # Errors
/// [`LogError::Unavailable`]
pub async fn unfinished(
    database: impl PgExecutor<'_>,
    limit: i64,
) -> Result<Vec<ReaderId>, LogError> {
    let readers = sqlx::query_scalar!(
        "select reader_id from erasures where done_at is null order by erased_at limit $1",
        limit
    )
    .fetch_all(database);
    let readers = with_deadline(DEADLINE, readers).await?;
    Ok(readers.into_iter().map(ReaderId::from).collect())
}

/// A reader's erasure, if there was one.
///
/// # Errors
/// [`LogError::Unavailable`]
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
    Ok(with_deadline(DEADLINE, found).await?)
}

/// How much the log holds of a reader.
///
/// # Errors
/// [`LogError::Unavailable`]
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
    Ok(with_deadline(DEADLINE, extent).await?)
}

/// How many events of a reader's erased sessions are still to be written over.
///
/// # Errors
/// [`LogError::Unavailable`]
pub async fn left(database: impl PgExecutor<'_>, reader_id: ReaderId) -> Result<i64, LogError> {
    let left = sqlx::query_file_as!(
        Extent,
        "src/erase/extent.sql",
        reader_id.uuid().to_string(),
        true
    )
    .fetch_one(database);
    Ok(with_deadline(DEADLINE, left).await?.events)
}
