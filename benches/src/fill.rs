//! Fills the log with SQL. The events equal those of the service. Only the log and the
//! active-session claims are filled: relay and projections write the stream and the read
//! tables.

use sqlx::PgConnection;
use uuid::Uuid;

/// Approximate number of events per statement. A statement holds the order lock.
const BATCH_SIZE: u32 = 1_000_000;

/// Writes sessions that have not ended. Their events are 30 seconds apart, and the last one
/// is at the current time. The events of different sessions alternate. The name
/// determines the ids, so each name can be used once.
pub async fn sessions(
    connection: &mut PgConnection,
    name: &str,
    sessions: u32,
    events_per_session: u32,
) -> anyhow::Result<()> {
    sqlx::query("set synchronous_commit = off")
        .execute(&mut *connection)
        .await?;
    let batch_sessions = (BATCH_SIZE / events_per_session).max(1);
    let mut filled = 0;
    while filled < sessions {
        let count = batch_sessions.min(sessions - filled);
        sqlx::query(include_str!("fill/sessions.sql"))
            .bind(format!("{name}.{filled}"))
            .bind(i32::try_from(events_per_session)?)
            .bind(i32::try_from(count)?)
            .execute(&mut *connection)
            .await?;
        filled += count;
    }
    Ok(())
}

/// Writes ended sessions of a reader.
pub async fn history(
    connection: &mut PgConnection,
    reader: Uuid,
    sessions: i32,
) -> anyhow::Result<()> {
    sqlx::query(include_str!("fill/history.sql"))
        .bind(reader)
        .bind(sessions)
        .execute(connection)
        .await?;
    Ok(())
}

/// Inserts active-session claims for all sessions that started after a global position.
/// Returns their readers and ids.
pub async fn claim_sessions(
    connection: &mut PgConnection,
    after: i64,
) -> anyhow::Result<Vec<(Uuid, String)>> {
    let claimed = sqlx::query_as(
        "insert into claims (reader_id, session_id)
        select (payload ->> 'reader_id')::uuid, aggregate_id from events
        where sequence = 1 and global_position > $1
        returning reader_id, session_id",
    )
    .bind(after)
    .fetch_all(connection)
    .await?;
    Ok(claimed)
}
