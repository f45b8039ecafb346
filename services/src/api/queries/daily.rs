//! `GET /reading-sessions/stats/daily`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{Days, NaiveDate};
use projections::daily_stats;
use serde::{Deserialize, Serialize};

use crate::api;
use crate::api::auth::Reader;
use crate::api::extract::Query;
use crate::api::problem::Problem;
use crate::api::session::answer;
use crate::clock;

const DEFAULT_DAYS: u64 = 30;
const MAX_DAYS: u64 = 366;

/// How far back.
#[derive(Debug, Deserialize)]
pub struct Params {
    days: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Answer {
    days: Vec<Day>,
}

#[derive(Debug, Serialize)]
struct Day {
    /// The reader's own day.
    date: NaiveDate,
    sessions: i64,
    /// Active reading time, in whole minutes.
    active_minutes: i64,
    /// Net progress, in percent of a book.
    #[serde(serialize_with = "percent")]
    progress: i64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn percent<S: serde::Serializer>(steps: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    domain::position::serialize_percent(*steps, serializer)
}

/// The reader's days with reading, newest first.
pub async fn handle(
    State(state): State<api::State>,
    Reader(reader_id): Reader,
    Query(params): Query<Params>,
) -> Result<Response, Problem> {
    let days = params.days.unwrap_or(DEFAULT_DAYS);
    if !(1..=MAX_DAYS).contains(&days) {
        return Err(Problem::invalid("days", format!("from 1 to {MAX_DAYS}")));
    }
    // A day more on each side: the reader's today may be UTC's yesterday or
    // tomorrow, and the limit keeps the count.
    let from = clock::now().date_naive() - Days::new(days);
    let limit = i64::try_from(days).expect("at most 366");
    let days = daily_stats::reader_days(&state.pool, reader_id, from, limit).await?;
    let body = Answer {
        days: days
            .into_iter()
            .map(|day| Day {
                date: day.day,
                sessions: day.sessions,
                active_minutes: day.active_ms / 60_000,
                progress: day.progress,
            })
            .collect(),
    };
    Ok(answer(StatusCode::OK, &body, None, None))
}
