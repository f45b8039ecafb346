//! Replay: a projection made again from the log, while queries go on reading
//! the tables of before and the live worker goes on writing them.
//!
//! It is the ordinary worker, with other tables: those of a shadow schema, which
//! its connections look into first. When it has caught up, it takes the place
//! of the live tables in one transaction, at a position that is not behind
//! theirs. A replay that was cut off goes on from the checkpoint of its shadow.

use std::time::{Duration, Instant};

use eventlog::deadline::within;
use eventlog::read;
use eventlog::tail::Tail;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::runtime::{Progress, Until, Worker};
use crate::{InTables, schema, status};

/// How long the swap waits for the live tables each time: queries that come
/// meanwhile wait as long.
const LOCK_TIMEOUT: &str = "100ms";

/// How long it may hold them until the shadow has caught up.
const HOLD: Duration = Duration::from_millis(500);

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
    TooManyLetters(#[from] crate::runtime::TooManyLetters),
    /// Something reads the live tables without end.
    #[error("the live tables are in use all the time: look for long transactions")]
    Busy,
    /// Postgres did not answer, or refused.
    #[error("the database is unavailable")]
    Database(#[from] sqlx::Error),
    /// The log did not answer.
    #[error(transparent)]
    Log(#[from] eventlog::LogError),
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

/// The schema that a projection is replayed in.
#[must_use]
pub fn schema_of(projection: &str) -> String {
    format!("replay_{projection}")
}

/// Replays a projection. `live` reads and locks; the connections of `shadow`
/// look into [`schema_of`] the projection first. `restart` forgets what an
/// earlier replay has done.
///
/// # Errors
/// See [`ReplayError`].
pub async fn replay<P: InTables>(
    live: &PgPool,
    shadow: PgPool,
    restart: bool,
    progress: &watch::Sender<Progress>,
    stop: &CancellationToken,
) -> Result<Replayed, ReplayError> {
    // Its lock ends with this connection, however the replay ends.
    let mut connection = within(DEADLINE, live.acquire()).await?.detach();
    lock(&mut connection, P::NAME).await?;
    refuse_views::<P>(&mut connection).await?;
    let schema = schema_of(P::NAME);
    drop_retired::<P>(&mut connection).await?;
    if restart || !is_current(&mut connection, &schema).await? {
        create::<P>(&mut connection, &schema, true).await?;
    }
    let reader = Tail::default().reader(shadow.clone());
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
            let held = Instant::now();
            let mut transaction = connection.begin().await?;
            let swapped = swap(&mut transaction, &mut worker, stop).await;
            if let Ok(Some(position)) = swapped {
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
    connection.close().await?;
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
    if within(DEADLINE, locked).await? {
        Ok(())
    } else {
        Err(ReplayError::Running(projection))
    }
}

/// Whether a shadow of this release is there to go on with.
async fn is_current(connection: &mut PgConnection, schema: &str) -> sqlx::Result<bool> {
    let made_by: Option<String> = sqlx::query_scalar!(
        "select obj_description(to_regnamespace($1)::oid, 'pg_namespace')",
        schema
    )
    .fetch_one(connection)
    .await?;
    Ok(made_by == Some(maker()))
}

/// What makes a shadow: another release may fold events in another way.
fn maker() -> String {
    format!("{} {}", env!("CARGO_PKG_VERSION"), schema::wanted())
}

/// Makes an empty shadow of a projection, at the beginning of the log. Events
/// that operators have discarded stay so.
pub(crate) async fn create<P: InTables>(
    connection: &mut PgConnection,
    schema: &str,
    kept: bool,
) -> sqlx::Result<()> {
    let tables: Vec<String> = P::TABLES
        .iter()
        .chain(&["checkpoints", "dead_letters"])
        .map(|table| (*table).to_owned())
        .collect();
    let mut transaction = connection.begin().await?;
    let drop = format!("drop schema if exists {schema} cascade");
    transaction.execute(drop.as_str()).await?;
    sqlx::query!("select create_shadow($1, $2)", schema, &tables)
        .execute(&mut *transaction)
        .await?;
    let letters = format!(
        "insert into {schema}.dead_letters
        select * from read.dead_letters where projection = '{}' and state = 'discarded'",
        P::NAME
    );
    transaction.execute(letters.as_str()).await?;
    if kept {
        let made_by = format!("comment on schema {schema} is '{}'", maker());
        transaction.execute(made_by.as_str()).await?;
    }
    transaction.commit().await
}

/// A view reads its tables by what they are, not by name: after a swap it would
/// go on with those of before.
async fn refuse_views<P: InTables>(connection: &mut PgConnection) -> Result<(), ReplayError> {
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
async fn drop_retired<P: InTables>(connection: &mut PgConnection) -> sqlx::Result<()> {
    let retired = format!("retired_{}", P::NAME);
    let tables: Vec<String> = P::TABLES
        .iter()
        .map(|table| format!("{retired}.{table}"))
        .collect();
    let tables = tables.join(", ");
    let drop = format!("drop table if exists {tables}; drop schema if exists {retired}");
    connection.execute(drop.as_str()).await?;
    Ok(())
}

/// Puts the shadow in the place of the live tables. Returns where it is; `None`
/// when they could not be had.
///
/// The live worker waits for the tables too, so its checkpoint stays where it
/// is until the shadow is not behind it. It then finds its step moved, and goes
/// on from the new checkpoint in the new tables.
async fn swap<P: InTables>(
    transaction: &mut PgConnection,
    worker: &mut Worker<P>,
    stop: &CancellationToken,
) -> Result<Option<i64>, ReplayError> {
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
        lock table read.dead_letters in share row exclusive mode;
        lock table {live} in access exclusive mode",
        live = named("read"),
        new = named(&schema),
    );
    if let Err(error) = transaction.execute(locks.as_str()).await {
        return if is_lock_timeout(&error) {
            Ok(None)
        } else {
            Err(error.into())
        };
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
        set global_position = excluded.global_position, moved_at = clock_timestamp()",
        P::NAME,
        position
    )
    .execute(&mut *transaction)
    .await?;
    // What operators have discarded meanwhile, what NATS has a copy of, and since
    // when it is known.
    let letters = format!(
        "update {schema}.dead_letters as d
        set published = l.published, parked_at = l.parked_at, tries = l.tries,
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
    Ok(Some(position))
}

pub(crate) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    // lock_not_available, and deadlock_detected.
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "55P03" || code == "40P01")
}

/// How far the log goes: where a replay comes to.
///
/// # Errors
/// Those of the log.
pub async fn head(pool: &PgPool) -> Result<i64, ReplayError> {
    Ok(within(DEADLINE, read::head(pool)).await?)
}
