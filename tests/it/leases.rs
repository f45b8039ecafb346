//! When the lease holder of a projection stops, dies or freezes, another worker
//! takes over. No event is applied twice.

use std::time::{Duration, Instant};

use projections::status::{self, ProjectionStatus};
use server::config::Role;
use sqlx::PgPool;
use tests::process::Process;
use tests::random_history::{write_random_histories, write_random_history};
use tests::{App, Stack, eventually, eventually_ok, invariants, scaled, until};
use uuid::Uuid;

/// Time limit for another worker to take over.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Waits until the lease of every projection has a holder whose pid is accepted;
/// returns the time that this took.
async fn held_by(pool: &PgPool, accepts: impl Fn(u32) -> bool) -> Duration {
    let since = Instant::now();
    eventually_ok("lease holders", TAKEOVER_TIMEOUT, async || {
        let holders = holders(pool).await;
        let accepted = |holder: &Option<String>| {
            let holder = holder.as_deref();
            holder.is_some_and(|holder| accepts(pid_of(holder)))
        };
        if holders.iter().all(accepted) {
            return Ok(());
        }
        Err(format!("held by {holders:?}"))
    })
    .await;
    since.elapsed()
}

/// Waits until at least `wanted` projection commits wait for a lock.
async fn blocked(pool: &PgPool, wanted: i64) {
    until("blocked projection commits", TAKEOVER_TIMEOUT, async || {
        let blocked: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'
                and application_name = 'reading-sessions-projections'",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        blocked >= wanted
    })
    .await;
}

/// The status of the projection `history`.
async fn history_status(pool: &PgPool) -> ProjectionStatus {
    status::list(pool).await.unwrap().remove(2)
}

#[tokio::test]
async fn killed_worker_is_replaced_within_five_seconds() {
    let env = Stack::shared().await.new_env().await;
    let pool = tests::app::pool(&env).await;
    let mut one = Process::start(&env).await;
    for n in 0..3 {
        let pid = one.pid().unwrap();
        held_by(&pool, |holder| holder == pid).await;
        let two = Process::start(&env).await;
        let reader = tests::Reader::with_id(Uuid::new_v4()).at(&two.url);
        let traffic = tokio::spawn(write_random_history(reader, n));
        one.kill().await;
        let took = held_by(&pool, |holder| holder != pid).await;
        println!("taken over after {took:?}");
        traffic.await.unwrap();
        one = two;
    }
    tests::app::settled(&pool, &env).await;
    invariants::check_env(&pool, &env).await;
    // A worker that shuts down in order releases its leases immediately.
    let pid = one.pid().unwrap();
    let two = Process::start(&env).await;
    assert!(one.terminate().await.success());
    let took = held_by(&pool, |holder| holder != pid).await;
    assert!(took < scaled(Duration::from_secs(2)), "{took:?}");
    drop(two);
}

#[tokio::test]
async fn frozen_worker_that_lost_its_lease_applies_nothing() {
    let env = Stack::shared().await.new_env().await;
    let pool = tests::app::pool(&env).await;
    let frozen = Process::start(&env).await;
    let pid = frozen.pid().unwrap();
    held_by(&pool, |holder| holder == pid).await;
    let other = Process::start(&env).await;
    for n in 0..2 {
        let reader = |n| {
            let reader = tests::Reader::with_id(Uuid::new_v4()).at(&other.url);
            write_random_history(reader, n)
        };
        // The lock holds the worker's statement until the worker is frozen.
        // Postgres then completes the statement without it.
        let mut lock = pool.begin().await.unwrap();
        sqlx::query("select from checkpoints for update")
            .execute(&mut *lock)
            .await
            .unwrap();
        let before = tokio::spawn(reader(n));
        blocked(&pool, 2).await;
        frozen.signal("-STOP").await;
        lock.rollback().await.unwrap();
        let took = held_by(&pool, |holder| holder != pid).await;
        println!("taken over after {took:?}");
        reader(100 + n).await;
        frozen.signal("-CONT").await;
        before.await.unwrap();
        reader(200 + n).await;
        tests::app::settled(&pool, &env).await;
        invariants::check_env(&pool, &env).await;
        // The first worker takes over again for the next round.
        other.signal("-STOP").await;
        held_by(&pool, |holder| holder == pid).await;
        other.signal("-CONT").await;
    }
    other.kill().await;
    frozen.kill().await;
}

#[tokio::test]
async fn paused_projection_stops_and_resumes_at_its_checkpoint() {
    let app = App::start().await;
    let other = app.alongside(&[Role::Projections]).await;
    write_random_history(app.reader(), 1).await;
    invariants::check(&app).await;
    assert!(status::pause(&app.pool, "history", true).await.unwrap());
    assert!(!status::pause(&app.pool, "novels", true).await.unwrap());
    until(
        "the lease of history is released",
        TAKEOVER_TIMEOUT,
        async || holders(&app.pool).await[2].is_none(),
    )
    .await;
    let before = projections::checkpoint::read(&app.pool, "history")
        .await
        .unwrap();
    write_random_histories(&app, 10..15).await;
    let head = eventlog::read::head(&app.pool).await.unwrap();
    until(
        "the statistics are at the head",
        TAKEOVER_TIMEOUT,
        async || {
            let checkpoint = projections::checkpoint::read(&app.pool, "daily_stats").await;
            checkpoint.unwrap() >= head
        },
    )
    .await;

    let paused = history_status(&app.pool).await;
    assert!(paused.paused);
    assert_eq!((paused.global_position, paused.head), (before, head));
    assert_eq!(paused.lag_events, head - before);
    assert!(paused.lag_seconds > 0.0);
    assert!(status::pause(&app.pool, "history", false).await.unwrap());
    invariants::check(&app).await;
    let running = history_status(&app.pool).await;
    assert_eq!((running.paused, running.lag_events), (false, 0));
    other.stop().await;
}

#[tokio::test]
async fn failing_projection_reports_its_error_and_recovers() {
    let app = App::start().await;
    write_random_history(app.reader(), 1).await;
    invariants::check(&app).await;
    sqlx::query("alter table read.history_totals rename to gone")
        .execute(&app.pool)
        .await
        .unwrap();
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    let error = eventually("history is failing", TAKEOVER_TIMEOUT, async || {
        let history = history_status(&app.pool).await;
        history.failing.then(|| history.last_error.unwrap())
    })
    .await;
    assert!(error.contains("history_totals"), "{error}");
    sqlx::query("alter table read.gone rename to history_totals")
        .execute(&app.pool)
        .await
        .unwrap();
    invariants::check(&app).await;
    until("history has recovered", TAKEOVER_TIMEOUT, async || {
        !history_status(&app.pool).await.failing
    })
    .await;
}
