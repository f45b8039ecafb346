//! Active-session claims. A claim names the active session of a reader, and a
//! reader has at most one.
//!
//! This module only reads active-session claims. They change in the transaction of
//! the events that start or end the session, see [`crate::append`].

use domain::{ReaderId, SessionId, Timestamp};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::LogError;

/// The reader's active session.
pub async fn active_session(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
) -> Result<Option<SessionId>, LogError> {
    let session_id = sqlx::query_scalar!(
        "select session_id from claims where reader_id = $1",
        reader_id.uuid()
    )
    .fetch_optional(database)
    .await?;
    Ok(session_id.and_then(|id| id.parse().ok()))
}

/// A reader's active-session claim and the end of the log, from one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveClaim {
    /// The active session, the sequence of its last event, and that event's global
    /// position.
    pub session: Option<(SessionId, i64, i64)>,
    /// The global position of the log's last event.
    pub head: i64,
}

/// The reader's active-session claim and the end of the log, in one statement.
pub async fn active_claim(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
) -> Result<ActiveClaim, LogError> {
    let row = sqlx::query_file!("src/active_claims/active_claim.sql", reader_id.uuid())
        .fetch_one(database)
        .await?;
    let session = || {
        Some((
            row.session_id.as_ref()?.parse().ok()?,
            row.sequence?,
            row.global_position?,
        ))
    };
    Ok(ActiveClaim {
        session: session(),
        head: row.head,
    })
}

/// The active sessions of the given readers, each with the global position of its
/// start. Readers without an active session are left out.
pub async fn with_global_start_positions(
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
    let claims = rows.into_iter().filter_map(|row| {
        let (reader_id, session_id) = claim(row.reader_id, &row.session_id)?;
        Some((reader_id, session_id, row.global_position))
    });
    Ok(claims.collect())
}

/// At most `limit` readers with an active session, in the order of their ids,
/// starting after the reader `after`.
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
    let claims = rows
        .iter()
        .filter_map(|row| claim(row.reader_id, &row.session_id));
    Ok(claims.collect())
}

/// An active session that has received no event for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleSession {
    pub reader_id: ReaderId,
    pub session_id: SessionId,
    /// The sequence of the last event. The session is idle no longer when it has a
    /// later one.
    pub sequence: i64,
}

/// At most `limit` active sessions without an event since a time, in the order of
/// their readers, starting after the reader `after`.
///
/// A client's id may contain a time in the future. Such a session counts as idle
/// only after that time.
pub async fn idle(
    database: impl PgExecutor<'_>,
    since: Timestamp,
    after: Option<ReaderId>,
    limit: i64,
) -> Result<Vec<IdleSession>, LogError> {
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
        let (reader_id, session_id) = claim(row.reader_id, &row.session_id)?;
        Some(IdleSession {
            reader_id,
            session_id,
            sequence: row.sequence,
        })
    });
    Ok(idle.collect())
}

/// The number of readers with an active session.
pub async fn count(pool: &PgPool) -> Result<i64, LogError> {
    let count = sqlx::query_scalar!(r#"select count(*) as "count!" from claims"#)
        .fetch_one(pool)
        .await?;
    Ok(count)
}

fn claim(reader_id: Uuid, session_id: &str) -> Option<(ReaderId, SessionId)> {
    Some((ReaderId::from(reader_id), session_id.parse().ok()?))
}
