//! How far projections in Postgres have read. They move their checkpoint in
//! the statement that writes their rows; here it is only read, awaited, and
//! begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventlog::Pool;
use eventlog::deadline::with_deadline;
use sqlx::{PgExecutor, PgPool};
use tokio::sync::watch;

use crate::Checkpoint;

/// How often a checkpoint is asked for while somebody waits for it. A
/// projection is usually some milliseconds behind.
const POLL: Duration = Duration::from_millis(10);

/// How long Postgres may take to tell it to those who wait.
const DEADLINE: Duration = Duration::from_secs(1);

/// The checkpoint of a projection; 0 when it has not begun.
///
/// # Errors
/// Those of Postgres.
pub async fn read(database: impl PgExecutor<'_>, projection: &str) -> sqlx::Result<i64> {
    let position = sqlx::query_scalar!(
        "select global_position from checkpoints where projection = $1",
        projection
    )
    .fetch_optional(database)
    .await?;
    Ok(position.unwrap_or(0))
}

/// The checkpoint for the projection itself: there is a row to move afterwards.
///
/// # Errors
/// Those of Postgres.
pub async fn begin(pool: &PgPool, projection: &str) -> sqlx::Result<Checkpoint> {
    sqlx::query!(
        "insert into checkpoints (projection, global_position) values ($1, 0)
        on conflict do nothing",
        projection
    )
    .execute(pool)
    .await?;
    sqlx::query_as!(
        Checkpoint,
        "select global_position, replays from checkpoints where projection = $1",
        projection
    )
    .fetch_one(pool)
    .await
}

/// A checkpoint that queries wait for. However many wait, one task asks for
/// it, and none when nobody waits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CheckpointWaiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Pool,
    projection: &'static str,
    position: watch::Sender<i64>,
    asking: AtomicBool,
}

impl CheckpointWaiter {
    /// The checkpoint of a projection, by its name.
    #[must_use]
    pub fn new(pool: impl Into<Pool>, projection: &'static str) -> Self {
        Self(Arc::new(Inner {
            pool: pool.into(),
            projection,
            position: watch::Sender::new(0),
            asking: AtomicBool::new(false),
        }))
    }

    /// Where it is now, in a database that may be another one.
    ///
    /// # Errors
    /// Those of Postgres.
    pub async fn read(&self, database: impl PgExecutor<'_>) -> sqlx::Result<i64> {
        read(database, self.0.projection).await
    }

    /// Waits until the projection has come to `position`; tells whether it has
    /// within `patience`.
    ///
    /// # Errors
    /// Those of Postgres.
    pub async fn reaches(&self, position: i64, patience: Duration) -> sqlx::Result<bool> {
        let inner = &self.0;
        let reaches = async {
            if read(&inner.pool, inner.projection).await? >= position {
                return Ok(true);
            }
            let mut reached = inner.position.subscribe();
            if !inner.asking.swap(true, Ordering::SeqCst) {
                tokio::spawn(Arc::clone(inner).ask());
            }
            let reached = reached.wait_for(|reached| *reached >= position);
            Ok(reached.await.is_ok())
        };
        tokio::time::timeout(patience, reaches)
            .await
            .unwrap_or(Ok(false))
    }
}

impl Inner {
    async fn ask(self: Arc<Self>) {
        loop {
            match with_deadline(DEADLINE, read(&self.pool, self.projection)).await {
                Ok(position) => drop(self.position.send_replace(position)),
                Err(error) => tracing::debug!(%error, "a checkpoint was not read"),
            }
            tokio::time::sleep(POLL).await;
            if self.position.receiver_count() == 0 {
                // What is known now says nothing of later: a replay starts over.
                self.position.send_replace(0);
                self.asking.store(false, Ordering::SeqCst);
                // One who came in between saw that it is asked for already.
                if self.position.receiver_count() == 0 || self.asking.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
        }
    }
}
