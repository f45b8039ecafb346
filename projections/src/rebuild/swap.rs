//! The end of a replay: the shadow takes the place of the live tables, in one
//! transaction.

use std::time::{Duration, Instant};

use eventlog::read;
use sqlx::{Executor, PgConnection};
use tokio_util::sync::CancellationToken;

use super::ReplayError;
use super::shadow::schema_of;
use crate::TableProjection;
use crate::worker::{Until, Worker};

/// How long the swap waits for the live tables each time: queries that come
/// meanwhile wait as long.
const LOCK_TIMEOUT: &str = "100ms";

/// How long it may hold them until the shadow has caught up.
const HOLD: Duration = Duration::from_millis(500);

/// A view reads its tables by what they are, not by name: after a swap it would
/// go on with those of before.
pub(super) async fn refuse_views<P: TableProjection>(
    connection: &mut PgConnection,
) -> Result<(), ReplayError> {
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
        Err(ReplayError::Views(views.join(", ")))
    }
}

/// Removes the tables that an earlier swap has put aside; never with what
/// others have built on them.
///
/// One by one, each in a transaction of its own: a query that was planned before
/// the swap locks them by what they were, in its own order, and then plans anew. It
/// would be broken off if it waited for one while this held that and waited for
/// another.
pub(super) async fn drop_retired<P: TableProjection>(connection: &mut PgConnection) -> sqlx::Result<()> {
    let retired = format!("retired_{}", P::NAME);
    for table in P::TABLES {
        let drop = format!("drop table if exists {retired}.{table}");
        connection.execute(drop.as_str()).await?;
    }
    let drop = format!("drop schema if exists {retired}");
    connection.execute(drop.as_str()).await?;
    Ok(())
}

/// Puts the shadow in the place of the live tables. Returns where it is, and since
/// when queries wait; `None` when the tables could not be had.
///
/// The live worker waits for the tables too, so its checkpoint stays where it
/// is until the shadow is not behind it. It then finds its step moved, and goes
/// on from the new checkpoint in the new tables.
pub(super) async fn swap<P: TableProjection>(
    transaction: &mut PgConnection,
    worker: &mut Worker<P>,
    stop: &CancellationToken,
) -> Result<Option<(i64, Instant)>, ReplayError> {
    let schema = schema_of(P::NAME);
    let retired = format!("retired_{}", P::NAME);
    let tables: Vec<String> = P::TABLES.iter().map(|table| (*table).to_owned()).collect();
    let named = |schema: &str| -> String {
        let tables: Vec<String> = P::TABLES
            .iter()
            .map(|table| format!("{schema}.{table}"))
            .collect();
        tables.join(", ")
    };
    // Vacuum steps aside for who waits for more than a second, which blocks
    // nobody else; readers are kept waiting only after that.
    let locks = format!(
        "set local lock_timeout = '3s';
        lock table {live}, {new} in share update exclusive mode;
        set local lock_timeout = '{LOCK_TIMEOUT}';
        lock table read.dead_letters in share row exclusive mode",
        live = named("read"),
        new = named(&schema),
    );
    let all = format!("lock table {} in access exclusive mode", named("read"));
    let mut held = Instant::now();
    for locks in [locks, all] {
        held = Instant::now();
        match transaction.execute(locks.as_str()).await {
            Ok(_) => {}
            Err(error) if is_lock_timeout(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    let live = sqlx::query_scalar!(
        "select global_position from read.checkpoints where projection = $1 for update",
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
    let Ok(caught_up) = tokio::time::timeout(HOLD, caught_up).await else {
        return Ok(None);
    };
    caught_up?;
    if stop.is_cancelled() {
        return Err(ReplayError::Stopped);
    }
    // Behind the live tables only where they are ahead of the log, as after a
    // restore: the log is right.
    let position = worker.progress().borrow().position;
    if position < live && position < read::head(&mut *transaction).await? {
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
        return Err(ReplayError::Discarded);
    }
    sqlx::query!("select swap_shadow($1, $2, $3)", schema, retired, &tables)
        .execute(&mut *transaction)
        .await?;
    sqlx::query!(
        "insert into read.checkpoints (projection, global_position) values ($1, $2)
        on conflict (projection) do update
        set global_position = excluded.global_position, moved_at = clock_timestamp(),
            replays = checkpoints.replays + 1",
        P::NAME,
        position
    )
    .execute(&mut *transaction)
    .await?;
    // What operators have discarded meanwhile, what NATS has a copy of, and since
    // when it is known.
    let letters = format!(
        "update {schema}.dead_letters as d
        set published = l.published, parked_at = l.parked_at, tries = l.tries, asked = l.asked,
            state = case l.state when 'discarded' then l.state else d.state end
        from read.dead_letters as l
        where l.projection = d.projection and l.global_position = d.global_position;
        delete from read.dead_letters where projection = '{name}';
        insert into read.dead_letters select * from {schema}.dead_letters;
        drop schema {schema} cascade;
        update projections set replay_position = null where projection = '{name}'",
        name = P::NAME
    );
    transaction.execute(letters.as_str()).await?;
    Ok(Some((position, held)))
}

/// Whether a lock was not to be had.
pub(crate) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    // lock_not_available, and deadlock_detected.
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "55P03" || code == "40P01")
}
