//! The status of the projections, and pausing them, for operators.

use domain::Timestamp;
use sqlx::{PgExecutor, PgPool};

use crate::rebuild::shadow_schema;

/// Where counting the lag in events stops, to bound the query.
const MAX_LAG_EVENTS: i64 = 100_000;

#[derive(Clone, Debug)]
pub struct ProjectionStatus {
    pub projection: String,
    /// Whether an operator paused it.
    pub paused: bool,
    /// The worker that holds the lease; `None` if the lease has expired.
    pub holder: Option<String>,
    /// Whether its worker fails now, with `last_error`.
    pub failing: bool,
    /// The checkpoint: the global position up to which events are applied.
    pub global_position: i64,
    /// The global position of the newest event.
    pub head: i64,
    /// Events after the checkpoint, at most 100,000.
    pub lag_events: i64,
    /// The age of the first event after the checkpoint.
    pub lag_seconds: f64,
    /// Applied events per second, over the last ten seconds.
    pub events_per_second: f64,
    /// Events that the worker has applied since it took the lease.
    pub events: i64,
    /// Rows or cache entries that the worker has written for them.
    pub row_writes: i64,
    /// Events that cannot be applied, and events that wait for them.
    pub dead_letters: i64,
    /// Events that operators discarded.
    pub discarded: i64,
    /// The oldest version of the time zone rules that the rows were computed with, for
    /// example `2026f`. `None` if the rows do not depend on them.
    pub tzdata: Option<String>,
    pub last_error: Option<String>,
    /// When the worker began to fail with `last_error`.
    pub last_error_at: Option<Timestamp>,
    /// The global position that a replay has reached; `None` if there is no replay to
    /// continue.
    pub replay_position: Option<i64>,
    /// Whether a replay runs now.
    pub replaying: bool,
}

/// The status of all projections, ordered by name.
pub async fn list(database: impl PgExecutor<'_>) -> sqlx::Result<Vec<ProjectionStatus>> {
    sqlx::query_file_as!(ProjectionStatus, "src/status/list.sql", MAX_LAG_EVENTS)
        .fetch_all(database)
        .await
}

/// The status of one projection; `None` if the database has no such projection.
pub async fn find(pool: &PgPool, projection: &str) -> sqlx::Result<Option<ProjectionStatus>> {
    let all = list(pool).await?;
    Ok(all
        .into_iter()
        .find(|status| status.projection == projection))
}

/// Pauses or resumes a projection. A worker stops after its current commit. Returns
/// `false` if there is no such projection.
pub async fn pause(pool: &PgPool, projection: &str, paused: bool) -> sqlx::Result<bool> {
    let updated = sqlx::query!(
        "update projections set paused = $2 where projection = $1",
        projection,
        paused
    )
    .execute(pool)
    .await?;
    Ok(updated.rows_affected() > 0)
}

/// Reports how far a running replay is.
pub async fn report_replay(
    pool: &PgPool,
    projection: &str,
    global_position: i64,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update projections set replay_position = $2, replay_reported_at = clock_timestamp()
        where projection = $1",
        projection,
        global_position
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Reports that a replay has ended. `resume_position` is where the next replay
/// continues; `None` if the replay is complete.
///
/// A replay is also complete if its shadow schema is gone: the swap succeeded although
/// its response was lost.
pub async fn report_replay_ended(
    pool: &PgPool,
    projection: &str,
    resume_position: Option<i64>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update projections
        set replay_position = case when to_regnamespace($3) is not null then $2::bigint end,
            replay_reported_at = null
        where projection = $1",
        projection,
        resume_position,
        shadow_schema(projection)
    )
    .execute(pool)
    .await?;
    Ok(())
}
