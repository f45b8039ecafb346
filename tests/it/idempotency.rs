//! Promise I2 (at most once): a command with an `Idempotency-Key` takes effect
//! once, and every repeat receives the first response.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Role;
use tests::app::SETTLE;
use tests::reader::id;
use tests::{ApiResponse, App, Reader, eventually, invariants};
use uuid::Uuid;

async fn keyed(
    reader: &Reader,
    method: Method,
    path: &str,
    key: &str,
    body: &Value,
) -> ApiResponse {
    let headers = [("idempotency-key", key)];
    let body = Some(body.clone());
    reader.call_with(method, path, &headers, body).await
}

/// The parts of a response that a repeat must reproduce. The request id differs.
fn reproducible(response: &ApiResponse) -> (u16, String, String, &Value) {
    (
        response.status.as_u16(),
        response.header("etag").to_owned(),
        response.header("x-global-position").to_owned(),
        &response.body,
    )
}

#[tokio::test]
async fn repeated_command_returns_its_first_response() {
    let app = App::start().await;
    let reader = app.reader();
    let start = json!({ "book_id": Uuid::new_v4() });
    let first = keyed(&reader, Method::POST, "/start", "start", &start).await;
    let session = id(&first.body);
    let commands = [
        (
            Method::PUT,
            format!("/{session}/update"),
            json!({ "current_position": 10 }),
        ),
        (
            Method::POST,
            "/batch-update".to_owned(),
            json!({ "updates": [
                { "session_id": session, "current_position": 20 },
                { "session_id": Uuid::now_v7(), "current_position": 20 },
            ] }),
        ),
        (
            Method::PUT,
            format!("/{session}/end"),
            json!({ "end_position": 30 }),
        ),
    ];
    let mut responses = vec![first];
    for (method, path, body) in &commands {
        let response = keyed(&reader, method.clone(), path, path, body).await;
        assert!(response.status.is_success(), "{}", response.body);
        assert_eq!(response.header("idempotent-replayed"), "");
        responses.push(response);
    }
    let log = invariants::read_log(&app.pool).await.len();
    assert_eq!(log, 4);

    // Repeats still return the first response after the session has ended.
    let again = keyed(&reader, Method::POST, "/start", "start", &start).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(reproducible(&again), reproducible(&responses[0]));
    for ((method, path, body), first) in commands.iter().zip(&responses[1..]) {
        let again = keyed(&reader, method.clone(), path, path, body).await;
        assert_eq!(again.header("idempotent-replayed"), "true", "{path}");
        assert_eq!(reproducible(&again), reproducible(first), "{path}");
    }
    assert_eq!(invariants::read_log(&app.pool).await.len(), log);
}

#[tokio::test]
async fn parallel_repeats_make_one_event_and_one_response() {
    let app = App::start().await;
    let other = app.alongside(&[Role::Api]).await;
    let here = app.reader();
    let there = here.at(&other.url);
    let session = id(&here.start(Uuid::new_v4()).await.ok());
    let path = format!("/{session}/update");
    let body = json!({ "current_position": 42 });

    let sends = (0..100).map(|i| {
        let reader = if i % 2 == 0 { &here } else { &there };
        let (path, body) = (&path, &body);
        async move {
            eventually("a response other than 409", SETTLE, async || {
                let response = keyed(reader, Method::PUT, path, "once", body).await;
                if response.status != 409 {
                    return Some(response);
                }
                // The first request is in flight.
                assert_eq!(response.header("retry-after"), "1");
                None
            })
            .await
        }
    });
    let responses = join_all(sends).await;
    for response in &responses {
        assert_eq!(reproducible(response), reproducible(&responses[0]));
        assert_eq!(response.status, 200);
    }
    let replayed = |response: &&ApiResponse| response.header("idempotent-replayed") == "true";
    assert_eq!(responses.iter().filter(replayed).count(), 99);
    assert_eq!(invariants::read_log(&app.pool).await.len(), 2);
    invariants::check(&app).await;
}

#[tokio::test]
async fn stored_response_survives_a_restart() {
    let app = App::start().await;
    let id = Uuid::new_v4();
    let start = json!({ "book_id": Uuid::new_v4() });
    let first = keyed(&app.reader_with_id(id), Method::POST, "/start", "k", &start).await;
    let (stack, env) = (app.stack.clone(), app.env.clone());
    app.stop().await;
    let settings = tests::app::settings(&env, &Role::ALL);
    let app = App::run(stack, env, &settings).await;
    let again = keyed(&app.reader_with_id(id), Method::POST, "/start", "k", &start).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(reproducible(&again), reproducible(&first));
}

