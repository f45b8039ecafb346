//! The description of the API is true: every answer that it names is given,
//! and every answer given is as it says. The tables below have a row for each
//! operation and status.

mod refusals;

use std::num::NonZeroU32;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use reqwest::Method;
use serde_json::{Value, json};
use services::api::openapi;
use services::config::Role;
use tests::contract::Contract;
use tests::reader::id;
use tests::{Answer, App, Reader, Stack};
use uuid::Uuid;

use refusals::refusals;

/// Operations and a good request for each, `{id}` being a session that is
/// active, `{reader}` whose it is.
const OPERATIONS: [(&str, Method, &str); 13] = [
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
    ("end", Method::PUT, "/{id}/end"),
    ("export", Method::GET, "/export"),
    ("erase", Method::DELETE, "?confirm={reader}"),
];

/// Whether an operation takes a body.
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
        _ => None,
    }
}

async fn good(reader: &Reader, operation: &str, session: Uuid) -> Answer {
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
        app.settled().await;
        let status = match operation {
            "start" => 201,
            "erase" => 202,
            _ => 200,
        };
        contract.holds(operation, status, &good(&reader, operation, session).await);
    }
    let reader = app.reader();
    contract.holds("active", 200, &reader.active().await);
    for path in ["/{id}", "/active"] {
        let (reader, session) = reading(&app).await;
        let path = path.replace("{id}", &session.to_string());
        let first = reader.call(Method::GET, &path, None).await;
        let known = [("if-none-match", first.header("etag"))];
        let again = reader.call_with(Method::GET, &path, &known, None).await;
        let operation = if path == "/active" {
            "active"
        } else {
            "session"
        };
        contract.holds(operation, 304, &again);
    }
}

/// While a keyed command waits for Postgres, a repeat is told that it does.
async fn in_flight(contract: &Contract) {
    let app = App::start().await;
    for operation in ["start", "update", "batchUpdate", "end"] {
        let (reader, session) = reading(&app).await;
        let mut hold = app.pool.begin().await.unwrap();
        sqlx::query("lock table idempotency_keys in access exclusive mode")
            .execute(&mut *hold)
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
        contract.holds(operation, 409, &sends.next().await.unwrap());
        hold.rollback().await.unwrap();
        assert!(sends.next().await.unwrap().status.is_success());
    }
}

/// Who begins a body and never goes on is told so.
async fn too_slow(contract: &Contract) {
    let app = App::with(|settings| settings.http.limits.body = Duration::from_millis(100)).await;
    for (operation, method, path) in OPERATIONS {
        if !takes_body(&method) {
            continue;
        }
        let path = path.replace("{id}", &Uuid::now_v7().to_string());
        let nothing = futures::stream::pending::<std::io::Result<Vec<u8>>>();
        let request = app
            .client
            .request(method, format!("{}{path}", app.url))
            .bearer_auth(app.reader().token)
            .header("content-type", "application/json")
            .body(reqwest::Body::wrap_stream(nothing));
        let answer = Answer::read(request.send().await.unwrap()).await.unwrap();
        contract.holds(operation, 408, &answer);
    }
}

async fn too_many(contract: &Contract) {
    let once = NonZeroU32::MIN;
    let app = App::with(|settings| {
        settings.rate_limit.normal = once;
        settings.rate_limit.high_frequency = once;
        settings.rate_limit.low_frequency = once;
    })
    .await;
    for (operation, ..) in OPERATIONS {
        let reader = app.reader();
        let _ = good(&reader, operation, Uuid::now_v7()).await;
        let answer = good(&reader, operation, Uuid::now_v7()).await;
        contract.holds(operation, 429, &answer);
    }
}

async fn not_yet(contract: &Contract) {
    let corner = Stack::shared().await.corner().await;
    let settings = tests::app::settings(&corner, &[Role::Api]);
    let app = &App::run(Stack::shared().await, corner, &settings).await;
    let queries = OPERATIONS
        .iter()
        .filter(|(id, method, _)| *method == Method::GET && !["session", "export"].contains(id));
    let asked = queries.map(|(operation, _, path)| async move {
        let path = format!("{path}?min_position=999999999");
        let answer = app.reader().call(Method::GET, &path, None).await;
        contract.holds(operation, 504, &answer);
    });
    futures::future::join_all(asked).await;
}

async fn postgres_away(contract: &Contract) {
    let stack = Stack::own().await;
    let corner = stack.corner().await;
    let mut settings = tests::app::settings(&corner, &Role::ALL);
    settings.database.database_pool_timeout = Duration::from_secs(1);
    let app = App::run(stack, corner, &settings).await;
    app.stack.servers.lock().await.postgres.kill().unwrap();
    let asked = OPERATIONS.iter().map(|(operation, ..)| {
        let reader = app.reader();
        async move {
            let answer = good(&reader, operation, Uuid::now_v7()).await;
            contract.holds(operation, 503, &answer);
        }
    });
    futures::future::join_all(asked).await;
}

#[tokio::test]
async fn every_answer_that_is_described_is_given_and_is_as_described() {
    let contract = Contract::new();
    tokio::join!(
        success(&contract),
        refusals(&contract),
        in_flight(&contract),
        too_slow(&contract),
        too_many(&contract),
        not_yet(&contract),
        postgres_away(&contract),
    );
    let mut missing = contract.described();
    missing.retain(|described| !contract.seen().contains(described));
    // What must not happen cannot be made to happen from outside.
    missing.retain(|(_, status)| *status != 500);
    assert!(missing.is_empty(), "described, but not seen: {missing:?}");
}

#[test]
fn every_request_and_every_answer_has_an_example_that_is_valid() {
    let contract = Contract::new();
    let mut checked = 0;
    let mut check = |about: &str, content: &Value| {
        for content in content.as_object().unwrap().values() {
            let example = content
                .get("example")
                .unwrap_or_else(|| panic!("{about}: no example"));
            let valid = contract.valid(&content["schema"], example);
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
    assert!(checked > 90, "{checked} were checked");
}

#[test]
fn the_committed_descriptions_are_those_of_the_code() {
    let documents = [
        ("openapi.json", openapi::document()),
        ("openapi-admin.json", openapi::operators::document()),
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
async fn the_documentation_is_served_and_loads_nothing_from_elsewhere() {
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

    // By the address that people type, too.
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
        let answer = get(&format!("/docs/{}", file.trim_start_matches("./"))).await;
        assert_eq!(answer.status(), 200, "{file}");
    }
    let initializer = get("/docs/swagger-initializer.js")
        .await
        .text()
        .await
        .unwrap();
    assert!(initializer.contains("\"/openapi.json\""), "{initializer}");
}
