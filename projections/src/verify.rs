//! Whether the read side equals the log: the log is folded anew into tables of
//! its own, and Postgres compares them with those that queries read, row by row.
//! That takes the room of the tables, and little memory, here and there.
//!
//! Traffic goes on. Both sides are compared in one snapshot, taken while the
//! live worker is held for a moment at the position that the fold has come to.

use std::time::{Duration, Instant};

use eventlog::deadline::with_deadline;
use messaging::fan_out::FanOut;
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::rebuild::{self, ReplayError};
use crate::worker::{WorkerProgress, Until, Worker};
use crate::{History, TableProjection, Projection};

/// Differences of a table that are told in full.
pub const TOLD: usize = 10;

/// For how long the live worker may be held.
const HOLD: Duration = Duration::from_secs(2);

/// How often the fold comes near the live tables before they are held.
const PINS: u32 = 100;

/// How long Postgres may take over something small.
const DEADLINE: Duration = Duration::from_secs(10);

/// What comparing a table, or the cache, came to.
#[derive(Clone, Debug)]
pub struct Compared {
    /// What was compared.
    pub name: String,
    /// Rows or entries, of both sides together.
    pub rows: u64,
    /// How many of them are not the same on both.
    pub differing: u64,
    /// The first of these.
    pub first: Vec<Difference>,
}

/// A row that is not the same on both sides; `None` on the side that lacks it.
#[derive(Clone, Debug)]
pub struct Difference {
    /// What queries read.
    pub found: Option<Value>,
    /// What the log says.
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

    pub(crate) fn differs(&mut self, difference: Difference) {
        self.differing += 1;
        if self.first.len() < TOLD {
            self.first.push(difference);
        }
    }
}

/// The schema that a projection is folded into to be compared.
#[must_use]
pub fn schema_of(projection: &str) -> String {
    format!("verify_{projection}")
}

/// Compares the tables of a projection with the log; with the history, the
/// claims too. `live` reads and locks; the connections of `scratch` look into
/// [`schema_of`] the projection first. Returns the position of the comparison.
///
/// # Errors
/// See [`ReplayError`].
pub async fn tables<P: TableProjection>(
    live: &PgPool,
    scratch: PgPool,
    progress: &watch::Sender<WorkerProgress>,
    stop: &CancellationToken,
) -> Result<(i64, Vec<Compared>), ReplayError> {
    let mut connection = with_deadline(DEADLINE, live.acquire()).await?.detach();
    // A verification is a replay that is thrown away; one at a time is enough.
    rebuild::lock(&mut connection, P::NAME).await?;
    let schema = schema_of(P::NAME);
    rebuild::create::<P>(&mut connection, &schema, false).await?;
    let compared = compare::<P>(&mut connection, &scratch, progress, stop).await;
    scratch.close().await;
    let drop = format!("drop schema {schema} cascade");
    connection.execute(drop.as_str()).await?;
    rebuild::unlock(connection).await?;
    compared
}

async fn compare<P: TableProjection>(
    connection: &mut PgConnection,
    scratch: &PgPool,
    progress: &watch::Sender<WorkerProgress>,
    stop: &CancellationToken,
) -> Result<(i64, Vec<Compared>), ReplayError> {
    let reader = FanOut::default().reader(scratch.clone());
    let mut worker = Worker::replay(P::new(scratch.clone()), reader, scratch.clone());
    let mut followed = worker.progress();
    let follow = async {
        while followed.changed().await.is_ok() {
            let now = followed.borrow_and_update().clone();
            progress.send_replace(now);
        }
        std::future::pending::<()>().await;
    };
    let work = async {
        let (mut snapshot, position) = pin(connection, &mut worker, scratch, stop).await?;
        let comparing = async {
            let mut compared = Vec::new();
            for table in P::TABLES {
                compared.push(table_of(&mut snapshot, &schema_of(P::NAME), table).await?);
            }
            if P::NAME == History::NAME {
                compared.push(claims(&mut snapshot, position).await?);
            }
            Ok::<_, ReplayError>(compared)
        };
        let compared = tokio::select! {
            compared = comparing => compared?,
            // The snapshot's connection goes, and Postgres lets go of the tables.
            () = stop.cancelled() => return Err(ReplayError::Stopped),
        };
        snapshot.close().await?;
        Ok((position, compared))
    };
    tokio::select! {
        compared = work => compared,
        () = follow => unreachable!("it only follows"),
    }
}

/// Folds the log up to where the live tables are, and returns a snapshot in
/// which both are there.
async fn pin<P: TableProjection>(
    connection: &mut PgConnection,
    worker: &mut Worker<P>,
    scratch: &PgPool,
    stop: &CancellationToken,
) -> Result<(PgConnection, i64), ReplayError> {
    for _ in 0..PINS {
        // Never past the live tables: a fold does not go back.
        let began = Instant::now();
        let live = with_deadline(DEADLINE, checkpoint(connection, P::NAME)).await?;
        worker.run(Until::Reached(live), stop).await?;
        if stop.is_cancelled() {
            return Err(ReplayError::Stopped);
        }
        if began.elapsed() > HOLD / 2 {
            continue;
        }
        let mut snapshot = with_deadline(DEADLINE, scratch.acquire()).await?.detach();
        let mut held = connection.begin().await?;
        let live = sqlx::query_scalar!(
            "select global_position from read.checkpoints where projection = $1 for update",
            P::NAME
        )
        .fetch_optional(&mut *held)
        .await;
        let live = match live {
            Ok(live) => live.unwrap_or(0),
            Err(error) => {
                held.rollback().await?;
                // A step of the live worker takes its time.
                if rebuild::is_lock_timeout(&error) {
                    continue;
                }
                return Err(error.into());
            }
        };
        let caught_up = worker.run(Until::Reached(live), stop);
        let Ok(caught_up) = tokio::time::timeout(HOLD, caught_up).await else {
            held.rollback().await?;
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
        // A snapshot is taken by the first statement.
        snapshot.execute("select from checkpoints").await?;
        held.rollback().await?;
        return Ok((snapshot, live));
    }
    Err(ReplayError::Busy)
}

async fn checkpoint(connection: &mut PgConnection, projection: &str) -> sqlx::Result<i64> {
    let position = sqlx::query_scalar!(
        "select global_position from read.checkpoints where projection = $1",
        projection
    )
    .fetch_optional(connection)
    .await?;
    Ok(position.unwrap_or(0))
}

async fn table_of(
    snapshot: &mut PgConnection,
    schema: &str,
    table: &str,
) -> Result<Compared, ReplayError> {
    let row = sqlx::query!(
        r#"select total as "total!", differing as "differing!", first as "first!"
        from compare_shadow($1, $2, $3)"#,
        schema,
        table,
        i32::try_from(TOLD).expect("a few")
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

/// The claims are in the log's transactions, so they are ahead of the fold by
/// the events that came since.
async fn claims(snapshot: &mut PgConnection, position: i64) -> Result<Compared, ReplayError> {
    let row = sqlx::query_file!(
        "src/verify/claims.sql",
        position,
        i64::try_from(TOLD).expect("a few")
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
