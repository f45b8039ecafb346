//! Retention of the history: removes the oldest months permanently.
//!
//! A month is dropped as a whole partition, so no row is deleted one by one. The
//! low-water mark in the table `retention` then keeps every commit, also one of a
//! replay, from writing earlier sessions again. The log keeps all events.

use std::time::Duration;

use domain::Timestamp;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use super::History;
use crate::rebuild::{self, is_lock_timeout};
use crate::{OperationError, Projection};

/// The `lock_timeout` of one attempt to lock the history. New queries wait behind
/// the lock request, so it gives up soon and lets running queries finish.
const LOCK_TIMEOUT: &str = "100ms";
const MAX_LOCK_ATTEMPTS: u32 = 100;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedMonth {
    /// The name of the partition.
    pub partition: String,
    /// Number of sessions in the month.
    pub sessions: u64,
}

/// Drops the oldest months, as long as all sessions of a month ended before
/// `before`. Each month is one transaction; an error keeps the months that are
/// already dropped.
pub async fn drop_months_before(
    pool: &PgPool,
    before: Timestamp,
    stop: &CancellationToken,
) -> Result<Vec<DroppedMonth>, OperationError> {
    // A running replay may have written the month to its tables already, and its
    // swap would restore the month.
    let mut connection = rebuild::lock(pool, History::NAME).await?;
    let mut dropped = Vec::new();
    while let Some(month) = drop_oldest_month(&mut connection, before, stop).await? {
        tracing::info!(
            partition = month.partition,
            sessions = month.sessions,
            "dropped a month of the history"
        );
        dropped.push(month);
    }
    rebuild::unlock(connection).await?;
    Ok(dropped)
}

/// Returns `None` if the oldest month is not old enough.
async fn drop_oldest_month(
    connection: &mut PgConnection,
    before: Timestamp,
    stop: &CancellationToken,
) -> Result<Option<DroppedMonth>, OperationError> {
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
    // Recent months stay, even if they are empty: clients choose session ids, so
    // ids of the last months can still arrive, and months are created in advance.
    let is_recent = sqlx::query_scalar!(
        r#"select $1 > month_bound((date_trunc('month', now() at time zone 'UTC')
            - interval '2 months')::date) as "is_recent!""#,
        oldest.until
    )
    .fetch_one(&mut *connection)
    .await?;
    if is_recent {
        return Ok(None);
    }
    let partition = oldest.partition;
    // Roles have rights on the whole table only. No earlier partition exists.
    let has_newer_session = sqlx::query_scalar!(
        r#"select exists (
            select from read.history
            where session_id < $1 and (ended_at is null or ended_at >= $2)
        ) as "has_newer_session!""#,
        oldest.until,
        before
    )
    .fetch_one(&mut *connection)
    .await?;
    if has_newer_session {
        return Ok(None);
    }
    let mut transaction = connection.begin().await?;
    // The lock on the checkpoint stops the projection, so no session that is counted
    // here can be erased at the same time. Queries continue.
    let remove = format!(
        "set local idle_in_transaction_session_timeout = '60s';
        select from read.checkpoints where projection = '{name}' for update;
        create temp table removed on commit drop as
            select reader_id, book_id, count(*) as sessions
            from read.history where session_id < '{until}' group by reader_id, book_id;
        update read.history_totals as totals
            set sessions = totals.sessions - removed.sessions
            from removed
            where (totals.reader_id, totals.book_id) = (removed.reader_id, removed.book_id);
        delete from read.history_totals as totals using removed
            where (totals.reader_id, totals.book_id) = (removed.reader_id, removed.book_id)
                and totals.sessions = 0;
        update retention set history_from = '{until}';
        -- The tables of an interrupted replay still contain the month.
        select drop_shadow('{shadow}')",
        name = History::NAME,
        until = oldest.until,
        shadow = rebuild::shadow_schema(History::NAME)
    );
    transaction.execute(remove.as_str()).await?;
    let sessions: i64 =
        sqlx::query_scalar("select coalesce(sum(sessions), 0)::bigint from removed")
            .fetch_one(&mut *transaction)
            .await?;
    lock_history(&mut transaction, stop).await?;
    sqlx::query!("select drop_history_month($1)", partition)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(Some(DroppedMonth {
        partition,
        sessions: sessions.unsigned_abs(),
    }))
}

/// Locks the history exclusively, in short attempts.
async fn lock_history(
    transaction: &mut PgConnection,
    stop: &CancellationToken,
) -> Result<(), OperationError> {
    for _ in 0..MAX_LOCK_ATTEMPTS {
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
        if tokio::time::timeout(LOCK_RETRY_INTERVAL, stop.cancelled())
            .await
            .is_ok()
        {
            return Err(OperationError::Stopped);
        }
    }
    Err(OperationError::Busy)
}
