//! The log, read in order. Order of global position is order of visibility,
//! so one number says how far a reader has come.

use domain::{SessionId, Timestamp};
use sqlx::{PgExecutor, PgPool};

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

/// The events at some global positions, in order; those that the log does not
/// hold are left out.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn at(
    database: impl PgExecutor<'_>,
    global_positions: &[i64],
) -> Result<Vec<Stored>, LogError> {
    let events = sqlx::query_file_as!(Stored, "src/read/at.sql", global_positions)
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

/// The global position of the event before a position; 0 when there is none.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn before(database: impl PgExecutor<'_>, global_position: i64) -> Result<i64, LogError> {
    let before = sqlx::query_scalar!(
        "select global_position from events where global_position < $1
        order by global_position desc limit 1",
        global_position
    )
    .fetch_optional(database)
    .await?;
    Ok(before.unwrap_or(0))
}

/// The global position after which events were written at a time or later, by
/// halving: times are not indexed, but ascend with positions, as nearly as the
/// clock of Postgres does.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn before_time(pool: &PgPool, time: Timestamp) -> Result<i64, LogError> {
    // What is up to `low` was written before the time, what is after `high`
    // was not.
    let (mut low, mut high) = (0, head(pool).await?);
    while low < high {
        let middle = low + (high - low) / 2;
        let next = sqlx::query!(
            "select global_position, recorded_at from events where global_position > $1
            order by global_position limit 1",
            middle
        )
        .fetch_optional(pool)
        .await?;
        match next {
            Some(next) if next.recorded_at < time => low = next.global_position,
            _ => high = middle,
        }
    }
    Ok(low)
}
