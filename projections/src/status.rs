//! Projections as operators see and hold them.

use domain::Timestamp;
use sqlx::PgPool;

use crate::rebuild::schema_of;

/// Events counted at most; further behind, it does not matter how far.
const COUNTED: i64 = 100_000;

/// How a projection stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its name.
    pub projection: String,
    /// An operator holds it.
    pub paused: bool,
    /// Who works on it; nobody, when its last holder has not renewed its lease.
    pub holder: Option<String>,
    /// The worker fails, with `last_error`.
    pub failing: bool,
    /// Its checkpoint, a global position.
    pub position: i64,
    /// The global position of the newest event.
    pub head: i64,
    /// Events that it has yet to apply, at most 100,000.
    pub lag_events: i64,
    /// How long the first of them has been waiting, in seconds.
    pub lag_seconds: f64,
    /// Events applied, by the second, over the last ten seconds.
    pub events_per_second: f64,
    /// Events applied by its worker since it took over.
    pub events: i64,
    /// Rows or entries written for them.
    pub row_writes: i64,
    /// Events that cannot be applied, and those that wait for them.
    pub dead_letters: i64,
    /// Events that operators have left out for good.
    pub discarded: i64,
    /// What its worker failed at last.
    pub last_error: Option<String>,
    /// Since when.
    pub last_error_at: Option<Timestamp>,
    /// How far a replay has come.
    pub replay_position: Option<i64>,
    /// Whether it is being replayed now.
    pub replaying: bool,
}

/// All projections.
///
/// # Errors
/// Those of Postgres.
pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<Status>> {
    sqlx::query_file_as!(Status, "src/status/list.sql", COUNTED)
        .fetch_all(pool)
        .await
}

/// Has a projection's worker stop after its current step, or go on. False when
/// there is no such projection.
///
/// # Errors
/// Those of Postgres.
pub async fn pause(pool: &PgPool, projection: &str, paused: bool) -> sqlx::Result<bool> {
    let known = sqlx::query!(
        "update projections set paused = $2 where projection = $1",
        projection,
        paused
    )
    .execute(pool)
    .await?;
    Ok(known.rows_affected() > 0)
}

/// Says how far a replay that runs is.
///
/// # Errors
/// Those of Postgres.
pub async fn report_replay(pool: &PgPool, projection: &str, position: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "update projections set replay_position = $2, replay_reported_at = clock_timestamp()
        where projection = $1",
        projection,
        position
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Says that a replay runs no more, and where the next one goes on; `None` when
/// it is done. It is done also when its shadow is gone: whether the swap was made
/// may not have been told.
///
/// # Errors
/// Those of Postgres.
pub async fn report_replay_over(
    pool: &PgPool,
    projection: &str,
    position: Option<i64>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update projections
        set replay_position = case when to_regnamespace($3) is not null then $2::bigint end,
            replay_reported_at = null
        where projection = $1",
        projection,
        position,
        schema_of(projection)
    )
    .execute(pool)
    .await?;
    Ok(())
}
