//! Queries of client apps, one a file. What a reader may not see is not found.

pub mod active;
pub mod daily;
pub mod history;
pub mod patterns;
pub mod session;
pub mod streak;
pub mod weekly;

mod read_table;
pub mod replica;

use chrono::{Days, NaiveDate};
use projections::daily_stats::Day;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::problem::Problem;
use eventlog::clock;
pub use read_table::ReadTable;

/// The reader's today, by the newest of their days, and the first of the last
/// `days`, today among them.
fn last(days: u64, newest: Option<&Day>) -> (NaiveDate, NaiveDate) {
    let today = Day::today(newest, clock::now());
    (today, today - Days::new(days - 1))
}

/// Where to begin reading for the last `days`: where the reader is, today may be
/// a day earlier than in UTC.
fn since(days: u64) -> NaiveDate {
    clock::now().date_naive() - Days::new(days)
}

/// How many days back statistics go when nothing else is asked for, and at
/// most.
const DEFAULT_DAYS: u64 = 30;
const MAX_DAYS: u64 = 366;

/// How far back statistics go.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Back {
    /// Days, today among them.
    #[param(minimum = 1, maximum = 366, default = 30)]
    days: Option<u64>,
    /// An `X-Global-Position` that the answer must include.
    #[param(minimum = 0)]
    min_position: Option<i64>,
}

impl Back {
    fn days(&self) -> Result<u64, Problem> {
        match self.days.unwrap_or(DEFAULT_DAYS) {
            days @ 1..=MAX_DAYS => Ok(days),
            _ => Err(Problem::invalid("days", format!("from 1 to {MAX_DAYS}"))),
        }
    }
}
