//! Logs of a wanted size: events that Postgres writes by itself, each as the
//! service writes it. Nothing but the log and the claims is filled; the stream
//! and the read tables are the relay's and the projections' to make.

use sqlx::PgConnection;
use uuid::Uuid;

/// Events in one statement, about: it holds the order lock.
pub const WAVE: u32 = 1_000_000;

/// Fills a log with sessions that are still active, of so many events each, half
/// a minute apart, the last one now. The events of sessions alternate. Sessions
/// of one name are filled once.
pub async fn sessions(
    connection: &mut PgConnection,
    name: &str,
    sessions: u32,
    events_each: u32,
) -> anyhow::Result<()> {
    sqlx::query("set synchronous_commit = off")
        .execute(&mut *connection)
        .await?;
    let in_wave = (WAVE / events_each).max(1);
    let mut filled = 0;
    while filled < sessions {
        let wave = in_wave.min(sessions - filled);
        sqlx::query(include_str!("fill/sessions.sql"))
            .bind(format!("{name}.{filled}"))
            .bind(i32::try_from(events_each)?)
            .bind(i32::try_from(wave)?)
            .execute(&mut *connection)
            .await?;
        filled += wave;
    }
    Ok(())
}

/// Fills a log with a reader's past: sessions that have all ended.
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

/// Has the sessions that began after a position of the log be the active ones of
/// their readers; returns both.
pub async fn claim(
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
