//! Requests that the API rejects, by operation.

use reqwest::Method;
use serde_json::{Value, json};
use tests::contract::Contract;
use tests::reader::id;
use tests::{ApiResponse, App};
use uuid::Uuid;

use super::{OPERATIONS, good_body, reading, takes_body};

/// Sends each bad request and checks the response.
pub async fn refusals(contract: &Contract) {
    let app = App::start().await;
    let (reader, active) = reading(&app).await;
    let (other, theirs) = reading(&app).await;
    let ended = id(&reader.end(active, json!({})).await.ok());
    let taken = domain::SessionId::new(eventlog::clock::now()).uuid();
    let start_taken = json!({ "book_id": Uuid::new_v4(), "session_id": taken });
    let _ = other.start_with(start_taken.clone()).await.ok();

    let position = json!({ "current_position": 1 });
    let cases: [(&str, Method, String, Option<Value>, u16); 33] = [
        (
            "start",
            Method::POST,
            "/start".into(),
            Some(json!({ "book_id": "x" })),
            400,
        ),
        (
            "start",
            Method::POST,
            "/start".into(),
            Some(start_taken),
            409,
        ),
        ("start", Method::POST, "/start".into(), Some(json!({})), 422),
        (
            "update",
            Method::PUT,
            format!("/{ended}/update"),
            Some(position.clone()),
            400,
        ),
        (
            "update",
            Method::PUT,
            format!("/{theirs}/update"),
            Some(position.clone()),
            404,
        ),
        (
            "update",
            Method::PUT,
            format!("/{}/update", Uuid::now_v7()),
            Some(position),
            404,
        ),
        (
            "update",
            Method::PUT,
            format!("/{ended}/update"),
            Some(json!({})),
            422,
        ),
        (
            "update",
            Method::PUT,
            "/x/update".into(),
            Some(json!({})),
            422,
        ),
        (
            "end",
            Method::PUT,
            format!("/{ended}/end"),
            Some(json!({})),
            400,
        ),
        (
            "end",
            Method::PUT,
            format!("/{theirs}/end"),
            Some(json!({})),
            404,
        ),
        (
            "end",
            Method::PUT,
            format!("/{ended}/end"),
            Some(json!({ "end_position": 101 })),
            422,
        ),
        (
            "batchUpdate",
            Method::POST,
            "/batch-update".into(),
            Some(json!({ "updates": [] })),
            422,
        ),
        ("session", Method::GET, format!("/{theirs}"), None, 404),
        ("session", Method::GET, "/x".into(), None, 422),
        (
            "active",
            Method::GET,
            "/active?min_position=x".into(),
            None,
            422,
        ),
        (
            "history",
            Method::GET,
            "/history?cursor=x".into(),
            None,
            400,
        ),
        (
            "history",
            Method::GET,
            "/history?book_id=x".into(),
            None,
            400,
        ),
        (
            "history",
            Method::GET,
            "/history?page_size=0".into(),
            None,
            422,
        ),
        (
            "dailyStats",
            Method::GET,
            "/stats/daily?days=0".into(),
            None,
            422,
        ),
        (
            "weeklyStats",
            Method::GET,
            "/stats/weekly?min_position=x".into(),
            None,
            422,
        ),
        (
            "streak",
            Method::GET,
            "/stats/streak?days=367".into(),
            None,
            422,
        ),
        (
            "patterns",
            Method::GET,
            "/stats/patterns?days=x".into(),
            None,
            422,
        ),
        (
            "export",
            Method::GET,
            "/export?format=xml".into(),
            None,
            422,
        ),
        ("export", Method::GET, "/export?book_id=x".into(), None, 400),
        (
            "erase",
            Method::DELETE,
            format!("?confirm={}&session_id=x", reader.id),
            None,
            400,
        ),
        ("sync", Method::POST, "/sync".into(), Some(json!({})), 422),
        (
            "correct",
            Method::PATCH,
            format!("/{theirs}"),
            Some(json!({ "end_position": 1 })),
            404,
        ),
        (
            "correct",
            Method::PATCH,
            format!("/{ended}"),
            Some(json!({})),
            422,
        ),
        ("delete", Method::DELETE, format!("/{theirs}"), None, 404),
        ("delete", Method::DELETE, format!("/{ended}?x=1"), None, 400),
        ("delete", Method::DELETE, "/x".into(), None, 422),
        (
            "erase",
            Method::DELETE,
            format!("?confirm={}", other.id),
            None,
            422,
        ),
        (
            "session",
            Method::GET,
            format!("/{ended}?min_position=999999999"),
            None,
            504,
        ),
    ];
    for (operation, method, path, body, status) in cases {
        let response = reader.call(method, &path, body).await;
        contract.check(operation, status, &response);
    }
    for (operation, method, path) in OPERATIONS {
        let path = path.replace("{id}", &ended.to_string());
        let mut unauthenticated = reader.clone();
        unauthenticated.token = "x".into();
        let response = unauthenticated
            .call(method.clone(), &path, good_body(operation, ended))
            .await;
        contract.check(operation, 401, &response);
        if !takes_body(&method) {
            continue;
        }
        let too_large = if operation == "sync" { 1_025 } else { 65 } * 1_024;
        for (kind, body, status) in [
            ("application/json", "{".to_owned(), 400),
            ("application/json", " ".repeat(too_large), 413),
            ("text/plain", "{}".to_owned(), 415),
        ] {
            let request = app
                .client
                .request(method.clone(), format!("{}{path}", app.url));
            let request = request
                .bearer_auth(&reader.token)
                .header("content-type", kind);
            let response = request.body(body).send().await.unwrap();
            let response = ApiResponse::read(response).await.unwrap();
            contract.check(operation, status, &response);
        }
    }
}
