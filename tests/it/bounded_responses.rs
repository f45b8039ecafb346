//! Responses repeat a bounded part of a request, so that a reader cannot store more than it
//! sends: the log stores the responses of commands with an `Idempotency-Key`.

use eventlog::idempotency::MAX_STORED_RESPONSE;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tests::reader::id;
use tests::{App, Reader, invariants};
use uuid::Uuid;

/// The size of a refusal: a problem document that repeats the longest part of its request.
const MAX_PROBLEM: usize = 1_000;

/// The sizes of the stored responses, in bytes.
async fn stored(pool: &PgPool) -> Vec<usize> {
    let sizes: Vec<i32> =
        sqlx::query_scalar("select octet_length(answer::text) from idempotency_keys")
            .fetch_all(pool)
            .await
            .unwrap();
    let sizes = sizes.into_iter();
    sizes.map(|size| usize::try_from(size).unwrap()).collect()
}

async fn keyed(reader: &Reader, method: Method, path: &str, body: Value) -> Value {
    let key = Uuid::new_v4().to_string();
    let key = [("idempotency-key", key.as_str())];
    reader.call_with(method, path, &key, Some(body)).await.ok()
}

#[tokio::test]
async fn refused_items_of_a_batch_store_less_than_was_sent() {
    let app = App::start().await;
    let reader = app.reader();
    let long = "\u{1f4d6}".repeat(300);
    for item in [
        json!({ "session_id": long, "current_position": 1 }),
        json!({ "session_id": long }),
        json!({ "session_id": Uuid::new_v4(), "current_position": long }),
        json!({ "session_id": Uuid::new_v4(), "current_position": 1, "occurred_at": long }),
    ] {
        let updates = vec![item.clone(); 50];
        let sent = json!({ "updates": updates });
        let size = sent.to_string().len();
        let body = keyed(&reader, Method::POST, "/batch-update", sent).await;
        assert_eq!(body["failed_count"], 50, "{item}");
        let stored = stored(&app.pool).await;
        let largest = stored.iter().max().unwrap();
        assert!(
            *largest < size,
            "{largest} bytes for {size} bytes of {item}"
        );
    }
    // Text that is short enough is repeated.
    let batch = json!({ "updates": [{ "session_id": "seven", "current_position": 1 }] });
    let body = keyed(&reader, Method::POST, "/batch-update", batch).await;
    assert_eq!(body["errors"][0], "Invalid UUID format: seven");
    assert_eq!(body["results"][0]["session_id"], "seven");
}

