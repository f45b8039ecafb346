//! The log, read in order. Order of global position is order of visibility,
//! so one number says how far a reader has come.

use domain::SessionId;
use sqlx::PgExecutor;

use crate::{LogError, Stored};

/// The events after a global position, in order, at most `limit`.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn after(
    database: impl PgExecutor<'_>,
    global_position: i64,
    limit: i64,
) -> Result<Vec<Stored>, LogError> {
    let events = sqlx::query_file_as!(Stored, "src/read/after.sql", global_position, limit)
        .fetch_all(database)
        .await?;
    Ok(events)
}

/// The events of one session after a sequence, in order.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn session(
    database: impl PgExecutor<'_>,
    session_id: SessionId,
    after: i64,
) -> Result<Vec<Stored>, LogError> {
    let events = sqlx::query_file_as!(
        Stored,
        "src/read/session.sql",
        session_id.to_string(),
        after
    )
    .fetch_all(database)
    .await?;
    Ok(events)
}

/// The global position of a session's event.
///
/// # Errors
/// [`LogError::Unavailable`], also when there is no such event.
pub async fn position(
    database: impl PgExecutor<'_>,
    session_id: SessionId,
    sequence: i64,
) -> Result<i64, LogError> {
    let position = sqlx::query_scalar!(
        "select global_position from events where aggregate_id = $1 and sequence = $2",
        session_id.to_string(),
        sequence
    )
    .fetch_one(database)
    .await?;
    Ok(position)
}

/// The global position of the newest event; 0 when there is none.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn head(database: impl PgExecutor<'_>) -> Result<i64, LogError> {
    let head = sqlx::query_scalar!(
        r#"select global_position from events order by global_position desc limit 1"#
    )
    .fetch_optional(database)
    .await?;
    Ok(head.unwrap_or(0))
}
