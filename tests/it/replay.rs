//! A replay rebuilds a projection from the log while the service runs. Queries never
//! see partial results, no event is lost, and a killed replay resumes.

use std::time::Duration;

use messaging::FanOut;
use projections::OperationError;
use projections::dead_letters::{self, State};
use projections::rebuild::{Replayed, replay, shadow_schema};
use projections::worker::{Until, Worker, WorkerProgress};
use projections::zones::Zones;
use projections::{DailyStats, History, TableProjection};
use server::connect;
use sqlx::PgPool;
use tests::app::SETTLE;
use tests::process::command;
use tests::random_history::{write_random_histories, write_random_history};
use tests::reader::id;
use tests::stack::TestEnv;
use tests::{App, app, future_events, invariants, until};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod under_traffic;

/// Longest time until a replay starts and catches up.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) async fn replayed<P: TableProjection>(
    env: &TestEnv,
    stop: &CancellationToken,
) -> Result<Replayed, OperationError> {
    let database = app::settings(env, &[]).database;
    let live = connect::migrations_pool(&database).unwrap();
    let shadow = connect::replay_pool(&database, &shadow_schema(P::NAME)).unwrap();
    let progress = watch::Sender::new(WorkerProgress::default());
    replay::<P>(&live, shadow, &Zones::built_in(), false, &progress, stop).await
}

