//! Reads the rows that a batch can change, and those that determine the sums of their
//! days.

use domain::{Intervals, Position, SessionId, ZoneName};
use sqlx::PgConnection;

use super::batch::TouchedDays;
use super::merge::StoredDays;
use super::multirange;
use super::session_days::{End, EndPosition, Observed, SessionDay};

/// Reads all rows of the touched sessions, and the other rows of their readers' days.
pub(super) async fn read(
    connection: &mut PgConnection,
    touched: &TouchedDays,
) -> sqlx::Result<StoredDays> {
    let mut stored = StoredDays::new();
    let sessions = touched.changes.keys().chain(&touched.erased);
    let sessions: Vec<String> = sessions.map(SessionId::to_string).collect();
    if sessions.is_empty() {
        return Ok(stored);
    }
    let (mut readers, mut days) = (Vec::new(), Vec::new());
    for (reader_id, day) in touched.reader_days() {
        readers.push(reader_id.uuid());
        days.push(day);
    }
    let ended_or_erased: Vec<String> = touched.ended_or_erased().map(|id| id.to_string()).collect();
    let rows = sqlx::query_file!(
        "src/daily_stats/stored.sql",
        &sessions,
        &readers,
        &days,
        &ended_or_erased
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let session_id: SessionId = row
            .session_id
            .parse()
            .map_err(|error: uuid::Error| sqlx::Error::Decode(Box::new(error)))?;
        let observed = match (row.last_at, position(row.position)?) {
            (Some(at), Some(position)) => Some(Observed { at, position }),
            _ => None,
        };
        let end_position = position(row.end_position)?;
        let end_position = end_position.map(|position| match row.end_position_at {
            Some(at) => EndPosition::Observed(Observed { at, position }),
            None => EndPosition::Own(position),
        });
        let session_day = SessionDay {
            reader_id: row.reader_id.into(),
            time_zone: ZoneName::new(&row.time_zone),
            active: intervals(&row.active)?,
            observed,
            end: row.ended_at.map(|at| End {
                at,
                position: end_position,
            }),
            start_position: position(row.start_position)?,
            progress: row.progress,
            is_ended: row.ended,
            is_after_end: row.after_end,
        };
        let days = stored.entry(session_id).or_default();
        days.complete_to = days.complete_to.max(row.complete_to);
        days.insert(row.day, session_day);
    }
    Ok(stored)
}

fn position(steps: Option<i32>) -> sqlx::Result<Option<Position>> {
    steps
        .map(|steps| Position::from_steps(steps).map_err(|error| sqlx::Error::Decode(error.into())))
        .transpose()
}

/// The intervals in the result of `multirange_send`.
pub(super) fn intervals(active: &[u8]) -> sqlx::Result<Intervals> {
    multirange::decode(active).map_err(|error| sqlx::Error::Decode(error.into()))
}
