//! Queries of client apps, one a file. What a reader may not see is not found.

pub mod active;
pub mod daily;
pub mod history;
pub mod patterns;
pub mod session;
pub mod streak;
pub mod weekly;

pub mod replica;

use chrono::{Days, NaiveDate};
use eventlog::Pool;
use projections::checkpoint::Awaited;
use projections::daily_stats::Day;
use serde::Deserialize;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use utoipa::IntoParams;

use super::freshness;
use super::problem::Problem;
use crate::clock;
use replica::Replica;

/// Where a projection's rows are read: at the replica, when there is one and as
/// long as it does, else at the primary.
#[derive(Clone, Debug)]
pub struct ReadTable {
    /// The primary.
    pub primary: Pool,
    /// How far the projection is there.
    pub checkpoint: Awaited,
    /// The replica.
    pub replica: Option<Replica>,
}

impl ReadTable {
    /// What a query finds, once the projection has come to `min_position`.
    async fn read<T, Found>(
        &self,
        min_position: Option<i64>,
        query: impl Fn(PoolConnection<Postgres>) -> Found,
    ) -> Result<T, Problem>
    where
        Found: Future<Output = sqlx::Result<T>>,
    {
        let min_position = freshness::position(min_position)?;
        if let Some(replica) = &self.replica {
            let read = async |mut connection: PoolConnection<Postgres>| {
                if let Some(position) = min_position
                    && self.checkpoint.read(&mut *connection).await? < position
                {
                    return Ok(None);
                }
                query(connection).await.map(Some)
            };
            if let Some(found) = replica.read(read).await {
                return Ok(found);
            }
        }
        freshness::reached(&self.checkpoint, min_position).await?;
        Ok(query(self.primary.acquire().await?).await?)
    }
}

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
