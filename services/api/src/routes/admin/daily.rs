//! `GET /admin/stats/daily`

use axum::Json;
use axum::extract::State;
use chrono::{Days, NaiveDate};
use projections::daily_stats::{self, DayOfAll};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};

use crate::extract::Query;
use crate::problem::Problem;
use eventlog::clock;

const DEFAULT_DAYS: u64 = 90;
const MAX_DAYS: u64 = 366;

/// How far back.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// Days, today among them.
    #[param(minimum = 1, maximum = 366, default = 90)]
    days: Option<u64>,
}

/// The days of all readers, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DailyOfAll {
    days: Vec<Day>,
}

/// A day of all readers, each by the own reading day.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Day {
    /// The day.
    date: NaiveDate,
    /// Sessions in which something was read or seen; one that goes over midnight
    /// counts on both days.
    total_sessions: i64,
    /// Readers who were seen reading.
    active_users: i64,
    /// Active time, by session.
    avg_duration_minutes: f64,
    /// Active time of all, in whole minutes.
    total_reading_minutes: i64,
    /// Net progress in percent of a book, by session.
    avg_progress_percent: f64,
    /// Sessions that came to more than ten minutes of active time on the day; each
    /// counts on one day.
    sessions_over_10min: i64,
    /// Sessions that ended; each counts on one day.
    completed_sessions: i64,
}

/// Statistics by day, of all readers
///
/// A reader's day is from midnight to midnight where the reader was; days
/// without reading are left out.
#[utoipa::path(
    get,
    path = "/api/v1/admin/stats/daily",
    operation_id = "dailyStatsOfAll",
    tag = "statistics",
    params(Params),
    responses((status = 200, description = "Days with reading, newest first", body = DailyOfAll))
)]
pub async fn handle(
    State(pool): State<PgPool>,
    Query(params): Query<Params>,
) -> Result<Json<DailyOfAll>, Problem> {
    let days @ 1..=MAX_DAYS = params.days.unwrap_or(DEFAULT_DAYS) else {
        return Err(Problem::invalid("days", format!("from 1 to {MAX_DAYS}")));
    };
    let from = clock::now().date_naive() - Days::new(days - 1);
    let days = daily_stats::days_of_all(&pool, from).await?;
    let days = days.iter().map(Day::from).collect();
    Ok(Json(DailyOfAll { days }))
}

impl From<&DayOfAll> for Day {
    fn from(day: &DayOfAll) -> Self {
        /// A minute in milliseconds, and a percent in ten-thousandths.
        const MINUTE: i64 = 60_000;
        const PERCENT: i64 = 10_000;
        Self {
            date: day.day,
            total_sessions: day.sessions,
            active_users: day.readers,
            avg_duration_minutes: average(day.active_ms, MINUTE, day.sessions),
            total_reading_minutes: day.active_ms / MINUTE,
            avg_progress_percent: average(day.progress, PERCENT, day.sessions),
            sessions_over_10min: day.long_sessions,
            completed_sessions: day.ended_sessions,
        }
    }
}

/// With two decimals; of nothing, nothing.
#[expect(clippy::cast_precision_loss, reason = "rounded far above that")]
fn average(sum: i64, unit: i64, count: i64) -> f64 {
    if count == 0 {
        return 0.0;
    }
    let average = sum as f64 / unit as f64 / count as f64;
    // Zero has no sign.
    (average * 100.0).round() / 100.0 + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_have_two_decimals_and_nothing_is_divided_by_nothing() {
        let of_all = DayOfAll {
            day: NaiveDate::default(),
            readers: 2,
            sessions: 3,
            active_ms: 1_000_000,
            progress: -123_457,
            long_sessions: 1,
            ended_sessions: 2,
        };
        let day = Day::from(&of_all);
        assert_eq!(day.total_reading_minutes, 16);
        assert_eq!(day.avg_duration_minutes.to_string(), "5.56");
        assert_eq!(day.avg_progress_percent.to_string(), "-4.12");
        let none = Day::from(&DayOfAll {
            sessions: 0,
            ..of_all
        });
        assert_eq!(none.avg_duration_minutes.to_string(), "0");
        assert_eq!(none.avg_progress_percent.to_string(), "0");
        assert_eq!(average(-1, 10_000, 1).to_string(), "0");
    }
}
