//! Verification: compares the read tables with the log.
//!
//! A worker folds the log into the tables of a scratch schema, and Postgres compares
//! them with the live tables, row by row. This takes disk space for a second copy of the
//! tables, and little memory.
//!
//! The service keeps running. Both sides are compared in one snapshot, which is taken
//! while the live worker waits for a moment at the global position of the fold. A
//! verification never changes a live table.

use std::time::{Duration, Instant};

use eventlog::Pool;
use eventlog::deadline::with_deadline;
use futures::FutureExt;
use futures::future::BoxFuture;
use messaging::FanOut;
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::worker::{Until, Worker, WorkerProgress, forward};
use crate::zones::Zones;
use crate::{History, OperationError, TableProjection, flush, rebuild};

mod sessions;

/// The differences of a table that are returned in full. The others are only counted.
pub const MAX_DIFFERENCES_SHOWN: usize = 10;

/// How long the live worker writes every row at once, so that no row is ahead of the
/// checkpoint. Each attempt begins this time again.
const CLOSE_WINDOW: Duration = Duration::from_secs(10);

/// The pause before the next attempt while rows are ahead of the checkpoint.
const AHEAD_DELAY: Duration = Duration::from_millis(100);

/// How long the live worker may be held.
const MAX_HOLD: Duration = Duration::from_secs(2);

/// Maximum number of attempts of the fold to reach the checkpoint of the live tables.
const MAX_PIN_ATTEMPTS: u32 = 100;

/// The deadline for statements that read or lock little.
const SHORT_DEADLINE: Duration = Duration::from_secs(10);

/// The result of comparing a table, the cache or sessions with the log.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The name of the table, `claims`, `sessions`, or the name of the cache projection.
    pub name: String,
    /// The number of rows or entries that at least one side contains.
    pub rows: u64,
    /// The number of those rows or entries that are not equal on both sides.
    pub differing: u64,
    /// At most [`MAX_DIFFERENCES_SHOWN`] of these.
    pub first: Vec<Difference>,
}

/// A row that differs. A side is `None` if it does not contain the row.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The row that queries read.
    pub found: Option<Value>,
    /// The row according to the log.
    pub expected: Option<Value>,
}

impl Compared {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rows: 0,
            differing: 0,
            first: Vec::new(),
        }
    }

    /// Adds a difference. The caller counts the row.
    pub(crate) fn differs(&mut self, difference: Difference) {
        self.differing += 1;
        if self.first.len() < MAX_DIFFERENCES_SHOWN {
            self.first.push(difference);
        }
    }
}

/// The name of the schema into which a projection is folded for the comparison.
#[must_use]
pub fn scratch_schema(projection: &str) -> String {
    format!("verify_{projection}")
}

/// A comparison in the same snapshot as the tables. The second argument is the global
/// position of the fold.
type Check =
    for<'a> fn(&'a mut PgConnection, i64) -> BoxFuture<'a, Result<Compared, OperationError>>;

/// Compares the tables of a projection with the log. Returns the global position at which
/// they were compared.
///
/// `live` must have no statement timeout. The `search_path` of `scratch` must start with
/// [`scratch_schema`].
pub async fn tables<P: TableProjection>(
    live: &PgPool,
    scratch: PgPool,
    zones: &Zones,
    progress: &watch::Sender<WorkerProgress>,
    stop: &CancellationToken,
) -> Result<(i64, Vec<Compared>), OperationError> {
    fold_and_compare::<P>(live, scratch, zones, &[], progress, stop).await
}

/// Compares the history, like [`tables`]. Also compares what commands rely on: the
/// active-session claims, and the three-event load of a sample of sessions.
pub async fn history(
    live: &PgPool,
    scratch: PgPool,
    zones: &Zones,
    progress: &watch::Sender<WorkerProgress>,
    stop: &CancellationToken,
) -> Result<(i64, Vec<Compared>), OperationError> {
    let sessions = sessions::compare_sample(&scratch, stop).await?;
    let checks: &[Check] =
        &[|snapshot, global_position| compare_claims(snapshot, global_position).boxed()];
    let (global_position, mut compared) =
        fold_and_compare::<History>(live, scratch, zones, checks, progress, stop).await?;
    compared.push(sessions);
    Ok((global_position, compared))
}

async fn fold_and_compare<P: TableProjection>(
    live: &PgPool,
    scratch: PgPool,
    zones: &Zones,
    checks: &[Check],
    progress: &watch::Sender<WorkerProgress>,
    stop: &CancellationToken,
) -> Result<(i64, Vec<Compared>), OperationError> {
    // A verification loads Postgres as much as a replay does, so only one of them runs.
    let mut connection = rebuild::lock(live, P::NAME).await?;
    let schema = scratch_schema(P::NAME);
    rebuild::create::<P>(&mut connection, &schema, None).await?;
    let compared = compare::<P>(&mut connection, &scratch, zones, checks, progress, stop).await;
    scratch.close().await;
    rebuild::drop_shadow(&mut connection, &schema).await?;
    rebuild::unlock(connection).await?;
    compared
}

