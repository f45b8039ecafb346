//! I5 and I6: after any traffic, what queries read is the fold of the log.

use std::time::Instant;

use futures::StreamExt;
use futures::stream;
use serde_json::json;
use services::config::Role;
use tests::reader::{Reader, id};
use tests::traffic::{all_live_a_little, live_a_little};
use tests::{App, check};
use uuid::Uuid;

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
    all_live_a_little(&app, 1..20).await;
    check::everything(&app).await;
    for worker in workers {
        worker.stop().await;
    }
}
