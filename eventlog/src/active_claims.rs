//! Who has a session open. A claim changes only in the transaction of the
//! events that open or close the session (see [`crate::append`]); here it is
//! only read.

use domain::{ReaderId, SessionId, Timestamp};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::LogError;

/// The session that a reader has open.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn active_session(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
) -> Result<Option<SessionId>, LogError> {
    let claimed = sqlx::query_scalar!(
        "select session_id from claims where reader_id = $1",
        reader_id.uuid()
    )
    .fetch_optional(database)
    .await?;
    Ok(claimed.and_then(|id| id.parse().ok()))
}

/// What the log holds of a reader's active session, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The session, its last event's sequence, and that event's global position.
    pub session: Option<(SessionId, i64, i64)>,
    /// The position of the log's last event.
    pub head: i64,
}

/// The session that a reader has open and how far it is, in one statement.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn claimed(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
) -> Result<Claimed, LogError> {
    let row = sqlx::query_file!("src/active_claims/claimed.sql", reader_id.uuid())
        .fetch_one(database)
        .await?;
    let session = || {
        Some((
            row.session_id.as_ref()?.parse().ok()?,
            row.sequence?,
            row.global_position?,
        ))
    };
    Ok(Claimed {
        session: session(),
        head: row.head,
    })
}

/// Of some readers, those with a session open, and the global position at which
/// each was started.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn opened(
    database: impl PgExecutor<'_>,
    readers: &[ReaderId],
) -> Result<Vec<(ReaderId, SessionId, i64)>, LogError> {
    let ids: Vec<Uuid> = readers.iter().map(|reader| reader.uuid()).collect();
    let rows = sqlx::query!(
        "select reader_id, session_id, global_position from claims
        join events on aggregate_id = session_id and sequence = 1
        where reader_id = any ($1)",
        &ids
    )
    .fetch_all(database)
    .await?;
    let opened = |(reader_id, session_id, position)| {
        let (reader_id, session_id) = claim((reader_id, session_id))?;
        Some((reader_id, session_id, position))
    };
    let rows = rows
        .into_iter()
        .map(|row| (row.reader_id, row.session_id, row.global_position));
    Ok(rows.filter_map(opened).collect())
}

/// Readers with a session open, in the order of their ids, after one of them.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn page(
    pool: &PgPool,
    after: Option<ReaderId>,
    limit: i64,
) -> Result<Vec<(ReaderId, SessionId)>, LogError> {
    let rows = sqlx::query!(
        "select reader_id, session_id from claims
        where $1::uuid is null or reader_id > $1
        order by reader_id
        limit $2",
        after.map(ReaderId::uuid),
        limit
    )
    .fetch_all(pool)
    .await?;
    let claims = rows.into_iter().map(|row| (row.reader_id, row.session_id));
    Ok(claims.filter_map(claim).collect())
}

/// A session of which nothing was heard for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Whose.
    pub reader_id: ReaderId,
    /// Which.
    pub session_id: SessionId,
    /// How many events it has.
    pub sequence: i64,
}

/// Open sessions without an event since a moment, in the order of their readers,
/// after one of them. One whose id is ahead of time is found when that has come.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn idle(
    database: impl PgExecutor<'_>,
    since: Timestamp,
    after: Option<ReaderId>,
    limit: i64,
) -> Result<Vec<Idle>, LogError> {
    let rows = sqlx::query_file!(
        "src/active_claims/idle.sql",
        after.map(ReaderId::uuid),
        SessionId::new(since).to_string(),
        since,
        limit
    )
    .fetch_all(database)
    .await?;
    let idle = rows.into_iter().filter_map(|row| {
        let (reader_id, session_id) = claim((row.reader_id, row.session_id))?;
        Some(Idle {
            reader_id,
            session_id,
            sequence: row.sequence,
        })
    });
    Ok(idle.collect())
}

/// How many readers have a session open.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn count(pool: &PgPool) -> Result<i64, LogError> {
    let count = sqlx::query_scalar!(r#"select count(*) as "count!" from claims"#)
        .fetch_one(pool)
        .await?;
    Ok(count)
}

fn claim((reader_id, session_id): (Uuid, String)) -> Option<(ReaderId, SessionId)> {
    Some((ReaderId::from(reader_id), session_id.parse().ok()?))
}
