//! A projection is made again from the log while everything goes on: nobody
//! sees half of it, nothing is lost, and a kill costs only time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use projections::replay::{ReplayError, Replayed, replay, schema_of};
use projections::runtime::Progress;
use projections::{DailyStats, History, InTables};
use reqwest::Method;
use serde_json::{Value, json};
use services::connect;
use sqlx::PgPool;
use tests::process::command;
use tests::reader::{Reader, id};
use tests::stack::Corner;
use tests::traffic::live_a_little;
use tests::{App, app, check};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

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

/// Names, columns and indexes of the read tables, as migrations and queries
/// know them.
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
    let traffic = (1..20).map(|n| live_a_little(app.reader(), n));
    stream::iter(traffic)
        .buffer_unordered(20)
        .collect::<Vec<()>>()
        .await;
    check::everything(&app).await;
    sqlx::query("grant select on read.history to public")
        .execute(&app.pool)
        .await
        .unwrap();
    let (before, schemas_before) = (shape(&app.pool).await, schemas(&app.pool).await);
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

/// Seconds between two updates of a reader, all of them active time.
const STEP: u32 = 20;

/// A reader who only reads on, so what there is of it never shrinks.
struct OneWhoReads {
    reader: Reader,
    done: Arc<AtomicBool>,
    /// Updates begun; each has an effect before it is answered, or none.
    begun: Arc<AtomicU32>,
}

impl OneWhoReads {
    async fn read(&self) {
        let mut at = services::clock::now() - chrono::TimeDelta::hours(20);
        while !self.done.load(Ordering::Relaxed) {
            let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": at });
            let session = id(&self.reader.start_with(start).await.ok());
            for n in 0..20 {
                at += chrono::TimeDelta::seconds(STEP.into());
                self.begun.fetch_add(1, Ordering::Relaxed);
                let update = json!({ "current_position": n, "occurred_at": at });
                let answer = self.reader.update_with(session, update).await;
                assert_eq!(answer.status, 200, "{}", answer.body);
            }
        }
    }

    /// Everything that was there is still there, and once.
    async fn look(&self) -> (u32, Duration) {
        let (mut looks, mut slowest) = (0, Duration::ZERO);
        let (mut sessions, mut total, mut seconds, mut minutes) = (0, 0, 0.0, 0.0);
        while !self.done.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let history = self.reader.history("?page_size=100").await.ok();
            let daily = self.reader.call(Method::GET, "/stats/daily", None).await;
            let daily = daily.ok();
            slowest = slowest.max(asked.elapsed());
            looks += 1;

            let listed = history["sessions"].as_array().unwrap();
            let ids: BTreeSet<Uuid> = listed.iter().map(id).collect();
            assert_eq!(ids.len(), listed.len(), "a session is there twice");
            assert!(listed.len() >= sessions, "{} of {sessions}", listed.len());
            // Counted at about the same time.
            let counted = history["total"].as_u64().unwrap();
            assert!(counted >= total, "{counted} of {total}");
            let sum = |rows: &Value, field: &str| -> f64 {
                let rows = rows.as_array().unwrap().iter();
                rows.map(|row| row[field].as_f64().unwrap()).sum()
            };
            let read = sum(&history["sessions"], "active_seconds");
            assert!(read >= seconds, "{read} s of {seconds}");
            let day = sum(&daily["days"], "active_minutes");
            assert!(day >= minutes, "{day} minutes of {minutes}");
            let most = f64::from(self.begun.load(Ordering::Relaxed) * STEP);
            assert!(
                read <= most && day * 60.0 <= most,
                "{read} s, {day} of {most} s"
            );
            (sessions, total, seconds, minutes) = (listed.len(), counted, read, day);
        }
        (looks, slowest)
    }
}

#[tokio::test]
async fn readers_notice_nothing_of_replays_under_traffic() {
    let app = App::start().await;
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<Arc<OneWhoReads>> = (0..8)
        .map(|_| {
            Arc::new(OneWhoReads {
                reader: app.reader(),
                done: Arc::clone(&done),
                begun: Arc::default(),
            })
        })
        .collect();
    let spawn = |of: &Arc<OneWhoReads>| {
        let (one, other) = (Arc::clone(of), Arc::clone(of));
        let read = tokio::spawn(async move { one.read().await });
        (read, tokio::spawn(async move { other.look().await }))
    };
    let tasks: Vec<_> = readers.iter().map(spawn).collect();
    let go = CancellationToken::new();
    for _ in 0..3 {
        let (history, stats) = tokio::join!(
            replayed::<History>(&app.corner, &go),
            replayed::<DailyStats>(&app.corner, &go)
        );
        println!("{:?} and {:?}", history.unwrap(), stats.unwrap());
    }
    done.store(true, Ordering::Relaxed);
    for (read, look) in tasks {
        read.await.unwrap();
        let (looks, slowest) = look.await.unwrap();
        println!("{looks} looks, the slowest took {slowest:?}");
        assert!(looks > 3, "{looks} looks");
    }
    check::everything(&app).await;
}

#[tokio::test]
async fn a_replay_that_was_killed_goes_on_where_it_was() {
    let app = App::start().await;
    let reader = app.reader();
    let traffic = (1..20).map(|n| live_a_little(app.reader(), n));
    stream::iter(traffic)
        .buffer_unordered(20)
        .collect::<Vec<()>>()
        .await;
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
