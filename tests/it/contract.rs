//! The OpenAPI document is correct: the service returns every documented response,
//! and every response matches its schema. The tables below have a row for each
//! operation and status.

mod refusals;

use std::num::NonZeroU32;
use std::time::Duration;

use api::openapi;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Role;
use tests::contract::Contract;
use tests::reader::id;
use tests::{ApiResponse, App, Reader, Stack};
use uuid::Uuid;

use refusals::refusals;

/// The operations, with a valid request for each. `{id}` is an active session, and
/// `{reader}` is its reader.
const OPERATIONS: [(&str, Method, &str); 16] = [
    ("start", Method::POST, "/start"),
    ("update", Method::PUT, "/{id}/update"),
    ("batchUpdate", Method::POST, "/batch-update"),
    ("session", Method::GET, "/{id}"),
    ("active", Method::GET, "/active"),
    ("history", Method::GET, "/history"),
    ("dailyStats", Method::GET, "/stats/daily"),
    ("weeklyStats", Method::GET, "/stats/weekly"),
    ("streak", Method::GET, "/stats/streak"),
    ("patterns", Method::GET, "/stats/patterns"),
    ("sync", Method::POST, "/sync"),
    ("end", Method::PUT, "/{id}/end"),
    ("correct", Method::PATCH, "/{id}"),
    ("delete", Method::DELETE, "/{id}"),
    ("export", Method::GET, "/export"),
    ("erase", Method::DELETE, "?confirm={reader}"),
];

fn takes_body(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::DELETE)
}

fn good_body(operation: &str, session: Uuid) -> Option<Value> {
    match operation {
        "start" => Some(json!({ "book_id": Uuid::new_v4(), "device_type": "mobile" })),
        "update" => Some(json!({ "current_position": 33.3 })),
        "batchUpdate" => Some(json!({ "updates": [
            { "session_id": session, "current_position": 50 },
            { "session_id": "x", "current_position": 50 },
        ] })),
        "end" => Some(json!({})),
        "correct" => Some(json!({ "end_position": 40 })),
        "sync" => {
            let now = eventlog::clock::now();
            Some(json!({ "sent_at": now, "sessions": [{
                "session_id": domain::SessionId::new(now), "book_id": Uuid::new_v4(),
                "started_at": now,
            }] }))
        }
        _ => None,
    }
}

async fn good(reader: &Reader, operation: &str, session: Uuid) -> ApiResponse {
    let (_, method, path) = OPERATIONS.iter().find(|(id, ..)| *id == operation).unwrap();
    let path = path.replace("{id}", &session.to_string());
    let path = path.replace("{reader}", &reader.id.to_string());
    reader
        .call(method.clone(), &path, good_body(operation, session))
        .await
}

/// A reader with an active session.
async fn reading(app: &App) -> (Reader, Uuid) {
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    (reader, session)
}

async fn success(contract: &Contract) {
    let app = App::start().await;
    for (operation, ..) in OPERATIONS {
        let (reader, session) = reading(&app).await;
        if operation == "correct" {
            let _ = reader.end(session, json!({})).await.ok();
        }
        app.settled().await;
        let status = match operation {
            "start" => 201,
            "erase" => 202,
            "delete" => 204,
            _ => 200,
        };
        contract.check(operation, status, &good(&reader, operation, session).await);
    }
    let reader = app.reader();
    contract.check("active", 200, &reader.active().await);
    for path in ["/{id}", "/active"] {
        let (reader, session) = reading(&app).await;
        let path = path.replace("{id}", &session.to_string());
        let first = reader.call(Method::GET, &path, None).await;
        let headers = [("if-none-match", first.header("etag"))];
        let again = reader.call_with(Method::GET, &path, &headers, None).await;
        let operation = if path == "/active" {
            "active"
        } else {
            "session"
        };
        contract.check(operation, 304, &again);
    }
}

/// While a command with a key waits for Postgres, its repeat returns 409.
async fn in_flight(contract: &Contract) {
    let app = App::start().await;
    for operation in ["start", "update", "batchUpdate", "sync", "end", "correct"] {
        let (reader, session) = reading(&app).await;
        if operation == "correct" {
            let _ = reader.end(session, json!({})).await.ok();
        }
        let mut lock = app.pool.begin().await.unwrap();
        sqlx::query("lock table idempotency_keys in access exclusive mode")
            .execute(&mut *lock)
            .await
            .unwrap();
        let (_, method, path) = OPERATIONS.iter().find(|(id, ..)| *id == operation).unwrap();
        let path = path.replace("{id}", &session.to_string());
        let body = good_body(operation, session);
        let mut sends: FuturesUnordered<_> = (0..2)
            .map(|_| {
                let key = [("idempotency-key", "k")];
                let (reader, path, body) = (&reader, &path, body.clone());
                async move { reader.call_with(method.clone(), path, &key, body).await }
            })
            .collect();
        contract.check(operation, 409, &sends.next().await.unwrap());
        lock.rollback().await.unwrap();
        assert!(sends.next().await.unwrap().status.is_success());
    }
}

/// A request whose body never arrives returns 408.
async fn slow_bodies(contract: &Contract) {
    let app =
        App::with_settings(|settings| settings.http.timeouts.body = Duration::from_millis(100))
            .await;
    for (operation, method, path) in OPERATIONS {
        if !takes_body(&method) {
            continue;
        }
        let path = path.replace("{id}", &Uuid::now_v7().to_string());
        let pending_body = futures::stream::pending::<std::io::Result<Vec<u8>>>();
        let request = app
            .client
            .request(method, format!("{}{path}", app.url))
            .bearer_auth(app.reader().token)
            .header("content-type", "application/json")
            .body(reqwest::Body::wrap_stream(pending_body));
        let response = ApiResponse::read(request.send().await.unwrap())
            .await
            .unwrap();
        contract.check(operation, 408, &response);
    }
}

