//! A hint never refuses a fact: an invalid hint is changed or ignored, and the
//! response contains a warning.

use chrono::{DateTime, TimeDelta, Utc};
use eventlog::clock;
use reqwest::Method;
use serde_json::{Value, json};
use tests::reader::id;
use tests::{App, invariants, stream};
use uuid::Uuid;

/// The fields of the warnings with their codes.
fn warnings(body: &Value) -> Vec<(&str, &str)> {
    let warnings = body["warnings"].as_array().unwrap().iter();
    let warnings = warnings.map(|warning| {
        assert!(!warning["message"].as_str().unwrap().is_empty());
        let text = |name: &str| warning[name].as_str().unwrap();
        (text("field"), text("code"))
    });
    warnings.collect()
}

#[tokio::test]
async fn start_with_invalid_hints_is_accepted_with_warnings() {
    let app = App::start().await;
    let reader = app.reader();
    let title = "\u{1f4d6}".repeat(501);
    let started = reader
        .start_with(json!({
            "book_id": Uuid::new_v4(),
            "start_position": 10,
            "device_id": "d".repeat(256),
            "time_zone": "Etc/Unknown",
            "locator": 7,
            "book": {
                "title": title, "author": "A\u{0}B", "total_pages": 300.5,
                "isbn": "978-0", "series": { "name": "S" },
            },
        }))
        .await
        .ok();
    assert_eq!(
        warnings(&started),
        [
            ("device_id", "text_cut"),
            ("time_zone", "unknown_time_zone"),
            ("locator", "invalid_value"),
            ("book.author", "characters_removed"),
            ("book.isbn", "unknown_field"),
            ("book.series", "unknown_field"),
            ("book.title", "text_cut"),
            ("book.total_pages", "invalid_value"),
        ]
    );
    assert_eq!(started["start_position"], 10);
    assert_eq!(started["locator"], Value::Null);
    let book = json!({
        "title": "\u{1f4d6}".repeat(500), "author": "AB", "total_pages": Value::Null,
    });
    let session = reader.session(id(&started)).await.ok();
    for (name, value) in book.as_object().unwrap() {
        let stored = session["book"].get(name).unwrap_or(&Value::Null);
        assert_eq!(stored, value, "{name}");
    }
    assert_eq!(session.get("warnings"), None);
    invariants::check(&app).await;
}

#[tokio::test]
async fn each_invalid_hint_alone_gives_one_warning() {
    let app = App::start().await;
    let reader = app.reader();
    for (hint, field, code) in [
        (json!({ "book": [] }), "book", "invalid_value"),
        (json!({ "book": "B" }), "book", "invalid_value"),
        (
            json!({ "book": { "title": 7 } }),
            "book.title",
            "invalid_value",
        ),
        (
            json!({ "book": { "total_pages": -1 } }),
            "book.total_pages",
            "invalid_value",
        ),
        (
            json!({ "book": { "total_pages": 100_001 } }),
            "book.total_pages",
            "invalid_value",
        ),
        (
            json!({ "book": { "a\u{0}b": 1 } }),
            "book.ab",
            "unknown_field",
        ),
        (json!({ "device_id": [] }), "device_id", "invalid_value"),
        (json!({ "time_zone": "" }), "time_zone", "unknown_time_zone"),
        (json!({ "time_zone": 2 }), "time_zone", "invalid_value"),
        (
            json!({ "locator": "a\u{0}b" }),
            "locator",
            "locator_dropped",
        ),
    ] {
        let mut body = hint.clone();
        body["book_id"] = json!(Uuid::new_v4());
        let started = reader.start_with(body).await.ok();
        assert_eq!(warnings(&started), [(field, code)], "{hint}");
    }
    // Valid hints give no warning, and neither do hints that are null.
    for hint in [
        json!({}),
        json!({ "book": null, "device_id": null, "time_zone": null, "locator": null }),
        json!({ "book": { "title": null, "total_pages": 300.0 }, "locator": "" }),
        json!({ "time_zone": "Europe/Berlin", "device_id": "d", "unknown": true }),
    ] {
        let mut body = hint.clone();
        body["book_id"] = json!(Uuid::new_v4());
        let started = reader.start_with(body).await.ok();
        assert_eq!(started.get("warnings"), None, "{hint}");
    }
    let invalid = json!({ "book_id": Uuid::new_v4(), "device_type": "toaster", "book": 7 });
    let _ = reader.start_with(invalid).await.problem(422);
}

#[tokio::test]
async fn half_an_emoji_does_not_invalidate_the_body() {
    let app = App::start().await;
    let reader = app.reader();
    let book = Uuid::new_v4();
    let send = async |method: Method, path: String, body: String| {
        let request = app.client.request(method, format!("{}{path}", app.url));
        let request = request.bearer_auth(&reader.token);
        let request = request
            .header("content-type", "application/json")
            .body(body);
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
        response.json::<Value>().await.unwrap()
    };
    let start = format!(r#"{{"book_id": "{book}", "book": {{"title": "A\ud83d"}}}}"#);
    let started = send(Method::POST, "/start".to_owned(), start).await;
    assert_eq!(warnings(&started), [("book.title", "characters_removed")]);
    assert_eq!(started["book"]["title"], "A");
    let session = id(&started);
    let batch = format!(
        r#"{{"updates": [
            {{"session_id": "{session}", "current_position": 10, "locator": "a"}},
            {{"session_id": "{session}", "current_position": 20, "locator": "\ud83d"}}
        ]}}"#
    );
    let updated = send(Method::POST, "/batch-update".to_owned(), batch).await;
    assert_eq!(updated["success_count"], 2);
    assert_eq!(
        warnings(&updated),
        [("updates[1].locator", "locator_dropped")]
    );
}

