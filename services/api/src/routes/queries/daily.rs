//! `GET /reading-sessions/stats/daily`

use axum::Json;
use axum::extract::State;
use chrono::NaiveDate;
use projections::daily_stats;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Back, ReadTable, last, since};
use crate::auth::Caller;
use crate::extract::Query;
use crate::openapi::types;
use crate::problem::Problem;
use crate::session::Progress;

/// The reader's days with reading, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Daily {
    days: Vec<ReadingDay>,
}

/// A day with reading.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadingDay {
    /// The reader's own day.
    date: NaiveDate,
    /// Sessions in which something was read or seen.
    sessions: i64,
    /// Active reading time, in whole minutes.
    active_minutes: i64,
    /// Net progress, in percent of a book.
    #[schema(schema_with = types::progress)]
    progress: Progress,
}

/// Statistics by day
///
/// The reader's own days, from midnight to midnight where they were.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/stats/daily",
    operation_id = "dailyStats",
    tag = "statistics",
    params(Back),
    responses((status = 200, description = "Days with reading, newest first", body = Daily))
)]
pub async fn handle(
    State(table): State<ReadTable>,
    caller: Caller,
    Query(params): Query<Back>,
) -> Result<Json<Daily>, Problem> {
    let days = params.days()?;
    let from = since(days);
    let rows = table
        .read(params.min_position, |mut database| async move {
            daily_stats::days(&mut *database, caller.reader_id, from).await
        })
        .await?;
    let (_, first) = last(days, rows.first());
    let days = rows
        .into_iter()
        .filter(|row| row.day >= first)
        .map(|row| ReadingDay {
            date: row.day,
            sessions: row.sessions,
            active_minutes: row.active_ms / 60_000,
            progress: Progress(row.progress),
        })
        .collect();
    Ok(Json(Daily { days }))
}
