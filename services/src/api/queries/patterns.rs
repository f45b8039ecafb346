//! `GET /reading-sessions/stats/patterns`

use axum::Json;
use axum::extract::State;
use chrono::{Datelike, Days};
use projections::daily_stats;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Back, ReadTable};
use crate::api::auth::Caller;
use crate::api::extract::Query;
use crate::api::freshness;
use crate::api::problem::Problem;

/// When in the week somebody reads.
#[derive(Debug, Serialize, ToSchema)]
pub struct Patterns {
    /// All seven, Monday first.
    #[schema(min_items = 7, max_items = 7)]
    weekdays: Vec<WeekdayPattern>,
    /// Hours with reading, by weekday and hour.
    #[schema(max_items = 168)]
    hours: Vec<HourPattern>,
}

/// What was read on a weekday.
#[derive(Debug, Serialize, ToSchema)]
pub struct WeekdayPattern {
    /// 1 is Monday, 7 Sunday (ISO 8601).
    #[schema(minimum = 1, maximum = 7)]
    weekday: u32,
    /// Active reading time, in whole minutes.
    active_minutes: i64,
    /// Sessions in which something was read or seen, each once a day.
    sessions: i64,
}

/// What was read in an hour of a weekday.
#[derive(Debug, Serialize, ToSchema)]
pub struct HourPattern {
    /// 1 is Monday, 7 Sunday (ISO 8601).
    #[schema(minimum = 1, maximum = 7)]
    weekday: i32,
    /// Of the reader's own day.
    #[schema(minimum = 0, maximum = 23)]
    hour: i32,
    /// Active reading time, in whole minutes.
    active_minutes: i64,
    /// Sessions in which something was read or seen, each once an hour.
    sessions: i64,
}

/// Reading patterns
///
/// Active time and sessions by weekday, and by weekday and hour.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/stats/patterns",
    operation_id = "patterns",
    tag = "statistics",
    params(Back),
    responses((status = 200, description = "By weekday and hour", body = Patterns))
)]
pub async fn handle(
    State(table): State<ReadTable>,
    caller: Caller,
    Query(params): Query<Back>,
) -> Result<Json<Patterns>, Problem> {
    let days = params.days()?;
    freshness::reached(&table.checkpoint, params.min_position).await?;
    let (today, rows) = table.last_days(caller.reader_id, days).await?;
    let first = today - Days::new(days - 1);
    let hours = daily_stats::hours(&table.pool, caller.reader_id, first).await?;
    let weekdays = (1..=7)
        .map(|weekday| {
            let of_it = rows
                .iter()
                .filter(|row| row.day.weekday().number_from_monday() == weekday);
            WeekdayPattern {
                weekday,
                active_minutes: of_it.clone().map(|row| row.active_ms).sum::<i64>() / 60_000,
                sessions: of_it.map(|row| row.sessions).sum(),
            }
        })
        .collect();
    let hours = hours
        .into_iter()
        .map(|hour| HourPattern {
            weekday: hour.weekday,
            hour: hour.hour,
            active_minutes: hour.active_ms / 60_000,
            sessions: hour.sessions,
        })
        .collect();
    Ok(Json(Patterns { weekdays, hours }))
}