async fn schemas(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select nspname::text from pg_namespace where nspname ~ '^(read|replay|retired|verify)'
        order by 1",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// The names, columns, indexes, storage parameters and partitions of the read tables.
async fn table_definitions(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select format('%s %s %s', table_name, column_name, data_type)
        from information_schema.columns where table_schema = 'read'
        union all
        select regexp_replace(pg_get_indexdef(indexrelid), '.*', '\\&')
        from pg_index join pg_class as c on c.oid = indrelid
        join pg_namespace as n on n.oid = c.relnamespace
        where nspname = 'read'
        union all
        select format('%s with %s', c.oid::regclass, c.reloptions)
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where nspname = 'read' and reloptions is not null
        union all
        select format('%s part of %s', inhrelid::regclass, inhparent::regclass)
        from pg_inherits join pg_class as c on c.oid = inhrelid
        join pg_namespace as n on n.oid = c.relnamespace
        where nspname = 'read'
        order by 1",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn replay_restores_rows_and_keeps_table_definitions() {
    let app = App::start().await;
    write_random_histories(&app, 1..20).await;
    invariants::check(&app).await;
    sqlx::query("grant select on read.history to public")
        .execute(&app.pool)
        .await
        .unwrap();
    let (before, schemas_before) = (table_definitions(&app.pool).await, schemas(&app.pool).await);
    assert!(before.iter().any(|line| line.contains("fillfactor")));
    // Only a replay repairs these rows.
    sqlx::query("update read.history set active_ms = active_ms + 1")
        .execute(&app.pool)
        .await
        .unwrap();
    sqlx::query("update read.days set readers = readers + 1")
        .execute(&app.pool)
        .await
        .unwrap();

    let stop = CancellationToken::new();
    let history = replayed::<History>(&app.env, &stop).await.unwrap();
    let stats = replayed::<DailyStats>(&app.env, &stop).await.unwrap();
    let log = invariants::read_log(&app.pool).await;
    for replayed in [history, stats] {
        assert_eq!(replayed.events, log.len() as u64);
        assert_eq!(
            replayed.global_position,
            log.last().unwrap().global_position
        );
    }
    invariants::check(&app).await;
    assert_eq!(table_definitions(&app.pool).await, before);
    assert_eq!(schemas(&app.pool).await, schemas_before);
    let granted: bool =
        sqlx::query_scalar("select has_table_privilege('public', 'read.history', 'select')")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    assert!(granted, "the grant is kept");

    // The live worker continues in the new tables, and another replay succeeds.
    write_random_history(app.reader(), 77).await;
    invariants::check(&app).await;
    replayed::<History>(&app.env, &stop).await.unwrap();
    invariants::check(&app).await;
    app.stop().await;
}

#[tokio::test]
async fn replay_resets_tables_that_are_ahead_of_a_restored_log() {
    let app = App::start().await;
    write_random_history(app.reader(), 3).await;
    invariants::check(&app).await;
    let head = eventlog::read::head(&app.pool).await.unwrap();
    sqlx::query("update checkpoints set global_position = 1000000 where projection = 'history'")
        .execute(&app.pool)
        .await
        .unwrap();
    sqlx::query("update read.history set active_ms = active_ms + 1")
        .execute(&app.pool)
        .await
        .unwrap();
    let replayed = replayed::<History>(&app.env, &CancellationToken::new()).await;
    assert_eq!(replayed.unwrap().global_position, head);
    write_random_history(app.reader(), 4).await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn old_tables_are_dropped_one_by_one_without_deadlock() {
    let app = App::start().await;
    write_random_history(app.reader(), 5).await;
    app.settled().await;
    // A replay that is killed right after its swap leaves these tables.
    for statement in [
        "create schema retired_history authorization reading_owner",
        "create table retired_history.history (like read.history)",
        "create table retired_history.history_totals (like read.history_totals)",
        "alter table retired_history.history owner to reading_owner",
        "alter table retired_history.history_totals owner to reading_owner",
    ] {
        sqlx::query(statement).execute(&app.pool).await.unwrap();
    }
    // A query that was planned before the swap has locked the second table.
    let mut query = app.pool.begin().await.unwrap();
    sqlx::query("lock table retired_history.history_totals in access share mode")
        .execute(&mut *query)
        .await
        .unwrap();
    let env = app.env.clone();
    let stop = CancellationToken::new();
    let replay = tokio::spawn(async move { replayed::<History>(&env, &stop).await });
    // The lock on the second table does not delay the drop of the first one.
    until("the first table is dropped", SETTLE, async || {
        sqlx::query_scalar("select to_regclass('retired_history.history') is null")
            .fetch_one(&app.pool)
            .await
            .unwrap()
    })
    .await;
    query.rollback().await.unwrap();
    replay.await.unwrap().unwrap();
    invariants::check(&app).await;
}

#[tokio::test]
async fn live_worker_respects_dead_letters_of_a_replay() {
    let app = App::start().await;
    app.settled().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    future_events::append_unreadable(&app.pool, session).await;
    app.settled().await;
    // A newer build would have applied the event without a dead letter.
    sqlx::query("delete from dead_letters where projection = 'history'")
        .execute(&app.pool)
        .await
        .unwrap();
    replayed::<History>(&app.env, &CancellationToken::new())
        .await
        .unwrap();
    future_events::append_readable(&app.pool, session).await;
    app.settled().await;
    let dead_letters = dead_letters::list(&app.pool, Some("history"), None, None, 10).await;
    let states: Vec<_> = dead_letters
        .unwrap()
        .into_iter()
        .map(|dead_letter| (dead_letter.sequence, dead_letter.state))
        .collect();
    assert_eq!(states, [(2, State::Parked), (3, State::Waiting)]);
}

#[tokio::test]
async fn replay_with_too_many_dead_letters_fails_with_a_reason() {
    let app = App::start().await;
    write_random_history(app.reader(), 3).await;
    app.settled().await;
    let sessions: Vec<String> = (0..10_001).map(|_| Uuid::now_v7().to_string()).collect();
    sqlx::query(
        "insert into events (
            aggregate_id, sequence, aggregate_type, event_type, event_version, payload, metadata
        )
        select id, 1, 'reading_session', 'SessionStarted', '99', '{}', '{}'
        from unnest($1::text[]) as s (id)",
    )
    .bind(&sessions)
    .execute(&app.pool)
    .await
    .unwrap();
    let replayed = replayed::<History>(&app.env, &CancellationToken::new()).await;
    let error = replayed.unwrap_err();
    assert!(
        matches!(error, OperationError::TooManyDeadLetters(_)),
        "{error}"
    );
    assert!(error.to_string().contains("an older build"), "{error}");
}

#[tokio::test]
async fn killed_replay_resumes_from_its_checkpoint() {
    let app = App::start().await;
    let reader = app.reader();
    write_random_histories(&app, 1..20).await;
    invariants::check(&app).await;

    // A lock on the live table keeps the replay from its swap.
    let mut lock = app.pool.begin().await.unwrap();
    sqlx::query("select from read.history")
        .execute(&mut *lock)
        .await
        .unwrap();
    let mut child = command(&app.env)
        .args(["replay", "history"])
        .spawn()
        .unwrap();
    let head = eventlog::read::head(&app.pool).await.unwrap();
    until("the replay reaches the head", REPLAY_TIMEOUT, async || {
        let table: Option<String> =
            sqlx::query_scalar("select to_regclass('replay_history.checkpoints')::text")
                .fetch_one(&app.pool)
                .await
                .unwrap();
        if table.is_none() {
            return false;
        }
        let at: Option<i64> =
            sqlx::query_scalar("select max(global_position) from replay_history.checkpoints")
                .fetch_one(&app.pool)
                .await
                .unwrap();
        at >= Some(head)
    })
    .await;
    child.kill().await.unwrap();
    lock.rollback().await.unwrap();

    // The next replay applies only the events since.
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let rest = replayed::<History>(&app.env, &CancellationToken::new()).await;
    let rest = rest.unwrap();
    assert_eq!((rest.from, rest.events), (head, 1));
    invariants::check(&app).await;
}

#[tokio::test]
async fn stopped_replay_commits_the_events_it_has_folded() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 10.0).await.ok();
    app.settled().await;
    let (pool, from) = (app.pool.clone(), 2);
    app.stop().await;
    sqlx::query(
        "insert into events
            (sequence, aggregate_id, aggregate_type, event_type, event_version, payload, metadata)
        select n, aggregate_id, aggregate_type, event_type, event_version, payload, metadata
        from events, generate_series(3, 40000) as n
        where sequence = 2",
    )
    .execute(&pool)
    .await
    .unwrap();
    let head = eventlog::read::head(&pool).await.unwrap();

    let reader = FanOut::default().subscribe(pool.clone());
    let mut worker = Worker::replay(
        History::new(pool.clone(), &Zones::built_in()),
        reader,
        pool.clone(),
    );
    let (stop, mut progress) = (CancellationToken::new(), worker.progress());
    let folds = async {
        let folding = progress.wait_for(|now| now.folding > 0).await;
        drop(folding.unwrap());
        stop.cancel();
    };
    let (ran, ()) = tokio::join!(worker.run(Until::CaughtUp, &stop), folds);
    ran.unwrap();
    let now = worker.progress().borrow().clone();
    assert!(now.checkpoint > from && now.checkpoint < head, "{now:?}");
    assert_eq!((now.checkpoint, now.folding), (now.read, 0));
    let kept = projections::checkpoint::read(&pool, "history").await;
    assert_eq!(kept.unwrap(), now.checkpoint);
}

#[tokio::test]
async fn second_replay_is_rejected_and_stopped_replay_ends() {
    let app = App::start().await;
    write_random_history(app.reader(), 5).await;
    app.settled().await;
    let mut lock = app.pool.begin().await.unwrap();
    sqlx::query("select from read.days")
        .execute(&mut *lock)
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let (env, token) = (app.env.clone(), stop.clone());
    let first = tokio::spawn(async move { replayed::<DailyStats>(&env, &token).await });
    until("the replay starts", REPLAY_TIMEOUT, async || {
        schemas(&app.pool)
            .await
            .contains(&shadow_schema("daily_stats"))
    })
    .await;
    let second = replayed::<DailyStats>(&app.env, &stop).await;
    assert!(
        matches!(second, Err(OperationError::AlreadyRunning("daily_stats"))),
        "{second:?}"
    );
    stop.cancel();
    let first = first.await.unwrap();
    assert!(matches!(first, Err(OperationError::Stopped)), "{first:?}");
    lock.rollback().await.unwrap();
    invariants::check(&app).await;
}
