//! Queries of the statistics.

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use domain::ReaderId;
use domain::calendar::reading_day;
use sqlx::PgExecutor;

/// A reader's statistics of one reading day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderDay {
    pub day: NaiveDate,
    /// Sessions with reading on the day.
    pub sessions: i64,
    pub active_ms: i64,
    /// Net progress, in ten-thousandths of a percent of a book.
    pub progress: i64,
    /// The reader's time zone on the day.
    pub time_zone: String,
}

/// A reader's statistics of one hour of a reading day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderHour {
    /// 0 to 23, in the reader's time zone.
    pub hour: i16,
    /// Sessions with reading in the hour.
    pub sessions: i64,
    pub active_ms: i64,
}

impl ReaderDay {
    /// The reader's current day, in the time zone of the reader's newest day. UTC
    /// if there is none.
    #[must_use]
    pub fn today(newest: Option<&Self>, now: DateTime<Utc>) -> NaiveDate {
        let zone = newest
            .and_then(|day| day.time_zone.parse().ok())
            .unwrap_or(Tz::UTC);
        reading_day(now, zone)
    }
}

/// Returns a reader's days from `from` on, newest first. Includes the newest day
/// even if it is before `from`, and leaves out days without reading.
pub async fn days(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    from: NaiveDate,
) -> sqlx::Result<Vec<ReaderDay>> {
    sqlx::query_as!(
        ReaderDay,
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

/// Like [`days`], with the hours of each day. Leaves out hours without reading.
pub async fn days_with_hours(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    from: NaiveDate,
) -> sqlx::Result<Vec<(ReaderDay, Vec<ReaderHour>)>> {
    let rows = sqlx::query_file!(
        "src/daily_stats/days_with_hours.sql",
        reader_id.uuid(),
        from
    )
    .fetch_all(database)
    .await?;
    let days = rows.into_iter().map(|row| {
        let day = ReaderDay {
            day: row.day,
            sessions: row.sessions,
            active_ms: row.active_ms,
            progress: row.progress,
            time_zone: row.time_zone,
        };
        let counts = row.hour_sessions.into_iter().zip(row.hour_active_ms);
        let hours = row.hours.into_iter().zip(counts);
        let hours = hours.map(|(hour, (sessions, active_ms))| ReaderHour {
            hour,
            sessions,
            active_ms,
        });
        (day, hours.collect())
    });
    Ok(days.collect())
}

/// The sums of all readers for one reading day. Each reader's time zone
/// determines the day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllReadersDay {
    pub day: NaiveDate,
    /// Readers with sessions on the day.
    pub readers: i64,
    /// Sessions with reading on the day.
    pub sessions: i64,
    pub active_ms: i64,
    /// Net progress, in ten-thousandths of a percent of a book.
    pub progress: i64,
    /// Sessions that exceeded ten minutes of active time on the day.
    pub long_sessions: i64,
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
