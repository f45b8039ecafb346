//! `GET /reading-sessions/stats/streak`

use axum::Json;
use axum::extract::State;
use chrono::NaiveDate;
use domain::streak::Streak;
use projections::daily_stats;
use serde::Serialize;
use utoipa::ToSchema;

use super::metrics::QueryName;
use super::{DaysParams, ReadTable, reading_days};
use crate::auth::Caller;
use crate::extract::Query;
use crate::problem::Problem;

/// A day with less active time is no reading day: opening a book is not reading.
const MIN_ACTIVE_MS: i64 = 60_000;

/// Runs of consecutive reading days. A reading day has at least one minute of
/// active reading time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Streak)]
pub struct StreakResponse {
    /// The length of the run that ends today or yesterday, in days.
    current: u32,
    /// The length of the longest run ever, in days.
    longest: u32,
    /// The reading days among the last `days`.
    total_reading_days: u64,
    /// The other days among the last `days`.
    days_without_reading: u64,
}

/// Reading streak
///
/// `current` and `longest` consider the reader's whole history. `days` applies to
/// the two counts only.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/stats/streak",
    operation_id = "streak",
    tag = "statistics",
    params(DaysParams),
    responses((status = 200, description = "The streak", body = StreakResponse))
)]
pub async fn handle(
    State(table): State<ReadTable>,
    caller: Caller,
    Query(params): Query<DaysParams>,
) -> Result<Json<StreakResponse>, Problem> {
    let days = params.days()?;
    let rows = table
        .read(
            QueryName::Streak,
            caller.reader_id,
            params.min_position,
            |mut database| async move {
                daily_stats::days(&mut *database, caller.reader_id, NaiveDate::default()).await
            },
        )
        .await?;
    let range = reading_days(days, rows.first(), &table.zones);
    let days_read = rows
        .iter()
        .filter(|row| row.active_ms >= MIN_ACTIVE_MS)
        .map(|row| row.day);
    let streak = Streak::from_reading_days(days_read.clone(), *range.end());
    let total = days_read.filter(|day| range.contains(day)).count();
    let total_reading_days = u64::try_from(total).expect("at most `days`");
    Ok(Json(StreakResponse {
        current: streak.current,
        longest: streak.longest,
        total_reading_days,
        days_without_reading: days - total_reading_days,
    }))
}
