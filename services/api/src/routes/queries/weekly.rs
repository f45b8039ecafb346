//! `GET /reading-sessions/stats/weekly`

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chrono::{Datelike, Days, NaiveDate};
use projections::daily_stats;
use serde::Serialize;
use utoipa::ToSchema;

use super::metrics::QueryName;
use super::{ReadTable, first_day_to_read, reading_days};
use crate::auth::Caller;
use crate::extract::{MinPositionParams, Query};
use crate::problem::Problem;
use crate::reading_time::ReadingTime;
use crate::session::ProgressDelta;

const WEEK: u64 = 7;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Weekly)]
pub struct WeeklyResponse {
    /// The last seven days, today first. Days without reading are included.
    #[schema(min_items = 7, max_items = 7)]
    days: Vec<WeekDay>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WeekDay {
    /// The day in the time zone of its sessions.
    date: NaiveDate,
    /// The short name of the weekday: in Russian if the client prefers Russian,
    /// otherwise in English.
    day: &'static str,
    /// Active reading time, in whole minutes.
    minutes: i64,
    /// `minutes` in whole seconds, not rounded to minutes.
    seconds: i64,
    /// The sessions with reading on this day.
    sessions: i64,
    /// The sum of the position changes, in percent of a book. Negative if the
    /// reader moved back.
    #[schema(value_type = f64)]
    progress: ProgressDelta,
}

/// Weekly statistics
///
/// Returns seven days, today first. `Accept-Language` selects the language of
/// their names.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/stats/weekly",
    operation_id = "weeklyStats",
    tag = "statistics",
    params(
        MinPositionParams,
        ("Accept-Language" = Option<String>, Header, description = "Russian names if it starts with `ru`")
    ),
    responses((status = 200, description = "The last seven days", body = WeeklyResponse))
)]
pub async fn handle(
    State(table): State<ReadTable>,
    caller: Caller,
    Query(params): Query<MinPositionParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let from = first_day_to_read(WEEK);
    let rows = table
        .read(
            QueryName::Weekly,
            caller.reader_id,
            params.min_position,
            |mut database| async move {
                daily_stats::days(&mut *database, caller.reader_id, from).await
            },
        )
        .await?;
    let range = reading_days(WEEK, rows.first(), &table.zones);
    let names = names(&headers);
    let days = (0..WEEK)
        .map(|ago| {
            let date = *range.end() - Days::new(ago);
            let row = rows.iter().find(|row| row.day == date);
            let time = ReadingTime::from_day(row.map_or(0, |row| row.active_ms));
            WeekDay {
                date,
                day: names[date.weekday().num_days_from_monday() as usize],
                minutes: time.minutes,
                seconds: time.seconds,
                sessions: row.map_or(0, |row| row.sessions),
                progress: ProgressDelta(row.map_or(0, |row| row.progress)),
            }
        })
        .collect();
    Ok((
        [(header::VARY, "accept-language")],
        Json(WeeklyResponse { days }),
    )
        .into_response())
}

/// The names of the weekdays, Monday first. Clients of the original service show
/// them to Russian readers unchanged.
fn names(headers: &HeaderMap) -> [&'static str; 7] {
    let prefers_russian = headers
        .get(header::ACCEPT_LANGUAGE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("ru"));
    if prefers_russian {
        ["Пн", "Вт", "Ср", "Чт", "Пт", "Сб", "Вс"]
    } else {
        ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    }
}
