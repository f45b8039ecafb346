//! Faults and operations in the middle of a coalesce window lose nothing and apply nothing
//! twice.

use chrono::Days;
use domain::SessionId;
use eventlog::clock;
use projections::{History, dead_letters};
use reqwest::StatusCode;
use serde_json::json;
use server::config::Role;
use tests::process::Process;
use tests::reader::id;
use tests::{App, Stack, app, backdate, future_events, invariants, scaled, until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{AT_ONCE, Busy, LONG_WINDOW, positions, started, until_ahead, version, with_window};
use crate::jobs::run;
use crate::replay::replayed;
use crate::verify::{differing, verify_all};

/// The longest window of a process.
const LONGEST_WINDOW: (&str, &str) = ("COALESCE_WINDOW", "25");

#[tokio::test]
async fn kill_in_the_middle_of_a_window_loses_nothing() {
    let app = App::start_roles(&[Role::Api, Role::Relay]).await;
    let settings = [LONGEST_WINDOW];
    let mut sessions = Vec::new();
    for round in 0..3 {
        let worker = Process::start_roles(&app.env, &["projections"], &settings).await;
        let busy = Busy::start(app.reader()).await;
        for ends in [false, true, false] {
            let reader = app.reader();
            let session = id(&reader.start(Uuid::new_v4()).await.ok());
            let _ = reader.update(session, f64::from(10 * round)).await.ok();
            if ends {
                let _ = reader.end(session, json!({})).await.ok();
            }
            sessions.push((reader, session));
        }
        // Earlier sessions continue, and are in the window again.
        for (reader, session) in &sessions {
            let _ = reader.update(*session, 50.0).await;
        }
        let (_, last) = sessions[sessions.len() - 2];
        until("the end is written", AT_ONCE, async || {
            version(&app.pool, last).await >= Some(3)
        })
        .await;
        until_ahead(&app).await;
        worker.kill().await;
        busy.stop().await;
    }
    let worker = app.alongside(&[Role::Projections]).await;
    invariants::check(&app).await;
    assert_eq!(differing(&verify_all(&app.env).await), []);
    worker.stop().await;
}

#[tokio::test]
async fn erasure_removes_what_waits_in_memory() {
    let app = with_window(LONG_WINDOW).await;
    let busy = Busy::start(app.reader()).await;
    let (reader, session) = started(&app).await;
    let _ = reader.update(session, 40.0).await.ok();
    let erased = reader.erase().await;
    assert!(erased.status.is_success(), "{}", erased.body);
    until("the row is removed", AT_ONCE, async || {
        version(&app.pool, session).await.is_none()
    })
    .await;
    busy.stop().await;
    invariants::check(&app).await;
    assert_eq!(version(&app.pool, session).await, None);
}

/// The swap waits until the rebuilt tables contain what the live rows contain.
#[tokio::test]
async fn replay_never_shows_a_session_without_its_end_again() {
    let app = with_window(LONG_WINDOW).await;
    let busy = Busy::start(app.reader()).await;
    for _ in 0..3 {
        let reader = app.reader();
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        let _ = reader.end(session, json!({})).await.ok();
        until("the end is written", AT_ONCE, async || {
            version(&app.pool, session).await == Some(2)
        })
        .await;
        let stop = CancellationToken::new();
        replayed::<History>(&app.env, &stop).await.unwrap();
        assert_eq!(version(&app.pool, session).await, Some(2));
    }
    busy.stop().await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn verification_compares_tables_whose_rows_wait() {
    let app = with_window(LONG_WINDOW).await;
    let busy = Busy::start(app.reader()).await;
    let (reader, session) = started(&app).await;
    let _ = reader.update(session, 40.0).await.ok();
    until_ahead(&app).await;
    assert_eq!(differing(&verify_all(&app.env).await), []);
    busy.stop().await;
}

/// Retention removes rows of events behind the checkpoint. A worker that resumes there does
/// not write them again.
#[tokio::test]
async fn retention_while_rows_are_ahead_of_the_checkpoint_is_permanent() {
    let app = App::start_roles(&[Role::Api, Role::Relay, Role::Jobs]).await;
    app.warmed_up().await;
    let worker = Process::start_roles(&app.env, &["projections"], &[LONGEST_WINDOW]).await;
    let busy = Busy::start(app.reader()).await;
    let then = clock::now() - Days::new(200);
    let session = SessionId::new(then);
    backdate::create_month_partitions(&app.pool, then).await;
    until_ahead(&app).await;
    backdate::write_session(&app.pool, Uuid::new_v4(), session, then).await;
    let old = session.uuid();
    until("the old session is written", AT_ONCE, async || {
        version(&app.pool, old).await == Some(2)
    })
    .await;
    let head = eventlog::read::head(&app.pool).await.unwrap();
    assert!(positions(&app.pool).await.0 < head);

    let done = run(&app, "retention").await;
    assert!(done.contains("removed from the history"), "{done}");
    worker.kill().await;
    busy.stop().await;
    let worker = app.alongside(&[Role::Projections]).await;
    app.settled().await;
    assert_eq!(version(&app.pool, old).await, None);
    assert_eq!(differing(&verify_all(&app.env).await), []);
    worker.stop().await;
}

/// A restart does not begin the window again: the checkpoint advances however often the worker
/// is killed.
#[tokio::test]
async fn worker_that_is_killed_often_advances() {
    let app = App::start_roles(&[Role::Api, Role::Relay]).await;
    let busy = Busy::start(app.reader()).await;
    for _ in 0..3 {
        let head = eventlog::read::head(&app.pool).await.unwrap();
        let worker = Process::start_roles(&app.env, &["projections"], &[LONGEST_WINDOW]).await;
        until(
            "the checkpoint passes the kill",
            scaled(AT_ONCE),
            async || positions(&app.pool).await.0 >= head,
        )
        .await;
        worker.kill().await;
    }
    busy.stop().await;
}

/// Another worker took over in the meantime. The rows in the memory of the first one are out
/// of date.
#[tokio::test]
async fn frozen_worker_writes_nothing_that_is_out_of_date() {
    let app = App::start_roles(&[Role::Api, Role::Relay]).await;
    let frozen = Process::start_roles(&app.env, &["projections"], &[LONGEST_WINDOW]).await;
    let busy = Busy::start(app.reader()).await;
    let (reader, session) = started(&app).await;
    until_ahead(&app).await;
    let _ = reader.update(session, 10.0).await.ok();
    frozen.signal("-STOP").await;
    let _ = reader.update(session, 20.0).await.ok();
    let other = app.alongside(&[Role::Projections]).await;
    until(
        "another worker has taken over",
        scaled(AT_ONCE * 2),
        async || version(&app.pool, session).await == Some(3),
    )
    .await;
    frozen.signal("-CONT").await;
    let _ = reader.end(session, json!({})).await.ok();
    busy.stop().await;
    invariants::check(&app).await;
    assert_eq!(differing(&verify_all(&app.env).await), []);
    frozen.kill().await;
    other.stop().await;
}

/// The dead letter is stored in the commit that passes its event, with all rows before it.
#[tokio::test]
async fn event_that_is_parked_ends_the_window_of_all_rows() {
    let app = with_window(LONG_WINDOW).await;
    let busy = Busy::start(app.reader()).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 10.0).await.ok();
    let unknown = json!({ "type": "PositionUpdated", "reader_id": reader.id });
    let parked = future_events::write(&app.pool, session, "PositionUpdated", "99", &unknown).await;
    until("the dead letter is stored", AT_ONCE, async || {
        let letters = dead_letters::list(&app.pool, Some("history"), None, None, 10).await;
        !letters.unwrap().is_empty()
    })
    .await;
    assert!(positions(&app.pool).await.0 >= parked);
    assert_eq!(version(&app.pool, session).await, Some(2));
    busy.stop().await;
    app.settled().await;
    assert_eq!(differing(&verify_all(&app.env).await), []);
}

/// Commits of projections do not wait for the disk, so the crash can lose the last ones.
#[tokio::test]
async fn crash_of_postgres_in_the_middle_of_a_window_loses_nothing() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let mut settings = app::settings(&env, &Role::ALL);
    settings.projections.coalesce_window = LONG_WINDOW;
    let app = App::run(stack, env, &settings).await;
    let busy = Busy::start(app.reader()).await;
    for round in 1..=2 {
        let reader = app.reader();
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        let _ = reader.update(session, f64::from(round)).await.ok();
        let _ = reader.end(session, json!({})).await.ok();
        until("the end is written", AT_ONCE, async || {
            version(&app.pool, session).await == Some(3)
        })
        .await;
        let mut servers = app.stack.servers.lock().await;
        servers.postgres.kill().unwrap();
        servers.postgres.start().await.unwrap();
        drop(servers);
        until("a start after the crash", app::SETTLE, async || {
            app.reader().start(Uuid::new_v4()).await.status == StatusCode::CREATED
        })
        .await;
    }
    busy.stop().await;
    invariants::check(&app).await;
}
