//! Promises I5 (Postgres projections) and I6 (Redis): after any traffic, queries
//! return the fold of the event log.

use std::collections::BTreeMap;
use std::time::Instant;

use domain::SessionId;
use eventlog::RecordedEvent;
use futures::StreamExt;
use futures::stream;
use projections::dead_letters::DeadLetterChanges;
use projections::projection::TableProjection;
use projections::zones::Zones;
use projections::{BatchRange, History, Projection, fold_all, new_revision};
use serde_json::json;
use server::config::Role;
use tests::random_history::{Random, write_random_histories, write_random_history};
use tests::reader::{Reader, id};
use tests::reader_log::ReaderLog;
use tests::{App, Stack, app, invariants};
use uuid::Uuid;

#[tokio::test]
async fn random_traffic_through_two_processes_equals_the_log() {
    let seed = eventlog::clock::now().timestamp_millis().unsigned_abs();
    println!("seed {seed}");
    let app = App::start().await;
    let other = app.alongside(&Role::ALL).await;
    let readers = (0..40).map(|n| {
        let reader = app.reader();
        let reader = if n % 2 == 0 {
            reader
        } else {
            reader.at(&other.url)
        };
        write_random_history(reader, seed ^ u64::wrapping_mul(n, 0x9e37_79b9_7f4a_7c15))
    });
    stream::iter(readers)
        .buffer_unordered(20)
        .collect::<Vec<()>>()
        .await;
    invariants::check(&app).await;
    other.stop().await;
}

#[tokio::test]
async fn many_updates_of_one_session_need_few_row_writes() {
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
    invariants::check(&app).await;
    let written: i64 = sqlx::query_scalar(
        "select coalesce(sum(n_tup_upd), 0)::bigint from pg_stat_user_tables
        where relname like 'history\\_2%'",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    // 500 events in ten transactions. The counter may lag but never overcounts.
    assert!(written <= 20, "{written} row writes");
}

#[tokio::test]
async fn ten_thousand_updates_of_1000_sessions_equal_the_log() {
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
    assert_eq!(invariants::read_log(&app.pool).await.len(), 11_000);
    invariants::check(&app).await;
}

#[tokio::test]
async fn concurrent_workers_apply_no_event_twice() {
    let app = App::start().await;
    let workers = [
        app.alongside(&[Role::Projections]).await,
        app.alongside(&[Role::Projections]).await,
    ];
    write_random_histories(&app, 1..20).await;
    invariants::check(&app).await;
    for worker in workers {
        worker.stop().await;
    }
}

/// Sessions that end provisionally and continue, late observations, corrections and
/// erasures of single sessions, in batches of any size: after each batch, the history is
/// the fold of the events so far.
#[tokio::test]
async fn history_of_random_logs_in_random_batches_equals_the_log() {
    let env = Stack::shared().await.new_env().await;
    let pool = app::pool(&env).await;
    let mut history = History::new(pool.clone(), &Zones::built_in());
    let mut from = history.checkpoint().await.unwrap();
    let seed = eventlog::clock::now().timestamp_millis().unsigned_abs();
    println!("seed {seed}");
    let mut random = Random(seed | 1);
    let mut all: Vec<RecordedEvent> = Vec::new();
    for _ in 0..6 {
        let mut log = ReaderLog::random(&mut random, 60).events;
        while !log.is_empty() {
            let most = u64::try_from(log.len()).unwrap().min(12);
            let count = 1 + usize::try_from(random.below(most)).unwrap();
            let first = all.len();
            for event in log.drain(..count) {
                let global_position = i64::try_from(all.len()).unwrap() + 1;
                all.push(RecordedEvent {
                    global_position,
                    ..event
                });
            }
            let to = i64::try_from(all.len()).unwrap();
            let range = BatchRange {
                from,
                to,
                written_to: to,
                revision: new_revision(),
            };
            let rows = fold_all::<History>(&all[first..]);
            history
                .commit(rows, range, &DeadLetterChanges::default())
                .await
                .unwrap();
            from = range.checkpoint_after();
            let sessions = invariants::fold_recorded(all.clone());
            invariants::history_matches_the_log(&pool, &sessions).await;
        }
    }
}

/// A worker writes some rows earlier than others, and restarts from its checkpoint: the last
/// event before the first one that is not written. At the end, the history is the fold of
/// all events.
#[tokio::test]
async fn rows_ahead_of_the_checkpoint_are_not_changed_by_events_that_they_contain() {
    let env = Stack::shared().await.new_env().await;
    let pool = app::pool(&env).await;
    let mut history = History::new(pool.clone(), &Zones::built_in());
    let seed = eventlog::clock::now().timestamp_millis().unsigned_abs();
    println!("seed {seed}");
    let mut random = Random(seed | 1);
    let mut log: Vec<RecordedEvent> = Vec::new();
    for _ in 0..5 {
        log.extend(ReaderLog::random(&mut random, 60).events);
    }
    for (event, global_position) in log.iter_mut().zip(1..) {
        event.global_position = global_position;
    }

    let mut from = history.checkpoint().await.unwrap();
    // The indices of the events of each session that are folded and not written.
    let mut pending: BTreeMap<SessionId, Vec<usize>> = BTreeMap::new();
    let (mut next, mut restarts) = (0, 0);
    while next < log.len() || !pending.is_empty() {
        match random.below(14) {
            0..8 if next < log.len() => {
                let folded = pending.entry(log[next].session_id).or_default();
                folded.push(next);
                next += 1;
            }
            13 if restarts < 12 => {
                restarts += 1;
                pending.clear();
                from = history.checkpoint().await.unwrap();
                next = usize::try_from(from.global_position).unwrap();
            }
            _ => {
                let sessions: Vec<SessionId> = pending.keys().copied().collect();
                let Some(most) = u64::try_from(sessions.len()).ok().filter(|most| *most > 0) else {
                    continue;
                };
                let session = sessions[usize::try_from(random.below(most)).unwrap()];
                let indices = pending.remove(&session).unwrap();
                let events: Vec<_> = indices.iter().map(|index| log[*index].clone()).collect();
                let first = pending.values().map(|indices| indices[0]).min();
                let range = BatchRange {
                    from,
                    to: i64::try_from(first.unwrap_or(next)).unwrap(),
                    written_to: from.written_to.max(i64::try_from(next).unwrap()),
                    revision: new_revision(),
                };
                let rows = fold_all::<History>(&events);
                let none = DeadLetterChanges::default();
                history.commit(rows, range, &none).await.unwrap();
                from = range.checkpoint_after();
            }
        }
    }
    assert_eq!(restarts, 12, "the log is long enough");
    let sessions = invariants::fold_recorded(log);
    invariants::history_matches_the_log(&pool, &sessions).await;
}
