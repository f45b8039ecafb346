//! `GET /reading-sessions/stats/streak`

use axum::Json;
use axum::extract::State;
use chrono::NaiveDate;
use domain::streak;
use projections::daily_stats;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Back, ReadTable, last};
use crate::auth::Caller;
use crate::extract::Query;
use crate::problem::Problem;

/// A day counts from this much active time on: opening a book is not reading.
const MIN_ACTIVE_MS: i64 = 60_000;

/// How many days in a row were reading days: days with at least a minute of
/// active reading.
#[derive(Debug, Serialize, ToSchema)]
pub struct Streak {
    /// Up to today; yesterday keeps it alive.
    current: u32,
    /// Ever.
    longest: u32,
    /// Reading days among the last `days`.
    total_reading_days: u64,
    /// The others among them.
    days_without_reading: u64,
}

/// Reading streak
///
/// `current` and `longest` look at all days there are; `days` bounds the two
/// counts.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/stats/streak",
    operation_id = "streak",
    tag = "statistics",
    params(Back),
    responses((status = 200, description = "Days in a row", body = Streak))
)]
pub async fn handle(
    State(table): State<ReadTable>,
    caller: Caller,
    Query(params): Query<Back>,
) -> Result<Json<Streak>, Problem> {
    let days = params.days()?;
    let rows = table
        .read(params.min_position, |mut database| async move {
            daily_stats::days(&mut *database, caller.reader_id, NaiveDate::default()).await
        })
        .await?;
    let (today, first) = last(days, rows.first());
    let reading_days = rows
        .iter()
        .filter(|row| row.active_ms >= MIN_ACTIVE_MS)
        .map(|row| row.day);
    let streak = streak::Streak::from_reading_days(reading_days.clone(), today);
    let total = reading_days
        .filter(|day| (first..=today).contains(day))
        .count();
    let total_reading_days = u64::try_from(total).expect("at most `days`");
    Ok(Json(Streak {
        current: streak.current,
        longest: streak.longest,
        total_reading_days,
        days_without_reading: days - total_reading_days,
    }))
}
