//! The queries of client apps, one file per endpoint. Every query filters by the
//! caller's reader id, so data of other readers is never found.

pub mod active;
pub mod daily;
pub mod history;
pub mod patterns;
pub mod session;
pub mod streak;
pub mod weekly;

mod metrics;
mod read_table;
pub mod replica;

use std::ops::RangeInclusive;

use chrono::{Days, NaiveDate};
use eventlog::clock;
use projections::daily_stats::ReaderDay;
use projections::zones::Zones;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::problem::Problem;
pub use metrics::QueryMetrics;
pub use read_table::ReadTable;

/// The first and the last of `days` reading days up to today. `newest`, the
/// reader's newest day, determines which day is today for the reader.
fn reading_days(days: u64, newest: Option<&ReaderDay>, zones: &Zones) -> RangeInclusive<NaiveDate> {
    let today = ReaderDay::today(newest, clock::now(), zones);
    today - Days::new(days - 1)..=today
}

/// The first day to read for the last `days`. One day more than requested,
/// because the reader's today may be a day earlier than in UTC.
fn first_day_to_read(days: u64) -> NaiveDate {
    clock::now().date_naive() - Days::new(days)
}

const DEFAULT_DAYS: u64 = 30;
const MAX_DAYS: u64 = 366;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DaysParams {
    /// The number of days up to and including today.
    #[param(minimum = 1, maximum = 366, default = 30)]
    days: Option<u64>,
    /// Wait until the response includes this `X-Global-Position`.
    #[param(minimum = 0)]
    min_position: Option<i64>,
}

impl DaysParams {
    fn days(&self) -> Result<u64, Problem> {
        match self.days.unwrap_or(DEFAULT_DAYS) {
            days @ 1..=MAX_DAYS => Ok(days),
            _ => Err(Problem::out_of_range("days", 1, MAX_DAYS)),
        }
    }
}
