//! Position updates wait in memory for the coalesce window, and many of them become one row.
//! Starts, ends and the rows of a query with `min_position` do not wait. A crash in the middle
//! of a window loses nothing and applies nothing twice.

use std::time::{Duration, Instant};

use projections::History;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use server::config::Role;
use sqlx::PgPool;
use tests::process::Process;
use tests::reader::id;
use tests::{App, Reader, Stack, app, eventually, invariants, scaled, until};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::replay::replayed;
use crate::verify::{differing, verify_all};

/// Longer than the tests wait for rows that are written at once.
const LONG_WINDOW: Duration = Duration::from_secs(25);

/// Time limit for rows that are written at once.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn with_window(window: Duration) -> App {
    App::with_settings(|settings| settings.projections.coalesce_window = window).await
}

/// A reader who turns pages without a pause, so that the log is never silent: silence writes
/// all rows.
struct Busy {
    session: Uuid,
    task: JoinHandle<()>,
}

impl Busy {
    async fn start(reader: Reader) -> Self {
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        let task = tokio::spawn(async move {
            for page in (0..100).cycle() {
                let _ = reader.update(session, f64::from(page)).await.ok();
            }
        });
        Self { session, task }
    }

    /// The number of events that the row in the history contains.
    async fn version(&self, pool: &PgPool) -> i64 {
        version(pool, self.session).await.unwrap_or(0)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn version(pool: &PgPool, session: Uuid) -> Option<i64> {
    sqlx::query_scalar("select version from read.history where session_id = $1")
        .bind(session.to_string())
        .fetch_optional(pool)
        .await
        .unwrap()
}

/// The checkpoint of the history, and the end of what its rows contain.
async fn positions(pool: &PgPool) -> (i64, i64) {
    sqlx::query_as(
        "select global_position, written_to from read.checkpoints where projection = 'history'",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Rows of the history that its worker has written since it took the lease.
async fn row_writes(pool: &PgPool) -> i64 {
    let history = projections::status::find(pool, "history").await.unwrap();
    history.expect("the projection exists").row_writes
}

#[tokio::test]
async fn updates_within_a_window_become_one_row() {
    let window = Duration::from_secs(1);
    let app = with_window(window).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let began = Instant::now();
    let mut updates = 0;
    while began.elapsed() < 3 * window {
        let _ = reader.update(session, f64::from(updates % 100)).await.ok();
        updates += 1;
    }
    let took = began.elapsed();
    app.settled().await;
    assert_eq!(
        version(&app.pool, session).await,
        Some(i64::from(updates) + 1)
    );
    // The worker reports its writes once a second.
    let written = eventually("reported writes", AT_ONCE, async || {
        Some(row_writes(&app.pool).await).filter(|written| *written > 1)
    })
    .await;
    let windows = took.as_secs_f64() / window.as_secs_f64();
    // The start, one row per window, and the rest.
    let most = 2.0 + windows.ceil();
    #[expect(clippy::cast_precision_loss, reason = "few rows")]
    let written = written as f64;
    assert!(
        written <= most,
        "{written} rows for {updates} updates in {took:?}"
    );
    invariants::check(&app).await;
}

#[tokio::test]
async fn end_is_written_at_once_and_the_rows_of_others_wait() {
    let app = with_window(LONG_WINDOW).await;
    let busy = Busy::start(app.reader()).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    until("the starts are written", AT_ONCE, async || {
        version(&app.pool, session).await == Some(1) && busy.version(&app.pool).await > 0
    })
    .await;
    let before = busy.version(&app.pool).await;
    let _ = reader.update(session, 40.0).await.ok();
    let _ = reader.end(session, json!({})).await.ok();
    until("the end is written", AT_ONCE, async || {
        version(&app.pool, session).await == Some(3)
    })
    .await;
    let history = reader.history("").await.ok();
    let entry = &history["sessions"][0];
    assert_eq!(entry["end_position"], 40.0, "{history}");
    assert!(entry["ended_at"].is_string(), "{history}");
    // The other reader's row waits, and the checkpoint with it.
    assert_eq!(busy.version(&app.pool).await, before);
    let (checkpoint, written_to) = positions(&app.pool).await;
    assert!(checkpoint < written_to, "{checkpoint} {written_to}");
    drop(busy);
    invariants::check(&app).await;
}

#[tokio::test]
async fn min_position_writes_the_rows_of_its_reader_at_once() {
    let app = with_window(LONG_WINDOW).await;
    let busy = Busy::start(app.reader()).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    until("the starts are written", AT_ONCE, async || {
        version(&app.pool, session).await == Some(1) && busy.version(&app.pool).await > 0
    })
    .await;
    let before = busy.version(&app.pool).await;
    for page in 1..=3 {
        let updated = reader.update(session, f64::from(page)).await;
        let position = updated.header("x-global-position").to_owned();
        assert_eq!(updated.status, StatusCode::OK);
        let history = reader.history(&format!("?min_position={position}")).await;
        let history = history.ok();
        let entry = &history["sessions"][0];
        assert_eq!(entry["end_position"], f64::from(page), "{history}");
        let weekly = format!("/stats/weekly?min_position={position}");
        let weekly = reader.call(Method::GET, &weekly, None).await;
        assert_eq!(progress_today(&weekly.ok()), f64::from(page));
    }
    assert_eq!(busy.version(&app.pool).await, before);
}

fn progress_today(weekly: &Value) -> f64 {
    let days = weekly["days"].as_array().unwrap();
    days[0]["progress"].as_f64().unwrap()
}

/// The query cannot reach the worker, and makes it write its rows through Postgres.
#[tokio::test]
async fn min_position_is_served_while_nats_is_down() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let mut settings = app::settings(&env, &Role::ALL);
    settings.projections.coalesce_window = LONG_WINDOW;
    let app = App::run(stack, env, &settings).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    app.stack.servers.lock().await.nats.kill().unwrap();
    let busy = Busy::start(app.reader()).await;
    let updated = reader.update(session, 7.0).await;
    let position = updated.header("x-global-position").to_owned();
    let history = eventually("the update", scaled(AT_ONCE), async || {
        let history = reader.history(&format!("?min_position={position}")).await;
        history.status.is_success().then_some(history.body)
    })
    .await;
    assert_eq!(history["sessions"][0]["end_position"], 7.0, "{history}");
    drop(busy);
}

#[tokio::test]
async fn kill_in_the_middle_of_a_window_loses_nothing() {
    let app = App::start_roles(&[Role::Api, Role::Relay]).await;
    let long = LONG_WINDOW.as_secs().to_string();
    let settings = [("COALESCE_WINDOW", long.as_str())];
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
        until("rows are ahead of the checkpoint", AT_ONCE, async || {
            let (checkpoint, written_to) = positions(&app.pool).await;
            version(&app.pool, last).await >= Some(3) && checkpoint < written_to
        })
        .await;
        worker.kill().await;
        drop(busy);
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
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    until("the start is written", AT_ONCE, async || {
        version(&app.pool, session).await == Some(1)
    })
    .await;
    let _ = reader.update(session, 40.0).await.ok();
    let erased = reader.erase().await;
    assert!(erased.status.is_success(), "{}", erased.body);
    until("the row is removed", AT_ONCE, async || {
        version(&app.pool, session).await.is_none()
    })
    .await;
    drop(busy);
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
    drop(busy);
    invariants::check(&app).await;
}

#[tokio::test]
async fn verification_compares_tables_whose_rows_wait() {
    let app = with_window(LONG_WINDOW).await;
    let busy = Busy::start(app.reader()).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    until("the start is written", AT_ONCE, async || {
        version(&app.pool, session).await == Some(1)
    })
    .await;
    let _ = reader.update(session, 40.0).await.ok();
    assert_eq!(differing(&verify_all(&app.env).await), []);
    // The window was closed for the comparison, which wrote the row.
    assert_eq!(version(&app.pool, session).await, Some(2));
    drop(busy);
}
