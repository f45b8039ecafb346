//! Replay: a projection made again from the log, while queries go on reading
//! the tables of before and the live worker goes on writing them.
//!
//! It is the ordinary worker, with other tables: those of a shadow schema, which
//! its connections look into first. When it has caught up, it takes the place
//! of the live tables in one transaction, at a position that is not behind
//! theirs. A replay that was cut off goes on from the checkpoint of its shadow.

use std::time::Duration;

use eventlog::deadline::with_deadline;
use eventlog::read;
use messaging::fan_out::FanOut;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::worker::{WorkerProgress, Until, Worker};
use crate::{TableProjection, status};

mod shadow;
mod swap;

pub(crate) use shadow::create;
use shadow::is_current;
pub use shadow::schema_of;
pub(crate) use swap::is_lock_timeout;
use swap::{drop_retired, refuse_views, swap};

/// How often it tries, and the pause between: a query of half a minute may be
/// in its way.
const SWAPS: u32 = 120;
const SWAP_PAUSE: Duration = Duration::from_millis(500);

/// How often a replay says how far it is.
const REPORT: Duration = Duration::from_secs(1);

/// How long Postgres may take over something small.
const DEADLINE: Duration = Duration::from_secs(10);

/// The advisory locks of replays; the other half names the projection.
const LOCKS: i32 = 7_340_004;

/// A replay came to nothing. What it has done so far is kept.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// There is one already.
    #[error("a replay or a verification of {0} is running elsewhere")]
    Running(&'static str),
    /// It was told to stop.
    #[error("stopped; the next replay goes on from here")]
    Stopped,
    /// Views would go on reading the tables of before.
    #[error(
        "views read its tables, and would go on reading those of before: drop {0}, and make them \
         again after the replay"
    )]
    Views(String),
    /// An operator has discarded an event that this replay has applied.
    #[error("an event was discarded that is applied already: begin anew with --restart")]
    Discarded,
    /// It met too many events that cannot be applied.
    #[error(transparent)]
    TooManyLetters(#[from] crate::worker::TooManyLetters),
    /// Something reads the live tables without end.
    #[error("the live tables are in use all the time: look for long transactions")]
    Busy,
    /// Postgres did not answer, or refused.
    #[error("the database is unavailable")]
    Database(#[from] sqlx::Error),
    /// The log did not answer.
    #[error(transparent)]
    Log(#[from] eventlog::LogError),
    /// Redis takes so long that what is put is too old, or was emptied meanwhile.
    #[error("Redis is too slow, or was emptied meanwhile")]
    Late,
    /// Redis did not answer.
    #[error(transparent)]
    Cache(#[from] crate::cache::CacheError),
    /// The cache could not be begun.
    #[error(transparent)]
    Begin(#[from] crate::CommitError),
}

/// What a replay did.
#[derive(Clone, Copy, Debug)]
pub struct Replayed {
    /// Events applied, without those of a replay that this one resumed.
    pub events: u64,
    /// Where it began.
    pub from: i64,
    /// Where the projection is now.
    pub position: i64,
    /// How long queries may have waited for the swap.
    pub held: Duration,
}

/// Replays a projection. `live` reads and locks; the connections of `shadow`
/// look into [`schema_of`] the projection first. `restart` forgets what an
/// earlier replay has done.
///
/// # Errors
/// See [`ReplayError`].
pub async fn replay<P: TableProjection>(
    live: &PgPool,
    shadow: PgPool,
    restart: bool,
    progress: &watch::Sender<WorkerProgress>,
    stop: &CancellationToken,
) -> Result<Replayed, ReplayError> {
    // Its lock ends with this connection, however the replay ends.
    let mut connection = with_deadline(DEADLINE, live.acquire()).await?.detach();
    lock(&mut connection, P::NAME).await?;
    refuse_views::<P>(&mut connection).await?;
    let schema = schema_of(P::NAME);
    drop_retired::<P>(&mut connection).await?;
    if restart || !is_current(&mut connection, &schema).await? {
        create::<P>(&mut connection, &schema, true).await?;
    }
    let reader = FanOut::default().reader(shadow.clone());
    let mut worker = Worker::replay(P::new(shadow.clone()), reader, shadow.clone());
    let from = crate::checkpoint::read(&shadow, P::NAME).await?;

    let followed = worker.progress();
    let report = async {
        loop {
            let mut now = followed.borrow().clone();
            // Before its first step the worker does not say where it is.
            now.position = now.position.max(from);
            now.read = now.read.max(from);
            if let Err(error) = status::report_replay(&shadow, P::NAME, now.position).await {
                tracing::debug!(%error, "the replay was not reported");
            }
            progress.send_replace(now);
            tokio::time::sleep(REPORT).await;
        }
    };
    let work = async {
        worker.run(Until::CaughtUp, stop).await?;
        for table in P::TABLES {
            // For the plans of those who read it next.
            let analyze = format!("analyze {schema}.{table}");
            connection.execute(analyze.as_str()).await?;
        }
        for _ in 0..SWAPS {
            worker.run(Until::CaughtUp, stop).await?;
            if stop.is_cancelled() {
                return Err(ReplayError::Stopped);
            }
            let mut transaction = connection.begin().await?;
            let swapped = swap(&mut transaction, &mut worker, stop).await;
            if let Ok(Some((position, held))) = swapped {
                transaction.commit().await?;
                return Ok((position, held.elapsed()));
            }
            // At once: dropped, it would hold its locks until it is used again.
            transaction.rollback().await?;
            match swapped {
                Err(ReplayError::Database(error)) if !is_lock_timeout(&error) => {
                    return Err(error.into());
                }
                Ok(_) | Err(ReplayError::Database(_)) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(SWAP_PAUSE).await;
        }
        Err(ReplayError::Busy)
    };
    let swapped = tokio::select! {
        swapped = work => swapped,
        never = report => never,
    };
    let mut done = worker.progress().borrow().clone();
    done.position = done.position.max(from);
    // The next one goes on from what is written.
    done.read = done.position;
    done.folding = 0;
    let events = done.events;
    // A report that was on its way may come after the swap.
    let at = swapped.is_err().then_some(done.position);
    if let Err(error) = status::report_replay_over(&shadow, P::NAME, at).await {
        tracing::debug!(%error, "the end of the replay was not reported");
    }
    progress.send_replace(done);
    let (position, held) = swapped?;
    if let Err(error) = drop_retired::<P>(&mut connection).await {
        tracing::warn!(
            %error,
            projection = P::NAME,
            "the tables of before are still there, and the next replay removes them"
        );
    }
    unlock(connection).await?;
    Ok(Replayed {
        events,
        from,
        position,
        held,
    })
}

/// Makes sure that nobody else replays a projection.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    projection: &'static str,
) -> Result<(), ReplayError> {
    let locked = sqlx::query_scalar!(
        r#"select pg_try_advisory_lock($1, hashtext($2)) as "locked!""#,
        LOCKS,
        projection
    )
    .fetch_one(connection);
    if with_deadline(DEADLINE, locked).await? {
        Ok(())
    } else {
        Err(ReplayError::Running(projection))
    }
}

/// Gives it back, and closes the connection. Closing alone would do so too, but a
/// moment later.
pub(crate) async fn unlock(mut connection: PgConnection) -> sqlx::Result<()> {
    connection
        .execute("select pg_advisory_unlock_all()")
        .await?;
    connection.close().await
}

/// How far the log goes: where a replay comes to.
///
/// # Errors
/// Those of the log.
pub async fn head(pool: &PgPool) -> Result<i64, ReplayError> {
    Ok(with_deadline(DEADLINE, read::head(pool)).await?)
}
