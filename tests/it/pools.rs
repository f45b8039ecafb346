//! A request that cannot get a Postgres connection within the pool timeout
//! returns 503. The next request succeeds as soon as a connection is available.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use server::config::Role;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tests::app::{self, SETTLE};
use tests::{ApiResponse, App, Stack, scaled, until};
use uuid::Uuid;

/// The pool timeout of these tests.
const POOL_TIMEOUT: Duration = Duration::from_secs(1);

/// Additional time for a response on a busy machine.
const TOLERANCE: Duration = Duration::from_secs(3);

/// Waits until a connection of the API waits for a lock.
async fn api_is_blocked(pool: &PgPool) {
    let blocked = "select exists (select from pg_stat_activity
        where datname = current_database() and application_name = 'reading-sessions-api'
            and wait_event_type = 'Lock')";
    until("a connection that waits for the lock", SETTLE, async || {
        let blocked = sqlx::query_scalar(blocked).fetch_one(pool);
        blocked.await.unwrap()
    })
    .await;
}

/// Sends one request of each kind that needs a connection of the API, each as
/// another reader. Returns the responses and their durations.
async fn call_all(app: &App) -> Vec<(ApiResponse, Duration)> {
    let call = |method: Method, path: String, body| {
        let reader = app.reader();
        async move {
            let started = Instant::now();
            let response = reader.call(method, &path, body).await;
            (response, started.elapsed())
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
async fn pool_exhaustion_returns_503_and_recovers() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let mut settings = app::settings(&env, &[Role::Api]);
    settings.database.database_pool_size = 1;
    settings.database.database_pool_timeout = POOL_TIMEOUT;
    let app = App::run(stack, env, &settings).await;
    let reader = app.reader();

    let mut holder = PgConnection::connect(&app.env.admin_url).await.unwrap();
    let mut lock = holder.begin().await.unwrap();
    lock.execute("lock table read.history_totals")
        .await
        .unwrap();
    let blocked = tokio::spawn({
        let reader = reader.clone();
        async move { reader.history("").await }
    });
    api_is_blocked(&app.pool).await;
    let calls = call_all(&app).await;
    let metrics = app.metrics().await;
    lock.rollback().await.unwrap();

    for (response, took) in &calls {
        assert_eq!(response.status, 503, "{} after {took:?}", response.body);
        assert_eq!(response.header("retry-after"), "1");
        assert!(
            *took < POOL_TIMEOUT + scaled(TOLERANCE),
            "503 after {took:?}"
        );
    }
    // 503 if the request reached `lock_timeout` before the rollback.
    let status = blocked.await.unwrap().status;
    assert!(status == 200 || status == 503, "{status}");
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
        "{waits} waits, of which {short} were short"
    );
}

#[tokio::test]
async fn postgres_outage_returns_503_within_the_pool_timeout() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let mut settings = app::settings(&env, &Role::ALL);
    settings.database.database_pool_timeout = POOL_TIMEOUT;
    let app = App::run(stack, env, &settings).await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;

    app.stack.servers.lock().await.postgres.kill().unwrap();
    for (response, took) in call_all(&app).await {
        assert_eq!(response.status, 503, "{} after {took:?}", response.body);
        assert_eq!(response.header("retry-after"), "1");
        // A start waits for a connection of its own and may also wait for the
        // appender's.
        assert!(
            took < 3 * POOL_TIMEOUT + scaled(TOLERANCE),
            "503 after {took:?}"
        );
    }
    let mut servers = app.stack.servers.lock().await;
    servers.postgres.start().await.unwrap();
    drop(servers);
    app.settled().await;
    assert_eq!(reader.history("").await.ok()["total"], 1);
}

#[tokio::test]
async fn normal_traffic_causes_no_postgres_warning() {
    let app = App::on(Stack::dedicated().await).await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let _ = reader.history("").await.ok();
    app.settled().await;
    let log = app.stop_with_postgres_log().await;
    let warning = log.lines().find(|line| line.contains("WARNING"));
    assert_eq!(warning, None);
}