async fn compare<P: TableProjection>(
    connection: &mut PgConnection,
    scratch: &PgPool,
    zones: &Zones,
    checks: &[Check],
    progress: &watch::Sender<WorkerProgress>,
    stop: &CancellationToken,
) -> Result<(i64, Vec<Compared>), OperationError> {
    let subscription = FanOut::default().subscribe(scratch.clone());
    let projection = P::new(scratch.clone(), zones);
    let mut worker = Worker::replay(projection, subscription, scratch.clone());
    let report = forward(worker.progress(), progress, std::convert::identity);
    let work = async {
        let (mut snapshot, global_position) =
            take_snapshot(connection, &mut worker, scratch, stop).await?;
        let comparing = async {
            let mut compared = Vec::new();
            for table in P::TABLES {
                compared.push(compare_table(&mut snapshot, &scratch_schema(P::NAME), table).await?);
            }
            for check in checks {
                compared.push(check(&mut snapshot, global_position).await?);
            }
            Ok::<_, OperationError>(compared)
        };
        let compared = tokio::select! {
            compared = comparing => compared?,
            // Closes the snapshot's connection, and Postgres releases its locks.
            () = stop.cancelled() => return Err(OperationError::Stopped),
        };
        snapshot.close().await?;
        Ok((global_position, compared))
    };
    tokio::select! {
        compared = work => compared,
        never = report => never,
    }
}

/// Folds the log up to the checkpoint of the live tables. Returns a snapshot in which both
/// sides are at this global position.
async fn take_snapshot<P: TableProjection>(
    connection: &mut PgConnection,
    worker: &mut Worker<P>,
    scratch: &PgPool,
    stop: &CancellationToken,
) -> Result<(PgConnection, i64), OperationError> {
    let pool = Pool::from(scratch.clone());
    let mut is_ahead = false;
    for _ in 0..MAX_PIN_ATTEMPTS {
        let closed = flush::close_window(&pool, P::NAME, CLOSE_WINDOW);
        with_deadline(SHORT_DEADLINE, closed).await?;
        // Never beyond the live tables, because a fold cannot go back.
        let began = Instant::now();
        let live = with_deadline(SHORT_DEADLINE, checkpoint(connection, P::NAME)).await?;
        worker.run(Until::Reached(live), stop).await?;
        if stop.is_cancelled() {
            return Err(OperationError::Stopped);
        }
        // The live tables are too far ahead to hold them: fold again first.
        if began.elapsed() > MAX_HOLD / 2 {
            continue;
        }
        let mut snapshot = with_deadline(SHORT_DEADLINE, scratch.acquire())
            .await?
            .detach();
        let mut hold = connection.begin().await?;
        let live = sqlx::query!(
            "select global_position, written_to from read.checkpoints
            where projection = $1 for update",
            P::NAME
        )
        .fetch_optional(&mut *hold)
        .await;
        let live = match live {
            Ok(Some(live)) if live.written_to > live.global_position => {
                is_ahead = true;
                hold.rollback().await?;
                tokio::time::sleep(AHEAD_DELAY).await;
                continue;
            }
            Ok(live) => {
                is_ahead = false;
                live.map_or(0, |live| live.global_position)
            }
            Err(error) => {
                hold.rollback().await?;
                // A slow commit of the live worker holds the row.
                if rebuild::is_lock_timeout(&error) {
                    continue;
                }
                return Err(error.into());
            }
        };
        let caught_up = worker.run(Until::Reached(live), stop);
        let Ok(caught_up) = tokio::time::timeout(MAX_HOLD, caught_up).await else {
            hold.rollback().await?;
            continue;
        };
        caught_up?;
        snapshot
            .execute(
                "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0;
                set client_connection_check_interval = '500ms'; set enable_seqscan = on",
            )
            .await?;
        snapshot
            .execute("begin isolation level repeatable read, read only")
            .await?;
        // The first statement takes the snapshot.
        snapshot.execute("select from checkpoints").await?;
        hold.rollback().await?;
        return Ok((snapshot, live));
    }
    Err(if is_ahead {
        OperationError::Ahead(P::NAME)
    } else {
        OperationError::Busy
    })
}

async fn checkpoint(connection: &mut PgConnection, projection: &str) -> sqlx::Result<i64> {
    let checkpoint = sqlx::query_scalar!(
        "select global_position from read.checkpoints where projection = $1",
        projection
    )
    .fetch_optional(connection)
    .await?;
    Ok(checkpoint.unwrap_or(0))
}

async fn compare_table(
    snapshot: &mut PgConnection,
    schema: &str,
    table: &str,
) -> Result<Compared, OperationError> {
    let row = sqlx::query!(
        r#"select total as "total!", differing as "differing!", first as "first!"
        from compare_shadow($1, $2, $3)"#,
        schema,
        table,
        i32::try_from(MAX_DIFFERENCES_SHOWN).expect("MAX_DIFFERENCES_SHOWN is small")
    )
    .fetch_one(snapshot)
    .await?;
    Ok(Compared {
        name: table.to_owned(),
        rows: row.total.unsigned_abs(),
        differing: row.differing.unsigned_abs(),
        first: differences(&row.first),
    })
}

/// Compares the active-session claims with the history at `global_position` and the later
/// events. Appends change the active-session claims in the same transaction, so these are
/// ahead of the history.
async fn compare_claims(
    snapshot: &mut PgConnection,
    global_position: i64,
) -> Result<Compared, OperationError> {
    let row = sqlx::query_file!(
        "src/verify/claims.sql",
        global_position,
        i64::try_from(MAX_DIFFERENCES_SHOWN).expect("MAX_DIFFERENCES_SHOWN is small")
    )
    .fetch_one(snapshot)
    .await?;
    Ok(Compared {
        name: "claims".to_owned(),
        rows: row.total.unsigned_abs(),
        differing: row.differing.unsigned_abs(),
        first: differences(&row.first),
    })
}

fn differences(rows: &Value) -> Vec<Difference> {
    let side = |row: &Value, side| row.get(side).filter(|value| !value.is_null()).cloned();
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
    rows.iter()
        .map(|row| Difference {
            found: side(row, "found"),
            expected: side(row, "expected"),
        })
        .collect()
}
