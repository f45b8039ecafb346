//! Queries of client apps, one a file. What a reader may not see is not found.

pub mod active;
pub mod daily;
pub mod history;
pub mod patterns;
pub mod session;
pub mod streak;
pub mod weekly;

use projections::checkpoint::Awaited;
use sqlx::PgPool;

use super::problem::Problem;

/// Where a projection's rows are, and how far they are.
#[derive(Clone, Debug)]
pub struct ReadTable {
    /// Where.
    pub pool: PgPool,
    /// How far.
    pub checkpoint: Awaited,
}

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
