//! I5 and I6: after any traffic, what queries read is the fold of the log.

use std::time::Instant;

use chrono::TimeDelta;
use futures::StreamExt;
use futures::stream;
use projections::runtime::{self, Until};
use projections::{DailyStats, History};
use serde_json::json;
use services::config::Role;
use sqlx::PgPool;
use tests::reader::{Reader, id};
use tests::{App, check};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A small generator (xorshift), so that a failure can be run again from its
/// seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn small(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(u64::from(bound))).unwrap()
    }
}

const ZONES: [&str; 6] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
];

/// A reader's two days: sessions that are read, left, superseded and ended,
/// with observations late, twice, without a time, and refused.
async fn live_a_little(reader: Reader, seed: u64) {
    let mut random = Random(seed | 1);
    let mut at = services::clock::now() - TimeDelta::hours(40);
    let mut session = None;
    for _ in 0..30 {
        at += TimeDelta::seconds(i64::from(random.small(4_000)));
        let when = at - TimeDelta::seconds(i64::from(random.small(3) * random.small(600)));
        let position = f64::from(random.small(1_000_000)) / 10_000.0;
        match (random.below(10), session) {
            (0, _) | (_, None) => {
                let answer = reader
                    .start_with(json!({
                        "book_id": Uuid::from_u128(u128::from(random.below(3))),
                        "start_position": position,
                        "time_zone": ZONES[random.small(6) as usize],
                        "locator": format!("epubcfi(/6/{})", random.below(40)),
                        "occurred_at": when,
                    }))
                    .await;
                session = Some(id(&answer.ok()));
            }
            (1, Some(id)) => {
                let _ = reader
                    .end(id, json!({ "end_position": position, "occurred_at": when }))
                    .await;
            }
            (2, Some(id)) => {
                let update = |n: f64| {
                    json!({
                        "session_id": id, "current_position": (position + n) % 100.0,
                        "occurred_at": when + TimeDelta::seconds(10),
                    })
                };
                let _ = reader
                    .batch(json!([update(0.0), update(1.0), update(0.0)]))
                    .await
                    .ok();
            }
            (3, Some(id)) => {
                let _ = reader.update(id, position).await;
            }
            (_, Some(id)) => {
                let mut update = json!({ "current_position": position, "occurred_at": when });
                if random.below(2) == 0 {
                    update["locator"] = json!(format!("epubcfi(/6/{})", random.below(40)));
                }
                let answer = reader.update_with(id, update).await;
                assert!(
                    matches!(answer.status.as_u16(), 200 | 400),
                    "{}",
                    answer.body
                );
            }
        }
    }
}

#[tokio::test]
async fn after_random_traffic_through_two_processes_everything_equals_the_log() {
    let seed = services::clock::now().timestamp_millis().unsigned_abs();
    println!("seed {seed}");
    let app = App::start().await;
    let other = app.beside(&Role::ALL).await;
    let readers = (0..40).map(|n| {
        let reader = app.reader();
        let reader = if n % 2 == 0 {
            reader
        } else {
            reader.at(&other.url)
        };
        live_a_little(reader, seed ^ u64::wrapping_mul(n, 0x9e37_79b9_7f4a_7c15))
    });
    stream::iter(readers)
        .buffer_unordered(20)
        .collect::<Vec<()>>()
        .await;
    check::everything(&app).await;
    other.stop().await;
}

/// Applies the whole log from its beginning, by the code that runs live.
async fn replay(pool: &PgPool) {
    let tail = eventlog::tail::Tail::default();
    for table in [
        "checkpoints",
        "history",
        "history_totals",
        "reader_days",
        "reader_hours",
        "days",
    ] {
        sqlx::query(&format!("truncate {table}"))
            .execute(pool)
            .await
            .unwrap();
    }
    let stop = CancellationToken::new();
    tokio::join!(
        runtime::run(
            History::new(pool.clone()),
            tail.reader(pool.clone()),
            Until::CaughtUp,
            watch::Sender::new(0),
            stop.clone(),
        ),
        runtime::run(
            DailyStats::new(pool.clone()),
            tail.reader(pool.clone()),
            Until::CaughtUp,
            watch::Sender::new(0),
            stop.clone(),
        ),
    );
}

#[tokio::test]
async fn a_replay_from_nothing_gives_the_same_tables_as_live() {
    let app = App::start().await;
    let traffic = (1..10).map(|n| live_a_little(app.reader(), n));
    stream::iter(traffic)
        .buffer_unordered(10)
        .collect::<Vec<()>>()
        .await;
    check::everything(&app).await;
    let (corner, pool) = (app.corner.clone(), app.pool.clone());
    app.stop().await;
    replay(&pool).await;
    let log = check::log(&pool).await;
    check::history_is_the_fold(&pool, &check::fold(&log)).await;
    check::statistics_are_the_recomputed(&pool, &log).await;
    check::all(&pool, &corner).await;
}

#[tokio::test]
async fn many_updates_of_one_session_are_few_row_writes() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    let updates = json!(
        (0..50)
            .map(|n| json!({ "session_id": session, "current_position": n }))
            .collect::<Vec<_>>()
    );
    for _ in 0..10 {
        let _ = reader.batch(updates.clone()).await.ok();
    }
    check::everything(&app).await;
    let written: i64 = sqlx::query_scalar(
        "select coalesce(sum(n_tup_upd), 0)::bigint from pg_stat_user_tables
        where relname like 'history\\_2%'",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    // 500 events in ten transactions; the counter may lag, but never counts more.
    assert!(written <= 20, "{written} row writes");
}

#[tokio::test]
async fn ten_thousand_updates_over_a_thousand_sessions_equal_the_log() {
    let app = App::start().await;
    let started = Instant::now();
    let readers: Vec<(Reader, Uuid)> = stream::iter(0..1_000)
        .map(|_| async {
            let reader = app.reader();
            let session = id(&reader.start(Uuid::new_v4()).await.ok());
            (reader, session)
        })
        .buffer_unordered(64)
        .collect()
        .await;
    stream::iter(0..10_000_usize)
        .map(|n| {
            let (reader, session) = readers[n % readers.len()].clone();
            async move {
                let position = f64::from(u32::try_from(n / 100).unwrap());
                assert_eq!(reader.update(session, position).await.status, 200);
            }
        })
        .buffer_unordered(64)
        .collect::<Vec<()>>()
        .await;
    let acknowledged = started.elapsed();
    app.settled().await;
    println!(
        "1,000 starts and 10,000 updates: acknowledged after {acknowledged:.1?}, projected after {:.1?}",
        started.elapsed()
    );
    assert_eq!(check::log(&app.pool).await.len(), 11_000);
    check::everything(&app).await;
}

#[tokio::test]
async fn two_workers_of_one_projection_apply_nothing_twice() {
    let app = App::start().await;
    let workers = [
        app.beside(&[Role::Projections]).await,
        app.beside(&[Role::Projections]).await,
    ];
    let traffic = (1..20).map(|n| live_a_little(app.reader(), n * 7));
    stream::iter(traffic)
        .buffer_unordered(20)
        .collect::<Vec<()>>()
        .await;
    check::everything(&app).await;
    for worker in workers {
        worker.stop().await;
    }
}
