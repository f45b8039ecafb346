//! A projection is made again from the log while everything goes on: nobody
//! sees half of it, nothing is lost, and a kill costs only time.

use std::time::{Duration, Instant};

use eventlog::tail::Tail;
use projections::replay::{ReplayError, Replayed, replay, schema_of};
use projections::runtime::{Progress, Until, Worker};
use projections::{DailyStats, History, InTables, dead_letter};
use services::connect;
use sqlx::PgPool;
use tests::process::command;
use tests::reader::id;
use tests::stack::Corner;
use tests::traffic::{all_live_a_little, live_a_little};
use tests::{App, app, check, unknown};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod under_traffic;

async fn replayed<P: InTables>(
    corner: &Corner,
    stop: &CancellationToken,
) -> Result<Replayed, ReplayError> {
    let database = app::settings(corner, &[]).database;
    let live = connect::maintenance_pool(&database).unwrap();
    let shadow = connect::replay_pool(&database, &schema_of(P::NAME)).unwrap();
    let progress = watch::Sender::new(Progress::default());
    replay::<P>(&live, shadow, false, &progress, stop).await
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

/// Names, columns, indexes and storage of the read tables, as migrations and
/// queries know them.
async fn shape(pool: &PgPool) -> Vec<String> {
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
async fn a_replay_gives_the_same_rows_in_the_same_tables() {
    let app = App::start().await;
    all_live_a_little(&app, 1..20).await;
    check::everything(&app).await;
    sqlx::query("grant select on read.history to public")
        .execute(&app.pool)
        .await
        .unwrap();
    let (before, schemas_before) = (shape(&app.pool).await, schemas(&app.pool).await);
    assert!(before.iter().any(|line| line.contains("fillfactor")));
    // What only a replay mends.
    sqlx::query("update read.history set active_ms = active_ms + 1")
        .execute(&app.pool)
        .await
        .unwrap();
    sqlx::query("update read.days set readers = readers + 1")
        .execute(&app.pool)
        .await
        .unwrap();

    let go = CancellationToken::new();
    let history = replayed::<History>(&app.corner, &go).await.unwrap();
    let stats = replayed::<DailyStats>(&app.corner, &go).await.unwrap();
    let log = check::log(&app.pool).await;
    for replayed in [history, stats] {
        assert_eq!(replayed.events, log.len() as u64);
        assert_eq!(replayed.position, log.last().unwrap().global_position);
    }
    check::everything(&app).await;
    assert_eq!(shape(&app.pool).await, before);
    assert_eq!(schemas(&app.pool).await, schemas_before);
    let granted: bool =
        sqlx::query_scalar("select has_table_privilege('public', 'read.history', 'select')")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    assert!(granted, "a grant is kept");

    // Live work goes on in the new tables, and they can be replayed again.
    live_a_little(app.reader(), 77).await;
    check::everything(&app).await;
    replayed::<History>(&app.corner, &go).await.unwrap();
    check::everything(&app).await;
    app.stop().await;
}

#[tokio::test]
async fn tables_ahead_of_a_restored_log_are_brought_back_to_it() {
    let app = App::start().await;
    live_a_little(app.reader(), 3).await;
    check::everything(&app).await;
    let head = eventlog::read::head(&app.pool).await.unwrap();
    sqlx::query("update checkpoints set global_position = 1000000 where projection = 'history'")
        .execute(&app.pool)
        .await
        .unwrap();
    sqlx::query("update read.history set active_ms = active_ms + 1")
        .execute(&app.pool)
        .await
        .unwrap();
    let replayed = replayed::<History>(&app.corner, &CancellationToken::new()).await;
    assert_eq!(replayed.unwrap().position, head);
    live_a_little(app.reader(), 4).await;
    check::everything(&app).await;
}

#[tokio::test]
async fn tables_of_before_go_one_by_one_so_that_no_query_waits_in_a_ring() {
    let app = App::start().await;
    live_a_little(app.reader(), 5).await;
    app.settled().await;
    // As a replay leaves them that was killed right after its swap.
    for statement in [
        "create schema retired_history",
        "create table retired_history.history (like read.history)",
        "create table retired_history.history_totals (like read.history_totals)",
    ] {
        sqlx::query(statement).execute(&app.pool).await.unwrap();
    }
    // A query that was planned before the swap has the second one already.
    let mut query = app.pool.begin().await.unwrap();
    sqlx::query("lock table retired_history.history_totals in access share mode")
        .execute(&mut *query)
        .await
        .unwrap();
    let corner = app.corner.clone();
    let go = CancellationToken::new();
    let replay = tokio::spawn(async move { replayed::<History>(&corner, &go).await });
    // The first one is not held back for it.
    app::until("the first table goes", async || {
        sqlx::query_scalar("select to_regclass('retired_history.history') is null")
            .fetch_one(&app.pool)
            .await
            .unwrap()
    })
    .await;
    query.rollback().await.unwrap();
    replay.await.unwrap().unwrap();
    check::everything(&app).await;
}

#[tokio::test]
async fn letters_that_a_replay_brings_hold_the_live_worker_too() {
    let app = App::start().await;
    app.settled().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    unknown::append(&app.pool, session).await;
    app.settled().await;
    // A worker that knew more than this build would not have parked it.
    sqlx::query("delete from dead_letters where projection = 'history'")
        .execute(&app.pool)
        .await
        .unwrap();
    replayed::<History>(&app.corner, &CancellationToken::new())
        .await
        .unwrap();
    unknown::follow(&app.pool, session).await;
    app.settled().await;
    let letters = dead_letter::list(&app.pool, Some("history"), None, None, 10).await;
    let states: Vec<(i64, String)> = letters
        .unwrap()
        .into_iter()
        .map(|letter| (letter.sequence, letter.state))
        .collect();
    assert_eq!(
        states,
        [(2, "parked".to_owned()), (3, "waiting".to_owned())]
    );
}

#[tokio::test]
async fn a_replay_that_can_apply_nothing_gives_up_and_says_why() {
    let app = App::start().await;
    live_a_little(app.reader(), 3).await;
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
    let replayed = replayed::<History>(&app.corner, &CancellationToken::new()).await;
    let error = replayed.unwrap_err();
    assert!(matches!(error, ReplayError::TooManyLetters(_)), "{error}");
    assert!(error.to_string().contains("old build"), "{error}");
}

#[tokio::test]
async fn a_replay_that_was_killed_goes_on_where_it_was() {
    let app = App::start().await;
    let reader = app.reader();
    all_live_a_little(&app, 1..20).await;
    check::everything(&app).await;

    // Stopped before its swap, by a table that is in use.
    let mut user = app.pool.begin().await.unwrap();
    sqlx::query("select from read.history")
        .execute(&mut *user)
        .await
        .unwrap();
    let mut child = command(&app.corner)
        .args(["replay", "history"])
        .spawn()
        .unwrap();
    let head = eventlog::read::head(&app.pool).await.unwrap();
    let waited = Instant::now();
    loop {
        let table: Option<String> =
            sqlx::query_scalar("select to_regclass('replay_history.checkpoints')::text")
                .fetch_one(&app.pool)
                .await
                .unwrap();
        if table.is_some() {
            let at: Option<i64> =
                sqlx::query_scalar("select max(global_position) from replay_history.checkpoints")
                    .fetch_one(&app.pool)
                    .await
                    .unwrap();
            if at >= Some(head) {
                break;
            }
        }
        assert!(
            waited.elapsed() < Duration::from_secs(20),
            "no replay begins"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child.kill().await.unwrap();
    user.rollback().await.unwrap();

    // What comes meanwhile is all that is left to do.
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let rest = replayed::<History>(&app.corner, &CancellationToken::new()).await;
    let rest = rest.unwrap();
    assert_eq!((rest.from, rest.events), (head, 1));
    check::everything(&app).await;
}

#[tokio::test]
async fn what_was_folded_when_it_was_told_to_stop_is_kept() {
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

    let reader = Tail::default().reader(pool.clone());
    let mut worker = Worker::replay(History::new(pool.clone()), reader, pool.clone());
    let (stop, mut progress) = (CancellationToken::new(), worker.progress());
    let folds = async {
        let folding = progress.wait_for(|now| now.folding > 0).await;
        drop(folding.unwrap());
        stop.cancel();
    };
    let (ran, ()) = tokio::join!(worker.run(Until::CaughtUp, &stop), folds);
    ran.unwrap();
    let now = worker.progress().borrow().clone();
    assert!(now.position > from && now.position < head, "{now:?}");
    assert_eq!((now.position, now.folding), (now.read, 0));
    let kept = projections::checkpoint::read(&pool, "history").await;
    assert_eq!(kept.unwrap(), now.position);
}

#[tokio::test]
async fn one_replay_at_a_time_and_none_that_was_told_to_stop() {
    let app = App::start().await;
    live_a_little(app.reader(), 5).await;
    app.settled().await;
    let mut user = app.pool.begin().await.unwrap();
    sqlx::query("select from read.days")
        .execute(&mut *user)
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let (corner, told) = (app.corner.clone(), stop.clone());
    let first = tokio::spawn(async move { replayed::<DailyStats>(&corner, &told).await });
    let waited = Instant::now();
    while !schemas(&app.pool).await.contains(&schema_of("daily_stats")) {
        assert!(
            waited.elapsed() < Duration::from_secs(20),
            "no replay begins"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let second = replayed::<DailyStats>(&app.corner, &stop).await;
    assert!(
        matches!(second, Err(ReplayError::Running("daily_stats"))),
        "{second:?}"
    );
    stop.cancel();
    let first = first.await.unwrap();
    assert!(matches!(first, Err(ReplayError::Stopped)), "{first:?}");
    user.rollback().await.unwrap();
    check::everything(&app).await;
}
