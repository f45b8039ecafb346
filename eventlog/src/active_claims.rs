//! Active-session claims. A claim names the active session of a reader, and a
//! reader has at most one.
//!
//! This module only reads active-session claims. They change in the transaction of
//! the events that start or end the session, see [`crate::append`].

use domain::{ReaderId, SessionId, Timestamp};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::LogError;

/// The activity of a reader. It determines which session is active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderActivity {
    /// The active session, which has the newest observation of all.
    pub active: Option<SessionId>,
    /// The reader's newest observation outside the active session, if there is a
    /// record of it: the end of an active session and a late observation leave one.
    pub newest: Option<Timestamp>,
}

/// A reader's active session and newest observation, in one statement.
pub async fn reader_activity(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
) -> Result<ReaderActivity, LogError> {
    let row = sqlx::query!(
        "select
            (select session_id from claims where reader_id = $1) as session_id,
            (select observed_at from newest_observations where reader_id = $1) as observed_at",
        reader_id.uuid()
    )
    .fetch_one(database)
    .await?;
    Ok(ReaderActivity {
        active: row.session_id.and_then(|id| id.parse().ok()),
        newest: row.observed_at,
    })
}

/// The time zone of the reader's newest session, by its id, as its start contains it.
/// A start without a time zone is in UTC. `None` if the reader has no session, or only
/// erased ones.
pub async fn last_time_zone(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
) -> Result<Option<String>, LogError> {
    let time_zone = sqlx::query_file_scalar!(
        "src/active_claims/last_time_zone.sql",
        reader_id.uuid().to_string()
    )
    .fetch_optional(database)
    .await?;
    Ok(time_zone)
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

/// The active sessions of the given readers. Readers without an active session are
/// left out.
pub async fn of_readers(
    database: impl PgExecutor<'_>,
    readers: &[ReaderId],
) -> Result<Vec<(ReaderId, SessionId)>, LogError> {
    let ids: Vec<Uuid> = readers.iter().map(|reader| reader.uuid()).collect();
    let rows = sqlx::query!(
        "select reader_id, session_id from claims where reader_id = any ($1)",
        &ids
    )
    .fetch_all(database)
    .await?;
    let claims = rows
        .iter()
        .filter_map(|row| claim(row.reader_id, &row.session_id));
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
