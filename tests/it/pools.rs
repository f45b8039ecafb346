//! Who gets no connection to Postgres is told so soon, is never queued for long,
//! and everything goes on as soon as there is one.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use services::config::Role;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tests::app::{self, SETTLE};
use tests::{Answer, App, Stack};
use uuid::Uuid;

/// How long a request may wait for a connection here.
const WAIT: Duration = Duration::from_secs(1);

/// How much longer its answer may take on a busy machine.
const BUSY: Duration = Duration::from_secs(3);

/// Waits until a connection of the API waits for a lock.
async fn api_is_held(pool: &PgPool) {
    let since = Instant::now();
    let held = "select exists (select from pg_stat_activity
        where datname = current_database() and application_name = 'reading-sessions-api'
            and wait_event_type = 'Lock')";
    while !sqlx::query_scalar::<_, bool>(held)
        .fetch_one(pool)
        .await
        .unwrap()
    {
        assert!(since.elapsed() < SETTLE, "nobody waits for the lock");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Calls of all kinds that need a connection of the API, each of another reader.
async fn calls(app: &App) -> Vec<(Answer, Duration)> {
    let call = |method: Method, path: String, body| {
        let reader = app.reader();
        async move {
            let begun = Instant::now();
            let answer = reader.call(method, &path, body).await;
            (answer, begun.elapsed())
        }
    };
    let id = Uuid::now_v7();
    let get = |path: &str| call(Method::GET, path.to_owned(), None);
    let start = json!({ "book_id": Uuid::new_v4() });
    futures::future::join_all([
        get("/history"),
        get("/history?min_position=1"),
        get("/stats/daily"),
        get("/stats/weekly"),
        get("/stats/streak"),
        get("/stats/patterns"),
        get(&format!("/{id}")),
        call(Method::POST, "/start".to_owned(), Some(start)),
        call(Method::PUT, format!("/{id}/end"), Some(json!({}))),
    ])
    .await
}

#[tokio::test]
async fn who_gets_no_connection_is_told_so_soon_and_then_all_goes_on_at_once() {
    let stack = Stack::shared().await;
    let corner = stack.corner().await;
    let mut settings = app::settings(&corner, &[Role::Api]);
    settings.database.database_pool_size = 1;
    settings.database.database_pool_timeout = WAIT;
    let app = App::run(stack, corner, &settings).await;
    let reader = app.reader();

    let mut holder = PgConnection::connect(&app.corner.database_url)
        .await
        .unwrap();
    let mut lock = holder.begin().await.unwrap();
    lock.execute("lock table read.history_totals")
        .await
        .unwrap();
    let held = tokio::spawn({
        let reader = reader.clone();
        async move { reader.history("").await }
    });
    api_is_held(&app.pool).await;
    let calls = calls(&app).await;
    let metrics = app.metrics().await;
    lock.rollback().await.unwrap();

    for (answer, took) in &calls {
        assert_eq!(answer.status, 503, "{} after {took:?}", answer.body);
        assert_eq!(answer.header("retry-after"), "1");
        assert!(*took < WAIT + BUSY, "told so after {took:?}");
    }
    // It may have waited for as long as one may wait for a lock.
    let held = held.await.unwrap().status;
    assert!(held == 200 || held == 503, "{held}");
    let _ = reader.history("").await.ok();
    let _ = reader.start(Uuid::new_v4()).await.ok();

    let of_api = |name: &str| metrics.count(&format!("reading_sessions_pool_{name}"));
    assert_eq!(of_api(r#"max_connections{pool="api"}"#), 1);
    assert_eq!(of_api(r#"connections{pool="api",state="in_use"}"#), 1);
    assert_eq!(of_api(r#"connections{pool="api",state="idle"}"#), 0);
    assert_eq!(of_api(r#"timeouts_total{pool="api"}"#), calls.len() as u64);
    let waits = of_api(r#"wait_seconds_count{pool="api"}"#);
    let short = of_api(r#"wait_seconds_bucket{le="0.5",pool="api"}"#);
    assert!(
        waits - short >= calls.len() as u64,
        "{waits}, {short} of them short"
    );
}

#[tokio::test]
async fn while_postgres_is_away_all_are_told_so_soon() {
    let stack = Stack::own().await;
    let corner = stack.corner().await;
    let mut settings = app::settings(&corner, &Role::ALL);
    settings.database.database_pool_timeout = WAIT;
    let app = App::run(stack, corner, &settings).await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;

    app.stack.servers.lock().await.postgres.kill().unwrap();
    for (answer, took) in calls(&app).await {
        assert_eq!(answer.status, 503, "{} after {took:?}", answer.body);
        assert_eq!(answer.header("retry-after"), "1");
        // A start waits for a connection, and perhaps for the appender's too.
        assert!(took < 3 * WAIT + BUSY, "told so after {took:?}");
    }
    let mut servers = app.stack.servers.lock().await;
    servers.postgres.start().await.unwrap();
    drop(servers);
    app.settled().await;
    assert_eq!(reader.history("").await.ok()["total"], 1);
}

#[tokio::test]
async fn what_runs_well_leaves_no_warning_in_the_log_of_postgres() {
    let app = App::on(Stack::own().await).await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let _ = reader.history("").await.ok();
    app.settled().await;
    let servers = app.stack.servers.lock().await;
    let folder = servers.postgres.folder().unwrap().to_owned();
    drop(servers);
    app.stop().await;
    let log = std::fs::read_to_string(folder.join("log")).unwrap();
    assert!(log.contains("ready to accept"), "{log}");
    let warning = log.lines().find(|line| line.contains("WARNING"));
    assert_eq!(warning, None);
}
