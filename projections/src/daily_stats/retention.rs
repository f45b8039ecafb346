//! Retention of the statistics: removes old days permanently.
//!
//! The low-water mark in the table `retention` keeps every commit, also one of a
//! replay, from writing earlier days again.

use chrono::NaiveDate;
use sqlx::{Connection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::DailyStats;
use crate::{OperationError, Projection, new_revision, rebuild};

/// The number of readers whose days one statement deletes.
const BATCH_SIZE: i64 = 1_000;

/// Deletes the days before `before`. Returns the number of deleted rows. If it is
/// stopped, the next call deletes the rest.
pub async fn delete_days_before(
    pool: &PgPool,
    before: NaiveDate,
    stop: &CancellationToken,
) -> Result<u64, OperationError> {
    // A running replay may have written such days to its tables already, and its
    // swap would restore them.
    let mut connection = rebuild::lock(pool, DailyStats::NAME).await?;
    let mut transaction = connection.begin().await?;
    // A commit that has read the old rows fails, and is repeated with the new low-water
    // mark, as after a replay.
    sqlx::query!(
        "update read.checkpoints set revision = $2 where projection = $1",
        DailyStats::NAME,
        new_revision()
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "update retention set days_from = greatest(days_from, $1)",
        before
    )
    .execute(&mut *transaction)
    .await?;
    let mut deleted = sqlx::query!("delete from read.days where day < $1", before)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    // The tables of an interrupted replay still contain the days.
    let shadow = rebuild::shadow_schema(DailyStats::NAME);
    rebuild::drop_shadow(&mut transaction, &shadow).await?;
    transaction.commit().await?;

    let mut after = Uuid::nil();
    while !stop.is_cancelled() {
        let batch = sqlx::query_file!("src/daily_stats/delete_days.sql", after, before, BATCH_SIZE)
            .fetch_one(&mut connection)
            .await?;
        deleted += batch.rows.unsigned_abs();
        let Some(last) = batch.last else {
            rebuild::unlock(connection).await?;
            return Ok(deleted);
        };
        after = last;
    }
    Err(OperationError::Stopped)
}
