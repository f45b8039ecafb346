//! Queries of client apps, one a file. What a reader may not see is not found.

pub mod active;
pub mod daily;
pub mod history;
pub mod patterns;
pub mod session;
pub mod streak;
pub mod weekly;

use super::problem::Problem;

/// How many days back statistics go when nothing else is asked for, and at
/// most.
const DEFAULT_DAYS: u64 = 30;
const MAX_DAYS: u64 = 366;

/// Checks how many days back.
fn days_back(days: Option<u64>) -> Result<u64, Problem> {
    match days.unwrap_or(DEFAULT_DAYS) {
        days @ 1..=MAX_DAYS => Ok(days),
        _ => Err(Problem::invalid("days", format!("from 1 to {MAX_DAYS}"))),
    }
}
