//! Queries of the statistics.

use chrono::{DateTime, NaiveDate, Utc};
use domain::ReaderId;
use domain::calendar::reading_day;
use sqlx::PgExecutor;

use super::ReaderHour;
use super::hours::{SessionOnDay, day_with_hours, latest_zone};
use super::stored::intervals;
use crate::zones::Zones;

/// A reader's statistics of one reading day. Each session's time zone determines its days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderDay {
    pub day: NaiveDate,
    /// Sessions with reading on the day.
    pub sessions: i64,
    /// Active reading time in milliseconds. Time that several sessions share counts once.
    pub active_ms: i64,
    /// Net progress, in ten-thousandths of a percent of a book.
    pub progress: i64,
    /// The time zone of the reader's session that was active last, on whatever day. All
    /// days of a result have the same.
    pub time_zone: String,
}

impl ReaderDay {
    /// The reader's current day, in the time zone of the session that was active last. UTC
    /// if there is none.
    #[must_use]
    pub fn today(newest: Option<&Self>, now: DateTime<Utc>, zones: &Zones) -> NaiveDate {
        let zone = newest.map_or("UTC", |day| day.time_zone.as_str());
        reading_day(now, &zones.get(zone))
    }
}

/// Returns a reader's days from `from` on, newest first. Includes the newest day
/// even if it is before `from`, and leaves out days without reading.
pub async fn days(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    from: NaiveDate,
) -> sqlx::Result<Vec<ReaderDay>> {
    let rows = sqlx::query_file!("src/daily_stats/days.sql", reader_id.uuid(), from)
        .fetch_all(database)
        .await?;
    let latest = rows.iter().max_by_key(|row| row.last_at);
    let time_zone = latest.map_or_else(String::new, |row| row.time_zone.clone());
    let days = rows.into_iter().map(|row| ReaderDay {
        day: row.day,
        sessions: row.sessions,
        active_ms: row.active_ms,
        progress: row.progress,
        time_zone: time_zone.clone(),
    });
    Ok(requested(days, from, |day| day.day))
}

/// Like [`days`], with the hours of each day. Leaves out hours without reading.
pub async fn days_with_hours(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    from: NaiveDate,
    zones: &Zones,
) -> sqlx::Result<Vec<(ReaderDay, Vec<ReaderHour>)>> {
    let rows = sqlx::query_file!("src/daily_stats/reader_rows.sql", reader_id.uuid(), from)
        .fetch_all(database)
        .await?;
    let rows = rows.into_iter().map(|row| {
        Ok(SessionOnDay {
            session_id: row.session_id,
            day: row.day,
            time_zone: row.time_zone,
            progress: row.progress,
            last_at: row.last_at,
            active: intervals(&row.active)?,
        })
    });
    let rows = rows.collect::<sqlx::Result<Vec<SessionOnDay>>>()?;
    let time_zone = latest_zone(&rows);
    let days = rows.chunk_by(|one, next| one.day == next.day).map(|rows| {
        let (mut day, hours) = day_with_hours(rows[0].day, rows, zones);
        time_zone.clone_into(&mut day.time_zone);
        (day, hours)
    });
    Ok(requested(days, from, |(day, _)| day.day))
}

/// Leaves out the days before `from`, except the newest.
fn requested<T>(
    days: impl Iterator<Item = T>,
    from: NaiveDate,
    day: impl Fn(&T) -> NaiveDate,
) -> Vec<T> {
    let days = days.enumerate();
    let days = days.filter(|(index, one)| *index == 0 || day(one) >= from);
    days.map(|(_, one)| one).collect()
}

/// The sums of all readers for one reading day. The time zone of each session determines
/// its days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllReadersDay {
    pub day: NaiveDate,
    /// Readers with sessions on the day.
    pub readers: i64,
    /// Sessions with reading on the day.
    pub sessions: i64,
    /// Active reading time in milliseconds. Time that several sessions of a reader share
    /// counts once.
    pub active_ms: i64,
    /// Net progress, in ten-thousandths of a percent of a book.
    pub progress: i64,
    /// Sessions with more than ten minutes of active time on the day.
    pub long_sessions: i64,
    /// Sessions that ended on the day.
    pub ended_sessions: i64,
}

/// Returns the sums of all readers from `from` on, newest first. Leaves out days
/// without reading.
pub async fn all_readers_days(
    database: impl PgExecutor<'_>,
    from: NaiveDate,
) -> sqlx::Result<Vec<AllReadersDay>> {
    sqlx::query_as!(
        AllReadersDay,
        "select day, readers, sessions, active_ms, progress, long_sessions, ended_sessions
        from days
        where day >= $1
        order by day desc",
        from
    )
    .fetch_all(database)
    .await
}
