//! `GET /reading-sessions/stats/patterns`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use chrono::Datelike;
use projections::daily_stats;
use serde::Serialize;
use utoipa::ToSchema;

use super::metrics::QueryName;
use super::{DaysParams, ReadTable, first_day_to_read, reading_days};
use crate::auth::Caller;
use crate::extract::Query;
use crate::problem::Problem;
use crate::reading_time::ReadingTime;

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
    /// Active reading time, in whole minutes: the sum of the days.
    active_minutes: i64,
    /// `active_minutes` in whole seconds, not rounded to minutes.
    active_seconds: i64,
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
    /// Active reading time, in whole minutes, rounded so that the hours of a day add
    /// up to the day.
    active_minutes: i64,
    /// The same time, in whole seconds, rounded in the same way.
    active_seconds: i64,
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
        .read(
            QueryName::Patterns,
            caller.reader_id,
            params.min_position,
            |mut database| {
                let zones = &table.zones;
                async move {
                    daily_stats::days_with_hours(&mut *database, caller.reader_id, from, zones)
                        .await
                }
            },
        )
        .await?;
    let range = reading_days(days, rows.first().map(|(day, _)| day), &table.zones);
    rows.retain(|(day, _)| day.day >= *range.start());
    let mut weekdays = [Sums::default(); 7];
    let mut hours = BTreeMap::<(u32, i16), Sums>::new();
    for (day, hours_of_day) in &rows {
        let weekday = day.day.weekday();
        weekdays[weekday.num_days_from_monday() as usize]
            .add(day.sessions, ReadingTime::from_day(day.active_ms));
        let times = ReadingTime::from_hours(hours_of_day.iter().map(|hour| hour.active_ms));
        for (hour, time) in hours_of_day.iter().zip(times) {
            let key = (weekday.number_from_monday(), hour.hour);
            hours.entry(key).or_default().add(hour.sessions, time);
        }
    }
    let weekdays = (1..).zip(weekdays).map(|(weekday, sums)| WeekdayPattern {
        weekday,
        active_minutes: sums.time.minutes,
        active_seconds: sums.time.seconds,
        sessions: sums.sessions,
    });
    let weekdays = weekdays.collect();
    let hours = hours
        .into_iter()
        .map(|((weekday, hour), sums)| HourPattern {
            weekday,
            hour,
            active_minutes: sums.time.minutes,
            active_seconds: sums.time.seconds,
            sessions: sums.sessions,
        });
    let hours = hours.collect();
    Ok(Json(PatternsResponse { weekdays, hours }))
}

/// Sums over several days.
#[derive(Clone, Copy, Default)]
struct Sums {
    sessions: i64,
    time: ReadingTime,
}

impl Sums {
    fn add(&mut self, sessions: i64, time: ReadingTime) {
        self.sessions += sessions;
        self.time += time;
    }
}
