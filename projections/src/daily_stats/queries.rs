//! What is read of the statistics.

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use domain::ReaderId;
use domain::calendar::reading_day;
use sqlx::PgPool;

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

/// A weekday's hour of statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hour {
    /// 1 is Monday, 7 Sunday (ISO 8601).
    pub weekday: i32,
    /// 0 to 23, of the reader's own time.
    pub hour: i32,
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
pub async fn days(pool: &PgPool, reader_id: ReaderId, from: NaiveDate) -> sqlx::Result<Vec<Day>> {
    sqlx::query_as!(
        Day,
        "select day, sessions, active_ms, progress, time_zone from reader_days
        where reader_id = $1
            and day >= least($2, (select max(day) from reader_days where reader_id = $1))
        order by day desc",
        reader_id.uuid(),
        from
    )
    .fetch_all(pool)
    .await
}

/// A reader's hours by weekday, over the days from `from` on; those without
/// reading are not among them.
///
/// # Errors
/// Those of Postgres.
pub async fn hours(pool: &PgPool, reader_id: ReaderId, from: NaiveDate) -> sqlx::Result<Vec<Hour>> {
    sqlx::query_as!(
        Hour,
        r#"select extract(isodow from day)::int as "weekday!", hour::int as "hour!",
            sum(sessions)::bigint as "sessions!", sum(active_ms)::bigint as "active_ms!"
        from reader_hours
        where reader_id = $1 and day >= $2
        group by 1, 2
        order by 1, 2"#,
        reader_id.uuid(),
        from
    )
    .fetch_all(pool)
    .await
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
pub async fn days_of_all(pool: &PgPool, from: NaiveDate) -> sqlx::Result<Vec<DayOfAll>> {
    sqlx::query_as!(
        DayOfAll,
        "select day, readers, sessions, active_ms, progress, long_sessions, ended_sessions
        from days
        where day >= $1
        order by day desc",
        from
    )
    .fetch_all(pool)
    .await
}
