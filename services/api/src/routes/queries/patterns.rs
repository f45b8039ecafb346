//! `GET /reading-sessions/stats/patterns`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use chrono::Datelike;
use projections::daily_stats;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Back, ReadTable, last, since};
use crate::auth::Caller;
use crate::extract::Query;
use crate::problem::Problem;

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
    weekday: u32,
    /// Of the reader's own day.
    #[schema(minimum = 0, maximum = 23)]
    hour: i16,
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
    let from = since(days);
    let mut rows = table
        .read(params.min_position, |mut database| async move {
            daily_stats::days_with_hours(&mut *database, caller.reader_id, from).await
        })
        .await?;
    let (_, first) = last(days, rows.first().map(|(day, _)| day));
    rows.retain(|(day, _)| day.day >= first);
    let mut weekdays = [Sums::default(); 7];
    let mut hours = BTreeMap::<(u32, i16), Sums>::new();
    for (day, hours_of_it) in &rows {
        let weekday = day.day.weekday();
        weekdays[weekday.num_days_from_monday() as usize].add(day.sessions, day.active_ms);
        for hour in hours_of_it {
            let of_week = (weekday.number_from_monday(), hour.hour);
            let sums = hours.entry(of_week).or_default();
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
    Ok(Json(Patterns { weekdays, hours }))
}

/// What is added up over days.
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
