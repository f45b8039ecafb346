//! What is read of the statistics.

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use domain::ReaderId;
use domain::calendar::reading_day;
use sqlx::PgExecutor;

/// A day of statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// The reading day.
    pub day: NaiveDate,
    /// Sessions in which something was read or seen.
    pub sessions: i64,
    /// Active time, in milliseconds.
    pub active_ms: i64,
    /// Net progress, in ten-thousandths of a percent of a book.
    pub progress: i64,
    /// The time zone that the reader was in.
    pub time_zone: String,
}

/// An hour of a day's statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hour {
    /// 0 to 23, of the reader's own time.
    pub hour: i16,
    /// Sessions in which something was read or seen.
    pub sessions: i64,
    /// Active time, in milliseconds.
    pub active_ms: i64,
}

impl Day {
    /// What day it is for a reader, by the zone of the newest of their days.
    #[must_use]
    pub fn today(newest: Option<&Self>, now: DateTime<Utc>) -> NaiveDate {
        let zone = newest
            .and_then(|day| day.time_zone.parse().ok())
            .unwrap_or(Tz::UTC);
        reading_day(now, zone)
    }
}

/// A reader's days from `from` on, newest first, and in any case the newest;
/// days without reading are not among them.
///
/// # Errors
/// Those of Postgres.
pub async fn days(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    from: NaiveDate,
) -> sqlx::Result<Vec<Day>> {
    sqlx::query_as!(
        Day,
        "select day, sessions, active_ms, progress, time_zone from reader_days
        where reader_id = $1
            and day >= least($2, (select max(day) from reader_days where reader_id = $1))
        order by day desc",
        reader_id.uuid(),
        from
    )
    .fetch_all(database)
    .await
}

/// As [`days`], each with its hours with reading.
///
/// # Errors
/// Those of Postgres.
pub async fn days_with_hours(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    from: NaiveDate,
) -> sqlx::Result<Vec<(Day, Vec<Hour>)>> {
    let rows = sqlx::query_file!(
        "src/daily_stats/days_with_hours.sql",
        reader_id.uuid(),
        from
    )
    .fetch_all(database)
    .await?;
    let days = rows.into_iter().map(|row| {
        let day = Day {
            day: row.day,
            sessions: row.sessions,
            active_ms: row.active_ms,
            progress: row.progress,
            time_zone: row.time_zone,
        };
        let counts = row.hour_sessions.into_iter().zip(row.hour_active_ms);
        let hours = row.hours.into_iter().zip(counts);
        let hours = hours.map(|(hour, (sessions, active_ms))| Hour {
            hour,
            sessions,
            active_ms,
        });
        (day, hours.collect())
    });
    Ok(days.collect())
}

/// A day of all readers, each by the own reading day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayOfAll {
    /// The day.
    pub day: NaiveDate,
    /// Readers who were seen reading.
    pub readers: i64,
    /// Sessions in which something was read or seen.
    pub sessions: i64,
    /// Active time, in milliseconds.
    pub active_ms: i64,
    /// Net progress, in ten-thousandths of a percent of a book.
    pub progress: i64,
    /// Sessions that came to more than ten minutes of active time.
    pub long_sessions: i64,
    /// Sessions that ended.
    pub ended_sessions: i64,
}

/// The days of all readers from `from` on, newest first; those without reading
/// are not among them.
///
/// # Errors
/// Those of Postgres.
pub async fn days_of_all(
    database: impl PgExecutor<'_>,
    from: NaiveDate,
) -> sqlx::Result<Vec<DayOfAll>> {
    sqlx::query_as!(
        DayOfAll,
        "select day, readers, sessions, active_ms, progress, long_sessions, ended_sessions
        from days
        where day >= $1
        order by day desc",
        from
    )
    .fetch_all(database)
    .await
}
