//! Old months leave the history: whole partitions, so that no row is deleted one
//! by one, and for good: what stands before the floor is not written again, by a
//! replay neither. The log keeps their events.

use std::time::Duration;

use domain::Timestamp;
use eventlog::deadline::with_deadline;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use super::History;
use crate::projection::{DEADLINE, Projection};
use crate::rebuild::{self, ReplayError, is_lock_timeout};

/// How long queries may wait for a month to be taken out, and how often that is
/// tried: a query that runs for long is waited for, and others not behind it.
const LOCK_TIMEOUT: &str = "100ms";
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(200);

/// A month that has left the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// The name of its partition.
    pub partition: String,
    /// How many sessions it had.
    pub sessions: u64,
}

/// Takes out the oldest months, as long as all of their sessions ended before a
/// moment.
///
/// # Errors
/// See [`ReplayError`]; a month is out, or it is not.
pub async fn retire(
    pool: &PgPool,
    before: Timestamp,
    stop: &CancellationToken,
) -> Result<Vec<Retired>, ReplayError> {
    let mut connection = with_deadline(DEADLINE, pool.acquire()).await?.detach();
    // A replay has made its tables already, and would bring them back.
    rebuild::lock(&mut connection, History::NAME).await?;
    let mut all = Vec::new();
    while let Some(retired) = retire_oldest(&mut connection, before, stop).await? {
        tracing::info!(
            partition = retired.partition,
            sessions = retired.sessions,
            "a month has left the history"
        );
        all.push(retired);
    }
    rebuild::unlock(connection).await?;
    Ok(all)
}

async fn retire_oldest(
    connection: &mut PgConnection,
    before: Timestamp,
    stop: &CancellationToken,
) -> Result<Option<Retired>, ReplayError> {
    // Up to the months that are made ahead, or back for clients' ids.
    let oldest = sqlx::query!(
        r#"select c.relname as "partition!",
            substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \(''([^'']+)''\)') as "until!"
        from partitions_of('read.history'::regclass) as p (oid)
        join pg_class as c on c.oid = p.oid
        order by 2
        limit 1"#
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(oldest) = oldest else {
        return Ok(None);
    };
    let kept = sqlx::query_scalar!(
        r#"select $1 > month_bound((date_trunc('month', now() at time zone 'UTC')
            - interval '2 months')::date) as "kept!""#,
        oldest.until
    )
    .fetch_one(&mut *connection)
    .await?;
    if kept {
        return Ok(None);
    }
    let partition = oldest.partition;
    let open = format!(
        "select exists (
            select from read.{partition} where ended_at is null or ended_at >= $1
        )"
    );
    let open: bool = sqlx::query_scalar(&open)
        .bind(before)
        .fetch_one(&mut *connection)
        .await?;
    if open {
        return Ok(None);
    }
    let mut transaction = connection.begin().await?;
    // The projection stands still meanwhile, so that no session is erased which is
    // counted here; queries go on.
    let settle = format!(
        "set local idle_in_transaction_session_timeout = '60s';
        select from read.checkpoints where projection = '{name}' for update;
        create temp table retired on commit drop as
            select reader_id, book_id, count(*) as sessions
            from read.{partition} group by reader_id, book_id;
        update read.history_totals as totals
            set sessions = totals.sessions - retired.sessions
            from retired
            where (totals.reader_id, totals.book_id) = (retired.reader_id, retired.book_id);
        delete from read.history_totals as totals using retired
            where (totals.reader_id, totals.book_id) = (retired.reader_id, retired.book_id)
                and totals.sessions = 0;
        update retention set history_from = '{until}';
        -- What a replay that was cut off has made so far has it still.
        drop schema if exists {shadow} cascade",
        name = History::NAME,
        until = oldest.until,
        shadow = rebuild::schema_of(History::NAME)
    );
    transaction.execute(settle.as_str()).await?;
    let sessions: i64 =
        sqlx::query_scalar("select coalesce(sum(sessions), 0)::bigint from retired")
            .fetch_one(&mut *transaction)
            .await?;
    lock(&mut transaction, stop).await?;
    let drop = format!(
        "alter table read.history detach partition read.{partition};
        drop table read.{partition}"
    );
    transaction.execute(drop.as_str()).await?;
    transaction.commit().await?;
    Ok(Some(Retired {
        partition,
        sessions: sessions.unsigned_abs(),
    }))
}

/// Gets the table, a moment at a time.
async fn lock(transaction: &mut PgConnection, stop: &CancellationToken) -> Result<(), ReplayError> {
    for _ in 0..TRIES {
        let lock = format!(
            "savepoint lock; set local lock_timeout = '{LOCK_TIMEOUT}';
            lock table read.history in access exclusive mode"
        );
        match transaction.execute(lock.as_str()).await {
            Ok(_) => return Ok(()),
            Err(error) if is_lock_timeout(&error) => {
                transaction.execute("rollback to savepoint lock").await?;
            }
            Err(error) => return Err(error.into()),
        }
        if tokio::time::timeout(PAUSE, stop.cancelled()).await.is_ok() {
            return Err(ReplayError::Stopped);
        }
    }
    Err(ReplayError::Busy)
}
