//! Who has a session open. A claim changes only in the transaction of the
//! events that open or close the session (see [`crate::append`]); here it is
//! only read.

use domain::{ReaderId, SessionId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::LogError;

/// The session that a reader has open.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn active_session(
    pool: &PgPool,
    reader_id: ReaderId,
) -> Result<Option<SessionId>, LogError> {
    let claimed = sqlx::query_scalar!(
        "select session_id from claims where reader_id = $1",
        reader_id.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(claimed.and_then(|id| id.parse().ok()))
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
