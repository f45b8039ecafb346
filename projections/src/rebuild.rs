//! Replay: rebuilds a projection from the log, while queries read the live tables and
//! the live worker writes them.
//!
//! A replay is the ordinary worker on the tables of a shadow schema. When it has caught
//! up, one transaction swaps the shadow with the live tables, at a global position that
//! is not behind theirs. A replay that was interrupted resumes from the checkpoint of
//! its shadow.

use std::time::Duration;

use eventlog::deadline::with_deadline;
use eventlog::read;
use messaging::FanOut;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::worker::{Until, Worker, WorkerProgress};
use crate::zones::Zones;
use crate::{OperationError, TableProjection, checkpoint, status};

mod shadow;
mod swap;

use shadow::is_current;
pub use shadow::shadow_schema;
pub(crate) use shadow::{create, drop_shadow};
pub(crate) use swap::is_lock_timeout;
use swap::{drop_retired, refuse_views, swap};

/// Maximum number of attempts to swap the tables. With [`SWAP_RETRY_INTERVAL`] they
/// take at least a minute, because a query may hold the tables for half a minute.
const MAX_SWAP_ATTEMPTS: u32 = 120;

const SWAP_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The interval between two reports of a replay's progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The deadline for statements that read or lock little.
const SHORT_DEADLINE: Duration = Duration::from_secs(10);

/// The first key of the advisory locks of operations on projections. The second key is a
/// hash of the projection's name.
const LOCK_CLASS: i32 = 7_340_004;

/// The result of a replay.
#[derive(Clone, Copy, Debug)]
pub struct Replayed {
    /// The events that this replay applied. Does not include those of a replay that it
    /// resumed.
    pub events: u64,
    /// The global position after which this replay started.
    pub from: i64,
    /// The checkpoint of the projection after the swap.
    pub global_position: i64,
    /// How long the swap held the tables: an upper bound for how long queries waited.
    pub locked_for: Duration,
}

/// Replays a projection and swaps its tables. `restart` discards the progress of an
/// interrupted replay.
///
/// `live` must have no statement timeout. The `search_path` of `shadow` must start with
/// [`shadow_schema`].
pub async fn replay<P: TableProjection>(
    live: &PgPool,
    shadow: PgPool,
    zones: &Zones,
    restart: bool,
    progress: &watch::Sender<WorkerProgress>,
    stop: &CancellationToken,
) -> Result<Replayed, OperationError> {
    let mut connection = lock(live, P::NAME).await?;
    refuse_views::<P>(&mut connection).await?;
    let schema = shadow_schema(P::NAME);
    drop_retired::<P>(&mut connection).await?;
    if restart || !is_current(&mut connection, &schema, zones).await? {
        create::<P>(&mut connection, &schema, Some(zones)).await?;
    }
    let subscription = FanOut::default().subscribe(shadow.clone());
    let projection = P::new(shadow.clone(), zones);
    let mut worker = Worker::replay(projection, subscription, shadow.clone());
    let from = checkpoint::read(&shadow, P::NAME).await?;

    let worker_progress = worker.progress();
    let report = async {
        loop {
            let mut now = worker_progress.borrow().clone();
            // Before its first commit the worker may report 0.
            now.checkpoint = now.checkpoint.max(from);
            now.read = now.read.max(from);
            if let Err(error) = status::report_replay(&shadow, P::NAME, now.checkpoint).await {
                tracing::debug!(%error, projection = P::NAME, "reporting a replay failed: {error}");
            }
            progress.send_replace(now);
            tokio::time::sleep(REPORT_INTERVAL).await;
        }
    };
    let swapped = tokio::select! {
        swapped = catch_up_and_swap(&mut connection, &mut worker, stop) => swapped,
        never = report => never,
    };
    let mut last = worker.progress().borrow().clone();
    last.checkpoint = last.checkpoint.max(from);
    // The next replay resumes from what is committed.
    last.read = last.checkpoint;
    last.folding = 0;
    let events = last.events;
    // This also replaces a report that was sent before the swap and arrives after it.
    let resume_position = swapped.is_err().then_some(last.checkpoint);
    if let Err(error) = status::report_replay_ended(&shadow, P::NAME, resume_position).await {
        tracing::debug!(%error, projection = P::NAME, "reporting the end of a replay failed: {error}");
    }
    progress.send_replace(last);
    let (global_position, locked_for) = swapped?;
    if let Err(error) = drop_retired::<P>(&mut connection).await {
        tracing::warn!(
            %error,
            projection = P::NAME,
            "dropping the retired tables failed: {error}; the next replay drops them"
        );
    }
    unlock(connection).await?;
    Ok(Replayed {
        events,
        from,
        global_position,
        locked_for,
    })
}

/// Returns the global position of the swap, and how long it held the tables.
async fn catch_up_and_swap<P: TableProjection>(
    connection: &mut PgConnection,
    worker: &mut Worker<P>,
    stop: &CancellationToken,
) -> Result<(i64, Duration), OperationError> {
    worker.run(Until::CaughtUp, stop).await?;
    // Queries are planned with these statistics after the swap.
    let tables: Vec<String> = P::TABLES.iter().map(|table| (*table).to_owned()).collect();
    sqlx::query!(
        "select analyze_shadow($1, $2)",
        shadow_schema(P::NAME),
        &tables
    )
    .execute(&mut *connection)
    .await?;
    for _ in 0..MAX_SWAP_ATTEMPTS {
        worker.run(Until::CaughtUp, stop).await?;
        if stop.is_cancelled() {
            return Err(OperationError::Stopped);
        }
        let mut transaction = connection.begin().await?;
        let swapped = swap(&mut transaction, worker, stop).await;
        if let Ok(Some((global_position, locked_at))) = swapped {
            transaction.commit().await?;
            return Ok((global_position, locked_at.elapsed()));
        }
        // Explicitly: a dropped transaction keeps its locks until the connection is used
        // again.
        transaction.rollback().await?;
        match swapped {
            Err(OperationError::Database(error)) if !is_lock_timeout(&error) => {
                return Err(error.into());
            }
            Ok(_) | Err(OperationError::Database(_)) => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(SWAP_RETRY_INTERVAL).await;
    }
    Err(OperationError::Busy)
}

/// Takes the lock of a projection: one operation on it runs at a time. The lock is held
/// until [`unlock`], or until the returned connection closes, however the operation ends.
pub(crate) async fn lock(
    pool: &PgPool,
    projection: &'static str,
) -> Result<PgConnection, OperationError> {
    let mut connection = with_deadline(SHORT_DEADLINE, pool.acquire())
        .await?
        .detach();
    let locked = sqlx::query_scalar!(
        r#"select pg_try_advisory_lock($1, hashtext($2)) as "locked!""#,
        LOCK_CLASS,
        projection
    )
    .fetch_one(&mut connection);
    if with_deadline(SHORT_DEADLINE, locked).await? {
        Ok(connection)
    } else {
        Err(OperationError::AlreadyRunning(projection))
    }
}

/// Releases the lock and closes the connection. Closing alone would release the lock
/// slightly later.
pub(crate) async fn unlock(mut connection: PgConnection) -> sqlx::Result<()> {
    connection
        .execute("select pg_advisory_unlock_all()")
        .await?;
    connection.close().await
}

/// The global position of the newest event.
pub(crate) async fn head(pool: &PgPool) -> Result<i64, OperationError> {
    Ok(with_deadline(SHORT_DEADLINE, read::head(pool)).await?)
}
