//! Reads and awaits the checkpoints of the projections in Postgres, and awaits the rows of
//! single readers, which can be ahead of a checkpoint.
//!
//! This module never moves a checkpoint: projections do that in the statement that
//! writes their rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::ReaderId;
use eventlog::Pool;
use eventlog::deadline::with_deadline;
use sqlx::{PgExecutor, PgPool};
use tokio::sync::watch;

use crate::Checkpoint;
use crate::flush::FlushClient;

/// How often a checkpoint is read while queries wait for it. A projection is usually
/// some milliseconds behind the log.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The deadline for reading a checkpoint that queries wait for.
const READ_DEADLINE: Duration = Duration::from_secs(1);

/// The checkpoint of a projection; 0 if it has not applied any event.
pub async fn read(database: impl PgExecutor<'_>, projection: &str) -> sqlx::Result<i64> {
    let checkpoint = sqlx::query_scalar!(
        "select global_position from checkpoints where projection = $1",
        projection
    )
    .fetch_optional(database)
    .await?;
    Ok(checkpoint.unwrap_or(0))
}

/// The global position of the newest event.
async fn head(database: impl PgExecutor<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select coalesce(
            (select global_position from events order by global_position desc limit 1), 0
        ) as "head!""#
    )
    .fetch_one(database)
    .await
}

/// Reads the checkpoint of a projection. Creates the row that its commits update.
pub async fn read_or_create(pool: &PgPool, projection: &str) -> sqlx::Result<Checkpoint> {
    sqlx::query!(
        "insert into checkpoints (projection, global_position) values ($1, 0)
        on conflict do nothing",
        projection
    )
    .execute(pool)
    .await?;
    sqlx::query_as!(
        Checkpoint,
        "select global_position, written_to, revision from checkpoints where projection = $1",
        projection
    )
    .fetch_one(pool)
    .await
}

/// Lets queries wait for the checkpoint of a projection, or for the rows of a reader. One task
/// reads the checkpoint for all waiting queries, and no task runs while there are none. Cheap
/// to clone.
#[derive(Clone, Debug)]
pub struct CheckpointWaiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Pool,
    projection: &'static str,
    flush: FlushClient,
    global_position: watch::Sender<i64>,
    /// Whether the task that reads the checkpoint runs.
    is_polling: AtomicBool,
}

impl CheckpointWaiter {
    /// `pool` is the database to wait on, usually the primary.
    #[must_use]
    pub fn new(pool: impl Into<Pool>, projection: &'static str, flush: FlushClient) -> Self {
        Self(Arc::new(Inner {
            pool: pool.into(),
            projection,
            flush,
            global_position: watch::Sender::new(0),
            is_polling: AtomicBool::new(false),
        }))
    }

    /// Reads the checkpoint from `database`, which may be a replica.
    pub async fn read(&self, database: impl PgExecutor<'_>) -> sqlx::Result<i64> {
        read(database, self.0.projection).await
    }

    /// Waits until the rows of a reader contain the log up to `global_position`. Returns
    /// `false` after `timeout`.
    pub async fn wait_for(
        &self,
        reader_id: ReaderId,
        global_position: i64,
        timeout: Duration,
    ) -> sqlx::Result<bool> {
        let inner = &self.0;
        let wait = async {
            if read(&inner.pool, inner.projection).await? >= global_position {
                return Ok(true);
            }
            let mut checkpoint = inner.global_position.subscribe();
            if !inner.is_polling.swap(true, Ordering::SeqCst) {
                tokio::spawn(Arc::clone(inner).poll_checkpoint());
            }
            let reached = checkpoint.wait_for(|checkpoint| *checkpoint >= global_position);
            // No worker can write events that do not exist.
            if head(&inner.pool).await? < global_position {
                return Ok(reached.await.is_ok());
            }
            let flush = &inner.flush;
            tokio::select! {
                reached = reached => Ok(reached.is_ok()),
                () = flush.flush(&inner.pool, inner.projection, reader_id, global_position) => {
                    Ok(true)
                }
            }
        };
        tokio::time::timeout(timeout, wait)
            .await
            .unwrap_or(Ok(false))
    }
}

impl Inner {
    async fn poll_checkpoint(self: Arc<Self>) {
        loop {
            match with_deadline(READ_DEADLINE, read(&self.pool, self.projection)).await {
                Ok(now) => drop(self.global_position.send_replace(now)),
                Err(error) => tracing::debug!(
                    %error,
                    projection = self.projection,
                    "reading the checkpoint failed: {error}; it is read again while queries wait"
                ),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
            if self.global_position.receiver_count() == 0 {
                // The value must not be used later: a checkpoint can move back.
                self.global_position.send_replace(0);
                self.is_polling.store(false, Ordering::SeqCst);
                // A query that subscribed before this line relies on this task.
                if self.global_position.receiver_count() == 0
                    || self.is_polling.swap(true, Ordering::SeqCst)
                {
                    return;
                }
            }
        }
    }
}
