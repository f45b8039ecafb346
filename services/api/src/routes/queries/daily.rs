//! `GET /reading-sessions/stats/daily`

use axum::Json;
use axum::extract::State;
use chrono::NaiveDate;
use projections::daily_stats;
use serde::Serialize;
use utoipa::ToSchema;

use super::metrics::QueryName;
use super::{DaysParams, ReadTable, first_day_to_read, reading_days};
use crate::auth::Caller;
use crate::extract::Query;
use crate::problem::Problem;
use crate::reading_time::ReadingTime;
use crate::session::ProgressDelta;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Daily)]
pub struct DailyResponse {
    /// The days with sessions, newest first. Other days are missing.
    days: Vec<ReadingDay>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ReadingDay {
    /// The day in the time zone of its sessions.
    date: NaiveDate,
    /// The sessions with reading on this day.
    sessions: i64,
    /// Active reading time, in whole minutes.
    active_minutes: i64,
    /// `active_minutes` in whole seconds, not rounded to minutes.
    active_seconds: i64,
    /// The sum of the position changes, in percent of a book. Negative if the
    /// reader moved back.
    #[schema(value_type = f64)]
    progress: ProgressDelta,
}

/// Daily statistics
///
/// A day lasts from midnight to midnight in the time zone of each session.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/stats/daily",
    operation_id = "dailyStats",
    tag = "statistics",
    params(DaysParams),
    responses((status = 200, description = "The days with sessions", body = DailyResponse))
)]
pub async fn handle(
    State(table): State<ReadTable>,
    caller: Caller,
    Query(params): Query<DaysParams>,
) -> Result<Json<DailyResponse>, Problem> {
    let days = params.days()?;
    let from = first_day_to_read(days);
    let rows = table
        .read(
            QueryName::Daily,
            caller.reader_id,
            params.min_position,
            |mut database| async move {
                daily_stats::days(&mut *database, caller.reader_id, from).await
            },
        )
        .await?;
    let range = reading_days(days, rows.first(), &table.zones);
    let days = rows
        .into_iter()
        .filter(|row| row.day >= *range.start())
        .map(|row| {
            let time = ReadingTime::from_day(row.active_ms);
            ReadingDay {
                date: row.day,
                sessions: row.sessions,
                active_minutes: time.minutes,
                active_seconds: time.seconds,
                progress: ProgressDelta(row.progress),
            }
        })
        .collect();
    Ok(Json(DailyResponse { days }))
}