#[tokio::test]
async fn no_problem_repeats_a_long_part_of_the_request() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let long = "7x".repeat(3_000);
    let book = Uuid::new_v4();
    let update = format!("/{session}/update");
    for (method, path, body) in [
        (Method::POST, "/start", json!({ "book_id": long })),
        (
            Method::POST,
            "/start",
            json!({ "book_id": book, "device_type": long }),
        ),
        (
            Method::POST,
            "/start",
            json!({ "book_id": book, "start_position": long }),
        ),
        (
            Method::POST,
            "/start",
            json!({ "book_id": book, "session_id": long }),
        ),
        (Method::PUT, &update, json!({ "current_position": long })),
        (
            Method::PUT,
            &update,
            json!({ "current_position": 1, "occurred_at": long }),
        ),
        (
            Method::PUT,
            &update,
            json!({ "current_position": { long.as_str(): 1 } }),
        ),
        (Method::POST, "/batch-update", json!({ "updates": long })),
        (
            Method::POST,
            "/sync",
            json!({ "sent_at": long, "sessions": [] }),
        ),
        (
            Method::GET,
            &format!("/history?book_id={long}"),
            Value::Null,
        ),
        (Method::GET, &format!("/history?cursor={long}"), Value::Null),
        (Method::GET, &format!("/history?page={long}"), Value::Null),
        (
            Method::GET,
            &format!("/stats/daily?days={long}"),
            Value::Null,
        ),
        (Method::GET, &format!("/export?{long}=1"), Value::Null),
        (Method::GET, &format!("/export?format={long}"), Value::Null),
        (Method::DELETE, &format!("?{long}=1"), Value::Null),
        (Method::DELETE, &format!("?confirm={long}"), Value::Null),
        (Method::GET, &format!("/{long}"), Value::Null),
    ] {
        let body = (!body.is_null()).then_some(body);
        let response = reader.call(method, path, body.clone()).await;
        assert!(
            response.status.is_client_error(),
            "{} {path}",
            response.status
        );
        let size = response.body.to_string().len();
        assert!(
            size < MAX_PROBLEM,
            "{size} bytes for {path}: {}",
            response.body
        );
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn names_of_unknown_fields_are_cut_in_warnings() {
    let app = App::start().await;
    let reader = app.reader();
    let long = "x".repeat(5_000);
    let start = json!({ "book_id": Uuid::new_v4(), "book": { long.as_str(): 1 } });
    let started = reader.start_with(start).await.ok();
    let field = started["warnings"][0]["field"].as_str().unwrap();
    assert!(
        field.starts_with("book.xxx") && field.len() < 200,
        "{field}"
    );
}

/// Only the responses of a sync may be larger: a sync can be repeated without one.
#[tokio::test]
async fn largest_responses_of_commands_are_stored() {
    let app = App::start().await;
    let reader = app.reader();
    // JSON writes each of these characters as six bytes.
    let (locator, title) = ("\u{1}".repeat(8_192), "\u{1}".repeat(500));
    let mut book = json!({ "title": title, "author": title });
    for n in 0..110 {
        book[format!("\"{n}\"")] = json!(1);
    }
    let start = json!({ "book_id": Uuid::new_v4(), "locator": locator, "book": book });
    assert!(start.to_string().len() < 64 * 1024);
    let started = keyed(&reader, Method::POST, "/start", start).await;
    assert_eq!(started["warnings"].as_array().unwrap().len(), 100);
    assert_eq!(started["locator"], locator);
    let update = json!({
        "session_id": id(&started), "current_position": 1,
        "locator": 7, "occurred_at": "2100-01-01T00:00:00Z",
    });
    let batch = json!({ "updates": vec![update; 50] });
    let batch = keyed(&reader, Method::POST, "/batch-update", batch).await;
    assert_eq!(batch["warnings"].as_array().unwrap().len(), 100);

    let stored = stored(&app.pool).await;
    assert_eq!(stored.len(), 2);
    let largest = *stored.iter().max().unwrap();
    assert!(
        largest > 50_000 && largest < MAX_STORED_RESPONSE,
        "{largest}"
    );
}

#[tokio::test]
async fn response_of_a_sync_beyond_the_bound_is_not_stored() {
    let app = App::start().await;
    let reader = app.reader();
    let at = eventlog::clock::now();
    // Each refused observation is a line of the response.
    let session = |refused: usize| {
        json!({
            "session_id": Uuid::now_v7(), "book_id": Uuid::new_v4(), "started_at": at,
            "observations": vec![json!({}); refused],
        })
    };
    let small = json!({ "sent_at": at, "sessions": [session(1)] });
    let sessions: Vec<Value> = (0..10).map(|_| session(500)).collect();
    let large = json!({ "sent_at": at, "sessions": sessions });
    for (body, is_stored) in [(small, true), (large, false)] {
        let key = Uuid::new_v4().to_string();
        let key = [("idempotency-key", key.as_str())];
        let sync = || reader.call_with(Method::POST, "/sync", &key, Some(body.clone()));
        let first = sync().await.ok();
        let events = invariants::read_log(&app.pool).await.len();
        let again = sync().await;
        assert_eq!(again.headers.contains_key("idempotent-replayed"), is_stored);
        let again = again.ok();
        if is_stored {
            assert_eq!(again, first);
        }
        // A repeat without a stored response changes nothing either.
        let ids = |body: &Value| -> Vec<Value> {
            let results = body["results"].as_array().unwrap().iter();
            results
                .map(|result| result["session"]["id"].clone())
                .collect()
        };
        assert_eq!(ids(&again), ids(&first));
        assert_eq!(invariants::read_log(&app.pool).await.len(), events);
    }
    let stored = stored(&app.pool).await;
    assert_eq!(stored.len(), 1);
    assert!(stored[0] < MAX_STORED_RESPONSE);
    invariants::check(&app).await;
}
