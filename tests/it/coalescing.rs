//! Position updates wait in memory for the coalesce window, and many of them become one row.
//! Starts, ends and the rows of a query with `min_position` do not wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;
use server::config::Role;
use sqlx::PgPool;
use tests::reader::id;
use tests::{App, Reader, Stack, app, eventually, invariants, until};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod faults;

/// Longer than any test.
const LONG_WINDOW: Duration = Duration::from_hours(1);

/// Time limit for rows that are written at once.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn with_window(window: Duration) -> App {
    App::with_settings(|settings| settings.projections.coalesce_window = window).await
}

/// A reader who turns pages without a pause, so that the log is never silent: silence writes
/// all rows.
struct Busy {
    session: Uuid,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Busy {
    async fn start(reader: Reader) -> Self {
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut pages = (0..100).cycle();
            while !stopped.is_cancelled() {
                // Fails while Postgres is down.
                let page = f64::from(pages.next().unwrap());
                let _ = reader.update(session, page).await;
            }
        });
        Self {
            session,
            stop,
            task,
        }
    }

    /// Waits for the last response.
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// The number of events that the row in the history contains.
    async fn version(&self, pool: &PgPool) -> i64 {
        version(pool, self.session).await.unwrap_or(0)
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
    let positions = sqlx::query_as(
        "select global_position, written_to from read.checkpoints where projection = 'history'",
    );
    positions
        .fetch_optional(pool)
        .await
        .unwrap()
        .unwrap_or_default()
}

/// Starts a session of a new reader, and waits until its row is written.
async fn started(app: &App) -> (Reader, Uuid) {
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    until("the start is written", AT_ONCE, async || {
        version(&app.pool, session).await == Some(1)
    })
    .await;
    (reader, session)
}

/// Starts sessions until rows are ahead of the checkpoint: a start writes its own row only.
async fn until_ahead(app: &App) {
    until("rows are ahead of the checkpoint", AT_ONCE, async || {
        let _ = app.reader().start(Uuid::new_v4()).await.ok();
        let (checkpoint, written_to) = positions(&app.pool).await;
        checkpoint < written_to
    })
    .await;
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
    // The session of `busy` has started before.
    let (reader, session) = started(&app).await;
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
    busy.stop().await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn min_position_writes_the_rows_of_its_reader_at_once() {
    let app = with_window(LONG_WINDOW).await;
    let busy = Busy::start(app.reader()).await;
    // The session of `busy` has started before.
    let (reader, session) = started(&app).await;
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
        let weekly = weekly.ok();
        // Today is the first day.
        assert_eq!(weekly["days"][0]["progress"], f64::from(page), "{weekly}");
    }
    assert_eq!(busy.version(&app.pool).await, before);
}

/// No event is at the position, so nothing can be written for it.
#[tokio::test]
async fn min_position_beyond_the_log_leaves_the_rows_of_others_waiting() {
    let app = with_window(LONG_WINDOW).await;
    let busy = Busy::start(app.reader()).await;
    until("the start is written", AT_ONCE, async || {
        busy.version(&app.pool).await > 0
    })
    .await;
    let before = busy.version(&app.pool).await;
    let reader = app.reader();
    let history = reader.history(&format!("?min_position={}", i64::MAX)).await;
    assert_eq!(history.problem_code(504), "read_model_behind");
    assert_eq!(busy.version(&app.pool).await, before);
}

/// The query cannot reach the worker, and makes it write its rows through Postgres. The client
/// of NATS queues more messages than it has room for.
#[tokio::test]
async fn min_position_is_served_while_nats_is_down() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let start = async |roles: &[Role]| {
        let mut settings = app::settings(&env, roles);
        settings.projections.coalesce_window = LONG_WINDOW;
        App::run(Arc::clone(&stack), env.clone(), &settings).await
    };
    let others = start(&[Role::Relay, Role::Projections]).await;
    let app = start(&[Role::Api]).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    app.stack.servers.lock().await.nats.kill().unwrap();
    let mut busy = Vec::new();
    for _ in 0..8 {
        busy.push(Busy::start(app.reader()).await);
    }
    let before = eventlog::read::head(&app.pool).await.unwrap();
    until("thousands of commits", Duration::from_mins(1), async || {
        eventlog::read::head(&app.pool).await.unwrap() > before + 3_000
    })
    .await;
    let updated = reader.update(session, 7.0).await;
    let position = updated.header("x-global-position").to_owned();
    let history = reader.history(&format!("?min_position={position}")).await;
    let history = history.ok();
    assert_eq!(history["sessions"][0]["end_position"], 7.0, "{history}");
    for busy in busy {
        busy.stop().await;
    }
    others.stop().await;
}
