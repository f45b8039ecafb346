//! `GET /reading-sessions/stats/weekly`

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chrono::{Datelike, Days, NaiveDate};
use projections::daily_stats;
use serde::Serialize;
use utoipa::ToSchema;

use super::{ReadTable, last, since};
use crate::auth::Caller;
use crate::extract::{Fresh, Query};
use crate::openapi::types;
use crate::problem::Problem;
use crate::session::Progress;

const WEEK: u64 = 7;

/// Seven days, today first, also those without reading.
#[derive(Debug, Serialize, ToSchema)]
pub struct Weekly {
    #[schema(min_items = 7, max_items = 7)]
    days: Vec<WeekDay>,
}

/// One of the seven.
#[derive(Debug, Serialize, ToSchema)]
pub struct WeekDay {
    /// The reader's own day.
    date: NaiveDate,
    /// Its name, short: in Russian for who prefers that, else in English.
    day: &'static str,
    /// Active reading time, in whole minutes.
    minutes: i64,
    /// Sessions in which something was read or seen.
    sessions: i64,
    /// Net progress, in percent of a book.
    #[schema(schema_with = types::progress)]
    progress: Progress,
}

/// Statistics of the week
///
/// Always seven days, today first; `Accept-Language` chooses their names.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/stats/weekly",
    operation_id = "weeklyStats",
    tag = "statistics",
    params(
        Fresh,
        ("Accept-Language" = Option<String>, Header, description = "`ru` for Russian names")
    ),
    responses((status = 200, description = "Seven days, today first", body = Weekly))
)]
pub async fn handle(
    State(table): State<ReadTable>,
    caller: Caller,
    Query(fresh): Query<Fresh>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let from = since(WEEK);
    let rows = table
        .read(fresh.min_position, |mut database| async move {
            daily_stats::days(&mut *database, caller.reader_id, from).await
        })
        .await?;
    let (today, _) = last(WEEK, rows.first());
    let names = names(&headers);
    let days = (0..WEEK)
        .map(|ago| {
            let date = today - Days::new(ago);
            let row = rows.iter().find(|row| row.day == date);
            WeekDay {
                date,
                day: names[date.weekday().num_days_from_monday() as usize],
                minutes: row.map_or(0, |row| row.active_ms / 60_000),
                sessions: row.map_or(0, |row| row.sessions),
                progress: Progress(row.map_or(0, |row| row.progress)),
            }
        })
        .collect();
    Ok(([(header::VARY, "accept-language")], Json(Weekly { days })).into_response())
}

/// The names of the days from Monday on. Clients of the original service are
/// Russian and show them as they come.
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
