//! Old days leave the statistics, where an operator wants that: for good, since
//! what stands before the floor is not written again, by a replay neither.

use chrono::NaiveDate;
use eventlog::deadline::with_deadline;
use sqlx::{Connection, Executor, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::DailyStats;
use crate::projection::{DEADLINE, Projection};
use crate::rebuild::{self, ReplayError};

/// Readers whose old days are deleted together.
const READERS: i64 = 1_000;

/// Takes out the days before one; returns how many rows that were. One that is
/// stopped goes on the next time.
///
/// # Errors
/// See [`ReplayError`].
pub async fn roll(
    pool: &PgPool,
    before: NaiveDate,
    stop: &CancellationToken,
) -> Result<u64, ReplayError> {
    let mut connection = with_deadline(DEADLINE, pool.acquire()).await?.detach();
    // A replay has made some of these days already, and would bring them back.
    rebuild::lock(&mut connection, DailyStats::NAME).await?;
    let mut transaction = connection.begin().await?;
    // Whatever the projection writes after this step, it writes by the new floor.
    sqlx::query!(
        "select from read.checkpoints where projection = $1 for update",
        DailyStats::NAME
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "update retention set days_from = greatest(days_from, $1)",
        before
    )
    .execute(&mut *transaction)
    .await?;
    let mut rolled = sqlx::query!("delete from read.days where day < $1", before)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    // What a replay that was cut off has made so far has them still.
    let shadow = rebuild::schema_of(DailyStats::NAME);
    let drop = format!("drop schema if exists {shadow} cascade");
    transaction.execute(drop.as_str()).await?;
    transaction.commit().await?;

    let mut after = Uuid::nil();
    while !stop.is_cancelled() {
        let part = sqlx::query_file!("src/daily_stats/roll.sql", after, before, READERS)
            .fetch_one(&mut connection)
            .await?;
        rolled += part.rows.unsigned_abs();
        let Some(last) = part.last else {
            rebuild::unlock(connection).await?;
            return Ok(rolled);
        };
        after = last;
    }
    Err(ReplayError::Stopped)
}
