//! `GET /reading-sessions/stats/patterns`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use chrono::Datelike;
use projections::daily_stats;
use serde::Serialize;
use utoipa::ToSchema;

use super::{DaysParams, ReadTable, first_day_to_read, reading_days};
use crate::auth::Caller;
use crate::extract::Query;
use crate::problem::Problem;

/// When in the week the reader reads.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Patterns)]
pub struct PatternsResponse {
    /// All seven weekdays, Monday first.
    #[schema(min_items = 7, max_items = 7)]
    weekdays: Vec<WeekdayPattern>,
    /// The hours with reading, ordered by weekday and hour. Other hours are
    /// missing.
    #[schema(max_items = 168)]
    hours: Vec<HourPattern>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WeekdayPattern {
    /// 1 is Monday, 7 Sunday (ISO 8601).
    #[schema(minimum = 1, maximum = 7)]
    weekday: u32,
    /// Active reading time, in whole minutes.
    active_minutes: i64,
    /// The sessions with reading on this weekday. A session counts once per day.
    sessions: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct HourPattern {
    /// 1 is Monday, 7 Sunday (ISO 8601).
    #[schema(minimum = 1, maximum = 7)]
    weekday: u32,
    /// The hour of the reading day, in the time zone of its sessions.
    #[schema(minimum = 0, maximum = 23)]
    hour: i16,
    /// Active reading time, in whole minutes.
    active_minutes: i64,
    /// The sessions with reading in this hour. A session counts once per hour.
    sessions: i64,
}

/// Reading patterns
///
/// Active reading time and sessions by weekday, and by weekday and hour.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/stats/patterns",
    operation_id = "patterns",
    tag = "statistics",
    params(DaysParams),
    responses((status = 200, description = "The reading patterns", body = PatternsResponse))
)]
pub async fn handle(
    State(table): State<ReadTable>,
    caller: Caller,
    Query(params): Query<DaysParams>,
) -> Result<Json<PatternsResponse>, Problem> {
    let days = params.days()?;
    let from = first_day_to_read(days);
    let mut rows = table
        .read(params.min_position, |mut database| async move {
            daily_stats::days_with_hours(&mut *database, caller.reader_id, from).await
        })
        .await?;
    let range = reading_days(days, rows.first().map(|(day, _)| day));
    rows.retain(|(day, _)| day.day >= *range.start());
    let mut weekdays = [Sums::default(); 7];
    let mut hours = BTreeMap::<(u32, i16), Sums>::new();
    for (day, hours_of_day) in &rows {
        let weekday = day.day.weekday();
        weekdays[weekday.num_days_from_monday() as usize].add(day.sessions, day.active_ms);
        for hour in hours_of_day {
            let key = (weekday.number_from_monday(), hour.hour);
            let sums = hours.entry(key).or_default();
            sums.add(hour.sessions, hour.active_ms);
        }
    }
    let weekdays = (1..).zip(weekdays).map(|(weekday, sums)| WeekdayPattern {
        weekday,
        active_minutes: sums.active_ms / 60_000,
        sessions: sums.sessions,
    });
    let weekdays = weekdays.collect();
    let hours = hours
        .into_iter()
        .map(|((weekday, hour), sums)| HourPattern {
            weekday,
            hour,
            active_minutes: sums.active_ms / 60_000,
            sessions: sums.sessions,
        });
    let hours = hours.collect();
    Ok(Json(PatternsResponse { weekdays, hours }))
}

/// Sums over several days.
#[derive(Clone, Copy, Default)]
struct Sums {
    sessions: i64,
    active_ms: i64,
}

impl Sums {
    fn add(&mut self, sessions: i64, active_ms: i64) {
        self.sessions += sessions;
        self.active_ms += active_ms;
    }
}