#[tokio::test]
async fn key_is_valid_for_one_command_of_one_reader() {
    let app = App::start().await;
    let reader = app.reader();
    let start = json!({ "book_id": Uuid::new_v4() });
    let session = keyed(&reader, Method::POST, "/start", "k", &start).await;
    let session = id(&session.ok());

    let other_body = json!({ "book_id": Uuid::new_v4() });
    let response = keyed(&reader, Method::POST, "/start", "k", &other_body).await;
    assert_eq!(response.body["errors"][0]["field"], "idempotency-key");
    assert_eq!(response.problem_code(422), "idempotency_key_reused");
    let other_path = format!("/{session}/end");
    let response = keyed(&reader, Method::PUT, &other_path, "k", &start).await;
    let _ = response.problem(422);
    assert_eq!(invariants::read_log(&app.pool).await.len(), 1);

    let other_reader = app.reader();
    let response = keyed(&other_reader, Method::POST, "/start", "k", &start).await;
    assert_eq!(response.header("idempotent-replayed"), "");
    assert_ne!(id(&response.ok()), session);
}

#[tokio::test]
async fn refused_command_stays_refused() {
    let app = App::start().await;
    let reader = app.reader();
    let own = domain::SessionId::new(eventlog::clock::now()).uuid();
    let path = format!("/{own}/update");
    let update = json!({ "current_position": 5 });
    let send = async |key: &str, body: &Value| keyed(&reader, Method::PUT, &path, key, body).await;
    let first = send("k", &update).await;
    let detail = first.body["detail"].clone();
    assert_eq!(first.header("idempotent-replayed"), "");
    let _ = first.problem(404);

    // The command would now be accepted, but its refusal is stored.
    let start = json!({ "book_id": Uuid::new_v4(), "session_id": own });
    let _ = reader.start_with(start).await.ok();
    let again = send("k", &update).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.body["detail"], detail);
    let _ = again.problem(404);
    let other = send("k", &json!({ "current_position": 6 })).await;
    let _ = other.problem(422);
    assert_eq!(invariants::read_log(&app.pool).await.len(), 1);
    // Another key is another command.
    assert_eq!(send("other", &update).await.ok()["applied"], true);
}

#[tokio::test]
async fn invalid_input_does_not_use_up_its_key() {
    let app = App::start().await;
    let reader = app.reader();
    let bad = json!({ "book_id": Uuid::new_v4(), "start_position": 101 });
    let _ = keyed(&reader, Method::POST, "/start", "k", &bad)
        .await
        .problem(422);
    let good = json!({ "book_id": Uuid::new_v4(), "start_position": 100 });
    let _ = keyed(&reader, Method::POST, "/start", "k", &good)
        .await
        .ok();
}

#[tokio::test]
async fn start_repeated_by_session_id_returns_the_first_response() {
    let app = App::start().await;
    let reader = app.reader();
    let own = domain::SessionId::new(eventlog::clock::now()).uuid();
    let start = json!({ "book_id": Uuid::new_v4(), "session_id": own });
    let first = reader.start_with(start.clone()).await;
    let again = reader.start_with(start.clone()).await;
    assert_eq!(reproducible(&again), reproducible(&first));
    for _ in 0..2 {
        let keyed = keyed(&reader, Method::POST, "/start", "k", &start).await;
        assert_eq!(reproducible(&keyed), reproducible(&first));
    }
    assert_eq!(invariants::read_log(&app.pool).await.len(), 1);
}

#[tokio::test]
async fn key_must_have_1_to_255_visible_characters() {
    let app = App::start().await;
    let reader = app.reader();
    let start = json!({ "book_id": Uuid::new_v4() });
    for bad in [String::new(), "a key".to_owned(), "k".repeat(256)] {
        let response = keyed(&reader, Method::POST, "/start", &bad, &start).await;
        let _ = response.problem(422);
    }
    assert!(invariants::read_log(&app.pool).await.is_empty());
    let longest = "k".repeat(255);
    let response = keyed(&reader, Method::POST, "/start", &longest, &start).await;
    let _ = response.ok();
}
