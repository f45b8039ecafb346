//! `GET /admin/stats/daily`

use axum::Json;
use axum::extract::State;
use chrono::{Days, NaiveDate};
use eventlog::clock;
use projections::daily_stats::{self, AllReadersDay};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};

use crate::extract::Query;
use crate::problem::Problem;
use crate::reading_time::ReadingTime;

const DEFAULT_DAYS: u64 = 90;
const MAX_DAYS: u64 = 366;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// The number of days up to and including today.
    #[param(minimum = 1, maximum = 366, default = 90)]
    days: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DailyOfAll)]
pub struct AllReadersResponse {
    /// The days with sessions, newest first. Other days are missing.
    days: Vec<AllReadersDayResponse>,
}

/// The statistics of all readers for one day.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Day)]
pub struct AllReadersDayResponse {
    /// The day in the time zone of each session.
    date: NaiveDate,
    /// The sessions with reading on this day. A session that crosses midnight counts
    /// on both days.
    total_sessions: i64,
    /// The readers with reading on this day.
    active_users: i64,
    /// The average active reading time per session.
    avg_duration_minutes: f64,
    /// `avg_duration_minutes` in seconds.
    avg_duration_seconds: f64,
    /// The active reading time of all readers, in whole minutes. Time that several
    /// sessions of a reader share counts once.
    total_reading_minutes: i64,
    /// `total_reading_minutes` in whole seconds.
    total_reading_seconds: i64,
    /// The average position change per session, in percent of a book.
    avg_progress_percent: f64,
    /// The sessions with more than ten minutes of active reading time on this day.
    sessions_over_10min: i64,
    /// The ended sessions of which this is the last day. An end by the service counts
    /// until the session continues.
    completed_sessions: i64,
}

/// Daily statistics of all readers
///
/// A day lasts from midnight to midnight in the time zone of each session.
#[utoipa::path(
    get,
    path = "/api/v1/admin/stats/daily",
    operation_id = "dailyStatsOfAll",
    tag = "statistics",
    params(Params),
    responses((status = 200, description = "The days with sessions", body = AllReadersResponse))
)]
pub async fn handle(
    State(pool): State<PgPool>,
    Query(params): Query<Params>,
) -> Result<Json<AllReadersResponse>, Problem> {
    let days @ 1..=MAX_DAYS = params.days.unwrap_or(DEFAULT_DAYS) else {
        return Err(Problem::out_of_range("days", 1, MAX_DAYS));
    };
    let from = clock::now().date_naive() - Days::new(days - 1);
    let days = daily_stats::all_readers_days(&pool, from).await?;
    let days = days.iter().map(AllReadersDayResponse::from).collect();
    Ok(Json(AllReadersResponse { days }))
}

impl From<&AllReadersDay> for AllReadersDayResponse {
    fn from(day: &AllReadersDay) -> Self {
        /// In milliseconds.
        const SECOND: i64 = 1_000;
        const MINUTE: i64 = 60 * SECOND;
        /// In ten-thousandths of a percent.
        const PERCENT: i64 = 10_000;
        let time = ReadingTime::from_day(day.active_ms);
        Self {
            date: day.day,
            total_sessions: day.sessions,
            active_users: day.readers,
            avg_duration_minutes: average(day.active_ms, MINUTE, day.sessions),
            avg_duration_seconds: average(day.active_ms, SECOND, day.sessions),
            total_reading_minutes: time.minutes,
            total_reading_seconds: time.seconds,
            avg_progress_percent: average(day.progress, PERCENT, day.sessions),
            sessions_over_10min: day.long_sessions,
            completed_sessions: day.ended_sessions,
        }
    }
}

/// The average in `unit`s, with two decimals. 0 if `count` is 0.
#[expect(clippy::cast_precision_loss, reason = "the result is rounded")]
fn average(sum: i64, unit: i64, count: i64) -> f64 {
    if count == 0 {
        return 0.0;
    }
    let average = sum as f64 / unit as f64 / count as f64;
    // Adding 0.0 turns -0.0 into 0.0.
    (average * 100.0).round() / 100.0 + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_have_two_decimals_and_are_zero_without_sessions() {
        let stats = AllReadersDay {
            day: NaiveDate::default(),
            readers: 2,
            sessions: 3,
            active_ms: 1_000_000,
            progress: -123_457,
            long_sessions: 1,
            ended_sessions: 2,
        };
        let day = AllReadersDayResponse::from(&stats);
        assert_eq!(day.total_reading_minutes, 16);
        assert_eq!(day.total_reading_seconds, 1_000);
        assert_eq!(day.avg_duration_seconds.to_string(), "333.33");
        assert_eq!(day.avg_duration_minutes.to_string(), "5.56");
        assert_eq!(day.avg_progress_percent.to_string(), "-4.12");
        let none = AllReadersDayResponse::from(&AllReadersDay {
            sessions: 0,
            ..stats
        });
        assert_eq!(none.avg_duration_minutes.to_string(), "0");
        assert_eq!(none.avg_progress_percent.to_string(), "0");
        assert_eq!(average(-1, 10_000, 1).to_string(), "0");
    }
}
