//! The admin API accepts operators only and matches its OpenAPI document.

mod console;
mod daily;
mod dead_letters;
mod live;
mod operations;
mod processes;
mod readers;
mod refusals;
mod scopes;

use api::openapi;
use reqwest::Method;
use serde_json::{Value, json};
use server::config::{AuthArgs, Role};
use tests::app::SETTLE;
use tests::contract::Contract;
use tests::reader::id;
use tests::{
    ApiResponse, App, Reader, Stack, eventually, future_events, invariants, scaled, until,
};
use uuid::Uuid;

use daily::daily_stats;
use dead_letters::dead_letters;
use live::live;
use operations::{pause_and_resume, projection_status, replays};
use processes::jobs;
use readers::readers;
use refusals::{rate_limits, refusals};

/// The operations, with a request for each.
const CALLS: [(&str, Method, &str); 25] = [
    ("heapProfile", Method::GET, "/heap-profile"),
    ("projections", Method::GET, "/projections"),
    ("pause", Method::POST, "/projections/history/pause"),
    ("resume", Method::POST, "/projections/history/resume"),
    ("replay", Method::POST, "/projections/history/replay"),
    ("warmUp", Method::POST, "/cache/warmup"),
    ("deadLetters", Method::GET, "/dead-letters"),
    ("deadLetter", Method::GET, "/dead-letters/history.1"),
    ("retry", Method::POST, "/dead-letters/history.1/retry"),
    ("discard", Method::POST, "/dead-letters/history.1/discard"),
    ("dailyStatsOfAll", Method::GET, "/stats/daily"),
    ("jobs", Method::GET, "/jobs"),
    ("runJob", Method::POST, "/jobs/partitions/run"),
    (
        "cleanupStats",
        Method::GET,
        "/reading-sessions/cleanup-stats",
    ),
    ("cleanup", Method::POST, "/reading-sessions/cleanup"),
    ("verify", Method::POST, "/projections/history/verify"),
    (
        "timeline",
        Method::GET,
        "/sessions/0193e5a0-0000-7000-8000-000000000001",
    ),
    (
        "reader",
        Method::GET,
        "/readers/0193e5a0-0000-7000-8000-000000000001",
    ),
    (
        "exportReader",
        Method::POST,
        "/readers/0193e5a0-0000-7000-8000-000000000001/export",
    ),
    (
        "eraseReader",
        Method::DELETE,
        "/readers/0193e5a0-0000-7000-8000-000000000001",
    ),
    ("access", Method::GET, "/access"),
    ("processes", Method::GET, "/processes"),
    ("live", Method::GET, "/live"),
    ("audit", Method::GET, "/audit"),
    ("auditEntry", Method::GET, "/audit/1"),
];

async fn get(operator: &Reader, path: &str) -> ApiResponse {
    operator.call(Method::GET, path, None).await
}

async fn post(operator: &Reader, path: &str) -> ApiResponse {
    operator.call(Method::POST, path, None).await
}

#[tokio::test]
async fn admin_api_matches_its_openapi_document() {
    let contract = Contract::from_document(openapi::admin::document());
    tokio::join!(
        refusals(&contract),
        rate_limits(&contract),
        pause_and_resume(&contract),
        replays(&contract),
        dead_letters(&contract),
        daily_stats(&contract),
        jobs(&contract),
        readers(&contract),
        live(&contract),
    );
    let mut missing = contract.described();
    missing.retain(|documented| !contract.seen().contains(documented));
    // Only a process can have the profiler; process_metrics starts one.
    missing.retain(|documented| *documented != ("heapProfile".to_owned(), 200));
    // Server errors are the same for all operations.
    missing.retain(|(_, status)| *status < 500);
    assert!(
        missing.is_empty(),
        "documented, but not returned: {missing:?}"
    );
}

#[tokio::test]
async fn admin_openapi_document_needs_no_token() {
    let app = App::start().await;
    let served = app.client.get(format!("{}/openapi.json", app.admin_url));
    let served: Value = served.send().await.unwrap().json().await.unwrap();
    assert_eq!(served, openapi::admin::document());
}

#[tokio::test]
async fn without_token_keys_only_probes_are_served() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let mut settings = tests::app::settings(&env, &[Role::Relay]);
    let app = App::run(stack.clone(), env.clone(), &settings).await;
    assert_eq!(get(&app.operator(), "/projections").await.status, 200);
    settings.auth = AuthArgs::default();
    let app = App::run(stack, env, &settings).await;
    let alive = app.client.get(format!("{}/livez", app.admin_url));
    assert_eq!(alive.send().await.unwrap().status(), 200);
    let _ = get(&app.operator(), "/projections").await.problem(404);
    let document = app.client.get(format!("{}/openapi.json", app.admin_url));
    assert_eq!(document.send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn http_requests_are_counted_by_route_and_status() {
    let app = App::start().await;
    let reader = app.reader();
    let started = reader.start(Uuid::new_v4()).await.ok();
    let path = format!("/{}", id(&started));
    let _ = reader.call(Method::GET, &path, None).await.ok();
    let _ = app
        .reader()
        .call(Method::GET, &path, None)
        .await
        .problem(404);
    let metrics = app.metrics().await;
    let requests = |status: &str| {
        metrics.count(&format!(
            r#"reading_sessions_http_requests_total{{method="GET",route="/api/v1/reading-sessions/{{id}}",status="{status}"}}"#
        ))
    };
    assert_eq!((requests("200"), requests("404")), (1, 1));
}
