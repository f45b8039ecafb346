//! The end of a replay: one transaction swaps the shadow with the live tables.

use std::time::{Duration, Instant};

use eventlog::read;
use eventlog::sqlstate::SqlState;
use sqlx::{Executor, PgConnection};
use tokio_util::sync::CancellationToken;

use super::shadow::shadow_schema;
use crate::worker::{Until, Worker};
use crate::{OperationError, TableProjection, new_revision};

/// The `lock_timeout` of the exclusive lock of the live tables and of the dead letters. New
/// queries wait behind the request for the exclusive lock.
const LOCK_TIMEOUT: &str = "100ms";

/// How long the swap holds the exclusive lock for the shadow to catch up.
const MAX_LOCK_TIME: Duration = Duration::from_millis(500);

/// Fails if a view reads the live tables. A view refers to tables by identity, not by
/// name, so after the swap it would read the retired tables.
pub(super) async fn refuse_views<P: TableProjection>(
    connection: &mut PgConnection,
) -> Result<(), OperationError> {
    let tables: Vec<String> = P::TABLES.iter().map(|table| (*table).to_owned()).collect();
    let views = sqlx::query_scalar!(
        r#"select distinct ev_class::regclass::text as "view!"
        from pg_class as c
        join pg_depend as d on d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
        join pg_rewrite as r on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
        where c.relnamespace = 'read'::regnamespace and c.relname = any ($1)
        order by 1"#,
        &tables
    )
    .fetch_all(connection)
    .await?;
    if views.is_empty() {
        Ok(())
    } else {
        Err(OperationError::Views(views.join(", ")))
    }
}

/// Drops the tables that an earlier swap has retired. Never drops objects that depend on
/// them.
///
/// Each table is dropped in a transaction of its own. A query that was planned before the
/// swap locks the retired tables in its own order, and is then planned again. Dropping
/// all tables in one transaction could deadlock with such a query.
pub(super) async fn drop_retired<P: TableProjection>(
    connection: &mut PgConnection,
) -> sqlx::Result<()> {
    let retired = format!("retired_{}", P::NAME);
    for table in P::TABLES {
        sqlx::query!("select drop_retired($1, $2)", retired, table)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Swaps the shadow with the live tables. Returns the global position of the shadow, and
/// when the exclusive lock was requested. Returns `None` if a lock was not
/// available, or if the shadow did not catch up within [`MAX_LOCK_TIME`].
///
/// The live worker waits for the locks too, so its checkpoint does not move until the
/// shadow has reached it. After the swap its next commit finds another checkpoint, and
/// the worker continues from there in the new tables.
pub(super) async fn swap<P: TableProjection>(
    transaction: &mut PgConnection,
    worker: &mut Worker<P>,
    stop: &CancellationToken,
) -> Result<Option<(i64, Instant)>, OperationError> {
    let schema = shadow_schema(P::NAME);
    let retired = format!("retired_{}", P::NAME);
    let tables: Vec<String> = P::TABLES.iter().map(|table| (*table).to_owned()).collect();
    let tables_in = |schema: &str| -> String {
        let tables: Vec<String> = P::TABLES
            .iter()
            .map(|table| format!("{schema}.{table}"))
            .collect();
        tables.join(", ")
    };
    // The weak locks do not block queries, so they can wait longer: Postgres cancels an
    // autovacuum that has blocked a lock for a second. Only the exclusive lock blocks queries.
    let weak_locks = format!(
        "set local lock_timeout = '3s';
        lock table {live}, {new} in share update exclusive mode;
        set local lock_timeout = '{LOCK_TIMEOUT}';
        lock table read.dead_letters in share row exclusive mode",
        live = tables_in("read"),
        new = tables_in(&schema),
    );
    let exclusive_lock = format!("lock table {} in access exclusive mode", tables_in("read"));
    let mut locked_at = Instant::now();
    for locks in [weak_locks, exclusive_lock] {
        locked_at = Instant::now();
        match transaction.execute(locks.as_str()).await {
            Ok(_) => {}
            Err(error) if is_lock_timeout(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    // Rows can be ahead of the checkpoint. Queries must not see them go back.
    let live = sqlx::query_scalar!(
        r#"select greatest(global_position, written_to) as "written_to!"
        from read.checkpoints where projection = $1 for update"#,
        P::NAME
    )
    .fetch_optional(&mut *transaction)
    .await;
    let live = match live {
        Ok(live) => live.unwrap_or(0),
        Err(error) if is_lock_timeout(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    refuse_views::<P>(transaction).await?;
    let caught_up = worker.run(Until::Reached(live), stop);
    let Ok(caught_up) = tokio::time::timeout(MAX_LOCK_TIME, caught_up).await else {
        return Ok(None);
    };
    caught_up?;
    if stop.is_cancelled() {
        return Err(OperationError::Stopped);
    }
    // After a restore of an older log, the live tables can be ahead of the log. Only then
    // may the shadow be behind them.
    let global_position = worker.progress().borrow().checkpoint;
    if global_position < live && global_position < read::head(&mut *transaction).await? {
        return Ok(None);
    }
    let discarded = format!(
        "select exists (
            select from read.dead_letters as l
            where l.projection = '{}' and l.state = 'discarded' and not exists (
                select from {schema}.dead_letters as d
                where d.projection = l.projection and d.global_position = l.global_position
            )
        )",
        P::NAME
    );
    let discarded: bool = sqlx::query_scalar(&discarded)
        .fetch_one(&mut *transaction)
        .await?;
    if discarded {
        return Err(OperationError::Discarded);
    }
    sqlx::query!("select swap_shadow($1, $2, $3)", schema, retired, &tables)
        .execute(&mut *transaction)
        .await?;
    sqlx::query!(
        "insert into read.checkpoints (projection, global_position, written_to, revision)
        values ($1, $2, $2, $3)
        on conflict (projection) do update
        set global_position = excluded.global_position, written_to = excluded.written_to,
            moved_at = clock_timestamp(), revision = excluded.revision",
        P::NAME,
        global_position,
        new_revision()
    )
    .execute(&mut *transaction)
    .await?;
    // Only the rows of the shadow remain, so its version of the time zone rules counts.
    let tzdata = format!(
        "update read.checkpoints as c set tzdata = s.tzdata
        from {schema}.checkpoints as s
        where c.projection = '{name}' and s.projection = c.projection",
        name = P::NAME
    );
    transaction.execute(tzdata.as_str()).await?;
    // Keep the data that only the live dead letters contain: when they were parked, which
    // ones are published, and which ones operators discarded during the replay.
    let dead_letters = format!(
        "update {schema}.dead_letters as d
        set published = l.published, parked_at = l.parked_at, tries = l.tries, asked = l.asked,
            state = case l.state when 'discarded' then l.state else d.state end
        from read.dead_letters as l
        where l.projection = d.projection and l.global_position = d.global_position;
        delete from read.dead_letters where projection = '{name}';
        insert into read.dead_letters select * from {schema}.dead_letters;
        select drop_shadow('{schema}');
        update projections set replay_position = null where projection = '{name}'",
        name = P::NAME
    );
    transaction.execute(dead_letters.as_str()).await?;
    Ok(Some((global_position, locked_at)))
}

/// Whether a statement did not get its locks.
pub(crate) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    SqlState::from_error(error).is_some_and(SqlState::is_lock_failure)
}
