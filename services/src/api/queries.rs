//! Queries of client apps, one a file. What a reader may not see is not found.

pub mod active;
pub mod daily;
pub mod history;
pub mod patterns;
pub mod session;
pub mod streak;
pub mod weekly;

use chrono::{Days, NaiveDate};
use domain::ReaderId;
use projections::checkpoint::Awaited;
use projections::daily_stats::{self, Day};
use serde::Deserialize;
use sqlx::PgPool;
use utoipa::IntoParams;

use super::problem::Problem;
use crate::clock;

/// Where a projection's rows are, and how far they are.
#[derive(Clone, Debug)]
pub struct ReadTable {
    /// Where.
    pub pool: PgPool,
    /// How far.
    pub checkpoint: Awaited,
}

impl ReadTable {
    /// The reader's today, and their days with reading among the last `days`,
    /// today among them, newest first.
    async fn last_days(
        &self,
        reader_id: ReaderId,
        days: u64,
    ) -> Result<(NaiveDate, Vec<Day>), Problem> {
        let now = clock::now();
        // Where the reader is, today may be a day earlier than in UTC.
        let from = now.date_naive() - Days::new(days);
        let mut rows = daily_stats::days(&self.pool, reader_id, from).await?;
        let today = Day::today(rows.first(), now);
        let first = today - Days::new(days - 1);
        rows.retain(|row| row.day >= first);
        Ok((today, rows))
    }
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
