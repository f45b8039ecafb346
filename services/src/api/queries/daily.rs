//! `GET /reading-sessions/stats/daily`

use axum::Json;
use axum::extract::State;
use chrono::{Days, NaiveDate};
use projections::daily_stats::{self, Day};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ReadTable;
use super::days_back;
use crate::api::auth::Caller;
use crate::api::extract::Query;
use crate::api::freshness;
use crate::api::openapi::schema;
use crate::api::problem::Problem;
use crate::api::session::Progress;
use crate::clock;

/// How far back.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// Days, today among them.
    #[param(minimum = 1, maximum = 366, default = 30)]
    pub days: Option<u64>,
    /// An `X-Global-Position` that the answer must include.
    #[param(minimum = 0)]
    pub min_position: Option<i64>,
}

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
    #[schema(schema_with = schema::progress)]
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
    params(Params),
    responses((status = 200, description = "Days with reading, newest first", body = Daily))
)]
pub async fn handle(
    State(table): State<ReadTable>,
    caller: Caller,
    Query(params): Query<Params>,
) -> Result<Json<Daily>, Problem> {
    let days = days_back(params.days)?;
    freshness::reached(&table.checkpoint, params.min_position).await?;
    let now = clock::now();
    // Where the reader is, today may be a day earlier than in UTC.
    let from = now.date_naive() - Days::new(days);
    let rows = daily_stats::days(&table.pool, caller.reader_id, from).await?;
    let first = Day::today(rows.first(), now) - Days::new(days - 1);
    let days = rows
        .into_iter()
        .take_while(|row| row.day >= first)
        .map(|row| ReadingDay {
            date: row.day,
            sessions: row.sessions,
            active_minutes: row.active_ms / 60_000,
            progress: Progress(row.progress),
        })
        .collect();
    Ok(Json(Daily { days }))
}
