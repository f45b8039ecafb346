//! Reads events and global positions from the log. Reads never lock and never write.
//!
//! The order of global positions is the order in which events become visible.
//! Therefore one number describes how far a consumer has read.

use domain::{SessionId, Timestamp};
use sqlx::{PgExecutor, PgPool};

use crate::{LogError, StoredEvent};

/// At most `limit` events after a global position, in order.
pub async fn after(
    database: impl PgExecutor<'_>,
    global_position: i64,
    limit: i64,
) -> Result<Vec<StoredEvent>, LogError> {
    let events = sqlx::query_file_as!(StoredEvent, "src/read/after.sql", global_position, limit)
        .fetch_all(database)
        .await?;
    Ok(events)
}

/// The events at the given global positions, in order. Leaves out those without an
/// event.
pub async fn at(
    database: impl PgExecutor<'_>,
    global_positions: &[i64],
) -> Result<Vec<StoredEvent>, LogError> {
    let events = sqlx::query_file_as!(StoredEvent, "src/read/at.sql", global_positions)
        .fetch_all(database)
        .await?;
    Ok(events)
}

/// The events of one session after a sequence, in order.
pub async fn session(
    database: impl PgExecutor<'_>,
    session_id: SessionId,
    after: i64,
) -> Result<Vec<StoredEvent>, LogError> {
    let events = sqlx::query_file_as!(
        StoredEvent,
        "src/read/session.sql",
        session_id.to_string(),
        after
    )
    .fetch_all(database)
    .await?;
    Ok(events)
}

/// At most `limit` events of one session after a sequence, in order.
pub async fn session_page(
    database: impl PgExecutor<'_>,
    session_id: SessionId,
    after: i64,
    limit: i64,
) -> Result<Vec<StoredEvent>, LogError> {
    let events = sqlx::query_file_as!(
        StoredEvent,
        "src/read/session_page.sql",
        session_id.to_string(),
        after,
        limit
    )
    .fetch_all(database)
    .await?;
    Ok(events)
}

/// The first event of each session, in order. Leaves out sessions without an event.
pub async fn first(
    database: impl PgExecutor<'_>,
    session_ids: &[String],
) -> Result<Vec<StoredEvent>, LogError> {
    let events = sqlx::query_file_as!(StoredEvent, "src/read/first.sql", session_ids)
        .fetch_all(database)
        .await?;
    Ok(events)
}

/// The global position of a session's event.
///
/// # Errors
/// [`LogError::Broken`] if there is no such event.
pub async fn global_position_of(
    database: impl PgExecutor<'_>,
    session_id: SessionId,
    sequence: i64,
) -> Result<i64, LogError> {
    let global_position = sqlx::query_scalar!(
        "select global_position from events where aggregate_id = $1 and sequence = $2",
        session_id.to_string(),
        sequence
    )
    .fetch_one(database)
    .await?;
    Ok(global_position)
}

/// The global position of the newest event; 0 if the log is empty.
pub async fn head(database: impl PgExecutor<'_>) -> Result<i64, LogError> {
    let head = sqlx::query_scalar!(
        r#"select global_position from events order by global_position desc limit 1"#
    )
    .fetch_optional(database)
    .await?;
    Ok(head.unwrap_or(0))
}

/// The global position of the last event before a global position; 0 if there is
/// none.
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

/// The global position of the last event that was recorded before a time; 0 if
/// there is none.
///
/// This is a binary search over global positions, because times have no index.
/// Recording times ascend with global positions, except for adjustments of
/// Postgres's clock.
pub async fn before_time(pool: &PgPool, time: Timestamp) -> Result<i64, LogError> {
    // Events up to `low` were recorded before the time, events after `high` were
    // not.
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