async fn rate_limits(contract: &Contract) {
    let once = NonZeroU32::MIN;
    let app = App::with_settings(|settings| {
        settings.rate_limit.normal = once;
        settings.rate_limit.high_frequency = once;
        settings.rate_limit.low_frequency = once;
        settings.rate_limit.sync = once;
    })
    .await;
    for (operation, ..) in OPERATIONS {
        let reader = app.reader();
        let _ = good(&reader, operation, Uuid::now_v7()).await;
        let response = good(&reader, operation, Uuid::now_v7()).await;
        contract.check(operation, 429, &response);
    }
}

async fn unreached_positions(contract: &Contract) {
    let env = Stack::shared().await.new_env().await;
    let settings = tests::app::settings(&env, &[Role::Api]);
    let app = &App::run(Stack::shared().await, env, &settings).await;
    let queries = OPERATIONS
        .iter()
        .filter(|(id, method, _)| *method == Method::GET && !["session", "export"].contains(id));
    let requests = queries.map(|(operation, _, path)| async move {
        let path = format!("{path}?min_position=999999999");
        let response = app.reader().call(Method::GET, &path, None).await;
        contract.check(operation, 504, &response);
    });
    futures::future::join_all(requests).await;
}

async fn postgres_outage(contract: &Contract) {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let mut settings = tests::app::settings(&env, &Role::ALL);
    settings.database.database_pool_timeout = Duration::from_secs(1);
    let app = App::run(stack, env, &settings).await;
    app.stack.servers.lock().await.postgres.kill().unwrap();
    let requests = OPERATIONS.iter().map(|(operation, ..)| {
        let reader = app.reader();
        async move {
            let response = good(&reader, operation, Uuid::now_v7()).await;
            contract.check(operation, 503, &response);
        }
    });
    futures::future::join_all(requests).await;
}

#[tokio::test]
async fn every_documented_response_occurs_and_matches() {
    let contract = Contract::new();
    tokio::join!(
        success(&contract),
        refusals(&contract),
        in_flight(&contract),
        slow_bodies(&contract),
        rate_limits(&contract),
        unreached_positions(&contract),
        postgres_outage(&contract),
    );
    let mut missing = contract.described();
    missing.retain(|documented| !contract.seen().contains(documented));
    // A client cannot provoke an internal server error.
    missing.retain(|(_, status)| *status != 500);
    assert!(
        missing.is_empty(),
        "documented, but not returned: {missing:?}"
    );
}

#[test]
fn every_request_and_response_has_a_valid_example() {
    let contract = Contract::new();
    let mut checked = 0;
    let mut check = |about: &str, content: &Value| {
        for content in content.as_object().unwrap().values() {
            let example = content
                .get("example")
                .unwrap_or_else(|| panic!("{about}: no example"));
            let valid = contract.validate(&content["schema"], example);
            valid.unwrap_or_else(|error| panic!("{about}: {error}"));
            checked += 1;
        }
    };
    for (id, operation) in contract.operations() {
        if let Some(body) = operation.get("requestBody") {
            check(&format!("{id}'s request"), &body["content"]);
        }
        for status in operation["responses"].as_object().unwrap().keys() {
            let response = contract.response(id, status.parse().unwrap()).unwrap();
            if let Some(content) = response.get("content") {
                check(&format!("{id} {status}"), content);
            }
        }
    }
    assert!(checked > 90, "only {checked} examples were checked");
}

#[test]
fn committed_openapi_documents_match_the_code() {
    let documents = [
        ("openapi.json", openapi::document()),
        ("openapi-admin.json", openapi::admin::document()),
    ];
    for (name, document) in documents {
        let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(
            committed == openapi::json(&document),
            "docs/{name} is stale: run `make openapi`"
        );
    }
}

#[tokio::test]
async fn docs_page_is_served_without_external_resources() {
    let app = App::start().await;
    let root = app.url.replace("/api/v1/reading-sessions", "");
    let get = async |path: &str| {
        app.client
            .get(format!("{root}{path}"))
            .send()
            .await
            .unwrap()
    };
    let served: Value = get("/openapi.json").await.json().await.unwrap();
    assert_eq!(served, openapi::document());

    // The path without the trailing slash redirects.
    let page = get("/docs").await;
    assert!(page.url().path().ends_with("/docs/"), "{}", page.url());
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    let page = page.text().await.unwrap();
    assert!(!page.contains("https://"), "{page}");
    let attributes = page
        .split(['"', '\''])
        .filter(|text| text.starts_with("./"));
    let mut files: Vec<&str> = attributes.collect();
    files.push("./swagger-initializer.js");
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let response = get(&format!("/docs/{}", file.trim_start_matches("./"))).await;
        assert_eq!(response.status(), 200, "{file}");
    }
    let initializer = get("/docs/swagger-initializer.js")
        .await
        .text()
        .await
        .unwrap();
    assert!(initializer.contains("\"/openapi.json\""), "{initializer}");
    // It would store the token in the browser.
    assert!(
        !initializer.contains("persistAuthorization"),
        "{initializer}"
    );
}