#[tokio::test]
async fn repeat_of_a_command_returns_its_warnings() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let too_long = "x".repeat(8_193);
    let batch = json!({ "updates": [
        { "session_id": session, "current_position": 10 },
        { "session_id": session, "current_position": 20, "locator": too_long },
    ] });
    let commands = [
        (
            Method::POST,
            "/start".to_owned(),
            json!({ "book_id": Uuid::new_v4(), "book": { "isbn": 1 } }),
            ("book.isbn", "unknown_field"),
        ),
        (
            Method::POST,
            "/batch-update".to_owned(),
            batch,
            ("updates[1].locator", "locator_dropped"),
        ),
    ];
    for (method, path, body, expected) in commands {
        let key = [("idempotency-key", path.as_str())];
        let mut responses = Vec::new();
        for _ in 0..2 {
            let sent = Some(body.clone());
            let response = reader.call_with(method.clone(), &path, &key, sent).await;
            responses.push(response);
        }
        assert_eq!(responses[1].header("idempotent-replayed"), "true");
        assert_eq!(responses[0].body, responses[1].body);
        assert_eq!(warnings(&responses[1].body), [expected]);
    }
}

#[tokio::test]
async fn time_in_the_future_is_recorded_as_now_with_a_warning() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let update = json!({ "current_position": 1, "occurred_at": "9999-01-01T00:00:00Z" });
    let updated = reader.update_with(session, update).await.ok();
    assert_eq!(warnings(&updated), [("occurred_at", "clock_ahead")]);
    assert_eq!(updated["end_position"], 1);
    let time = |name: &str| updated[name].as_str().unwrap().parse::<DateTime<Utc>>();
    assert!(time("last_activity_at").unwrap() <= clock::now());
    // With `sent_at`, the service knows the error of the clock, and records the time.
    let update = json!({
        "current_position": 2,
        "occurred_at": "2100-01-01T00:00:00Z", "sent_at": "2100-01-01T00:00:00Z",
    });
    let updated = reader.update_with(session, update).await.ok();
    assert_eq!(updated.get("warnings"), None);
    assert_eq!(updated["end_position"], 2);
    invariants::check(&app).await;
}

/// The longest locator: 8,192 bytes in characters of two bytes.
fn longest_locator(start: &str) -> String {
    let rest = "é".repeat((8_192 - start.len()) / 2);
    format!("{start}{rest}")
}

#[tokio::test]
async fn locator_of_8_kb_is_kept_everywhere() {
    let app = App::start().await;
    let reader = app.reader();
    let locators = ["s0", "u1", "b2", "b3", "e4"].map(longest_locator);
    let start = clock::now() - TimeDelta::minutes(10);
    let at = |minute: i64| start + TimeDelta::minutes(minute);
    let started = json!({
        "book_id": Uuid::new_v4(), "locator": locators[0], "occurred_at": at(0),
    });
    let started = reader.start_with(started).await.ok();
    assert_eq!(started["locator"], locators[0]);
    let session = id(&started);
    let update = json!({ "current_position": 10, "locator": locators[1], "occurred_at": at(1) });
    let updated = reader.update_with(session, update).await.ok();
    assert_eq!(updated["locator"], locators[1]);
    let item = |minute: i64, locator: &str| {
        json!({
            "session_id": session, "current_position": 10 + minute, "locator": locator,
            "occurred_at": at(minute),
        })
    };
    let batch = reader
        .batch(json!([item(2, &locators[2]), item(3, &locators[3])]))
        .await
        .ok();
    assert_eq!(batch["success_count"], 2);
    for body in [&started, &updated, &batch] {
        assert_eq!(body.get("warnings"), None);
    }
    app.settled().await;
    for query in ["/active".to_owned(), format!("/{session}")] {
        let shown = reader.call(Method::GET, &query, None).await.ok();
        assert_eq!(shown["locator"], locators[3], "{query}");
    }
    let end = json!({ "end_position": 20, "locator": locators[4], "occurred_at": at(4) });
    let ended = reader.end(session, end).await.ok();
    assert_eq!(ended["locator"], locators[4]);
    app.settled().await;
    let history = reader.history("").await.ok();
    assert_eq!(history["sessions"][0]["locator"], locators[4]);
    let published = stream::read_all(&app.env).await;
    let published = published
        .iter()
        .map(|message| &message.event["data"]["locator"]);
    assert!(published.eq(&locators));
    invariants::check(&app).await;
}

#[tokio::test]
async fn longer_locator_is_dropped_and_the_position_kept() {
    let app = App::start().await;
    let reader = app.reader();
    let too_long = format!("{}x", longest_locator(""));
    let started = json!({ "book_id": Uuid::new_v4(), "locator": too_long });
    let started = reader.start_with(started).await.ok();
    assert_eq!(warnings(&started), [("locator", "locator_dropped")]);
    let session = id(&started);
    let update = json!({ "current_position": 42, "locator": too_long });
    let updated = reader.update_with(session, update).await.ok();
    assert_eq!(warnings(&updated), [("locator", "locator_dropped")]);
    assert_eq!(updated["end_position"], 42);
    assert_eq!(updated["locator"], Value::Null);
    let end = json!({ "end_position": 50, "locator": too_long });
    let ended = reader.end(session, end).await.ok();
    assert_eq!(warnings(&ended), [("locator", "locator_dropped")]);
    assert_eq!(ended["end_position"], 50);
    invariants::check(&app).await;
}
