//! Several workers of a projection take over from each other, whatever happens
//! to the one that works, and apply nothing twice.

use std::time::{Duration, Instant};

use projections::status;
use services::config::Role;
use sqlx::PgPool;
use tests::process::Process;
use tests::traffic::{all_live_a_little, live_a_little};
use tests::{App, Stack, check};
use uuid::Uuid;

/// How soon another worker takes over.
const TAKEOVER: Duration = Duration::from_secs(5);

const PROJECTIONS: [&str; 3] = ["active_sessions", "daily_stats", "history"];

async fn holders(pool: &PgPool) -> Vec<Option<String>> {
    let all = status::list(pool).await.unwrap();
    let names: Vec<&str> = all.iter().map(|one| one.projection.as_str()).collect();
    assert_eq!(names, PROJECTIONS);
    all.into_iter().map(|one| one.holder).collect()
}

fn pid_of(holder: &str) -> u32 {
    holder.split('/').nth(1).unwrap().parse().unwrap()
}

/// Waits until every projection has a worker for whom this holds.
async fn held(pool: &PgPool, wanted: impl Fn(u32) -> bool) -> Duration {
    let since = Instant::now();
    loop {
        let holders = holders(pool).await;
        if holders
            .iter()
            .all(|holder| holder.as_deref().is_some_and(|h| wanted(pid_of(h))))
        {
            return since.elapsed();
        }
        assert!(since.elapsed() < TAKEOVER, "held by {holders:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until as many steps of projections wait for their checkpoint.
async fn blocked(pool: &PgPool, wanted: i64) {
    let since = Instant::now();
    loop {
        let blocked: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'
                and application_name = 'reading-sessions-projections'",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        if blocked >= wanted {
            return;
        }
        assert!(since.elapsed() < TAKEOVER, "{blocked} steps are blocked");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_worker_that_is_killed_is_followed_within_five_seconds() {
    let corner = Stack::shared().await.corner().await;
    let pool = tests::app::pool(&corner).await;
    let mut one = Process::start(&corner).await;
    for n in 0..3 {
        let pid = one.pid().unwrap();
        held(&pool, |holder| holder == pid).await;
        let two = Process::start(&corner).await;
        let reader = tests::Reader::of(Uuid::new_v4()).at(&two.url);
        let traffic = tokio::spawn(live_a_little(reader, n));
        one.kill().await;
        let took = held(&pool, |holder| holder != pid).await;
        println!("taken over after {took:?}");
        traffic.await.unwrap();
        one = two;
    }
    tests::app::settled(&pool, &corner).await;
    check::all(&pool, &corner).await;
    // One that stops in order gives its projections up at once.
    let pid = one.pid().unwrap();
    let two = Process::start(&corner).await;
    assert!(one.terminate().await.success());
    let took = held(&pool, |holder| holder != pid).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop(two);
}

#[tokio::test]
async fn a_worker_that_was_frozen_finds_another_at_work_and_applies_nothing() {
    let corner = Stack::shared().await.corner().await;
    let pool = tests::app::pool(&corner).await;
    let frozen = Process::start(&corner).await;
    let pid = frozen.pid().unwrap();
    held(&pool, |holder| holder == pid).await;
    let other = Process::start(&corner).await;
    for n in 0..2 {
        let reader = |n| {
            let reader = tests::Reader::of(Uuid::new_v4()).at(&other.url);
            live_a_little(reader, n)
        };
        // Frozen in the middle of a step, whose statement is then done without it.
        let mut step = pool.begin().await.unwrap();
        sqlx::query("select from checkpoints for update")
            .execute(&mut *step)
            .await
            .unwrap();
        let before = tokio::spawn(reader(n));
        blocked(&pool, 2).await;
        frozen.signal("-STOP").await;
        step.rollback().await.unwrap();
        let took = held(&pool, |holder| holder != pid).await;
        println!("taken over after {took:?}");
        reader(100 + n).await;
        frozen.signal("-CONT").await;
        before.await.unwrap();
        reader(200 + n).await;
        tests::app::settled(&pool, &corner).await;
        check::all(&pool, &corner).await;
        // And back, for the next round.
        other.signal("-STOP").await;
        held(&pool, |holder| holder == pid).await;
        other.signal("-CONT").await;
    }
    other.kill().await;
    frozen.kill().await;
}

#[tokio::test]
async fn a_paused_projection_stands_still_and_goes_on_where_it_was() {
    let app = App::start().await;
    let other = app.beside(&[Role::Projections]).await;
    live_a_little(app.reader(), 1).await;
    check::everything(&app).await;
    assert!(status::pause(&app.pool, "history", true).await.unwrap());
    assert!(!status::pause(&app.pool, "novels", true).await.unwrap());
    let since = Instant::now();
    while holders(&app.pool).await[2].is_some() {
        assert!(since.elapsed() < TAKEOVER, "it is not given up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = projections::checkpoint::read(&app.pool, "history")
        .await
        .unwrap();
    all_live_a_little(&app, 10..15).await;
    let head = eventlog::read::head(&app.pool).await.unwrap();
    let statistics = projections::checkpoint::Awaited::new(app.pool.clone(), "daily_stats");
    assert!(statistics.reaches(head, TAKEOVER).await.unwrap());

    let paused = &status::list(&app.pool).await.unwrap()[2];
    assert!(paused.paused);
    assert_eq!((paused.position, paused.head), (before, head));
    assert_eq!(paused.lag_events, head - before);
    assert!(paused.lag_seconds > 0.0);
    assert!(status::pause(&app.pool, "history", false).await.unwrap());
    check::everything(&app).await;
    let running = &status::list(&app.pool).await.unwrap()[2];
    assert_eq!((running.paused, running.lag_events), (false, 0));
    other.stop().await;
}

#[tokio::test]
async fn a_failing_projection_says_so_and_is_well_again_when_its_store_is() {
    let app = App::start().await;
    live_a_little(app.reader(), 1).await;
    check::everything(&app).await;
    sqlx::query("alter table read.history_totals rename to gone")
        .execute(&app.pool)
        .await
        .unwrap();
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    let since = Instant::now();
    loop {
        let history = &status::list(&app.pool).await.unwrap()[2];
        if history.failing {
            let error = history.last_error.as_deref().unwrap();
            assert!(error.contains("history_totals"), "{error}");
            break;
        }
        assert!(since.elapsed() < TAKEOVER, "{history:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sqlx::query("alter table read.gone rename to history_totals")
        .execute(&app.pool)
        .await
        .unwrap();
    check::everything(&app).await;
    let since = Instant::now();
    while status::list(&app.pool).await.unwrap()[2].failing {
        assert!(since.elapsed() < TAKEOVER, "it still fails");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
