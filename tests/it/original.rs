//! Clients of the original service work unchanged. The tests cover the behaviour
//! that the original's own tests require and that its app relies on.
//! docs/compatibility.md lists each point and the intentional differences.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tests::reader::id;
use tests::{App, invariants};
use uuid::Uuid;

/// The fields of a session that clients of the original read.
const FIELDS: [&str; 12] = [
    "id",
    "user_id",
    "book_id",
    "started_at",
    "ended_at",
    "duration_minutes",
    "start_position",
    "end_position",
    "pages_read",
    "device_type",
    "is_active",
    "progress_delta",
];

#[tokio::test]
async fn start_sets_both_positions_and_ends_the_previous_session() {
    let app = App::start().await;
    let reader = app.reader();
    let started = reader
        .start_with(json!({
            "book_id": Uuid::new_v4(), "start_position": 25, "device_type": "mobile",
            "unknown_field": "is ignored",
        }))
        .await;
    assert_eq!(started.status, 201);
    let started = started.ok();
    assert!(FIELDS.iter().all(|field| started.get(field).is_some()));
    assert_eq!(started["start_position"], 25);
    assert_eq!(started["end_position"], 25);
    assert_eq!(started["progress_delta"], 0);
    assert_eq!(started["duration_minutes"], 0);
    assert_eq!(started["pages_read"], 0);
    assert_eq!(started["is_active"], true);

    let _ = reader.start(Uuid::new_v4()).await.ok();
    let before = reader.session(id(&started)).await.ok();
    assert_eq!(before["is_active"], false);
    assert!(before["ended_at"].is_string());
    invariants::check(&app).await;
}

/// Intentional difference: the original reset the position to the start position.
#[tokio::test]
async fn superseded_session_keeps_its_end_position() {
    let app = App::start().await;
    let reader = app.reader();
    let first = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(first, 40.0).await.ok();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    assert_eq!(reader.session(first).await.ok()["end_position"], 40);
}

#[tokio::test]
async fn ended_session_rejects_updates_and_a_second_end() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let ended = reader.end(session, json!({ "end_position": 50 })).await;
    assert_eq!(ended.status, 200);
    let ended = ended.ok();
    assert_eq!(ended["is_active"], false);
    assert_eq!(ended["progress_delta"], 50);
    assert!(ended["ended_at"].is_string());

    let update = reader.update(session, 60.0).await.problem(400);
    assert_eq!(update, "Cannot update inactive session");
    let again = reader.end(session, json!({ "end_position": 60 })).await;
    assert_eq!(again.problem(400), "Session already ended");
    assert_eq!(reader.session(session).await.ok(), ended);
}

/// Intentional difference: the original could not end such a session at all.
#[tokio::test]
async fn session_may_end_before_its_start_position() {
    let app = App::start().await;
    let reader = app.reader();
    let start = json!({ "book_id": Uuid::new_v4(), "start_position": 50 });
    let session = id(&reader.start_with(start).await.ok());
    assert_eq!(reader.update(session, 40.0).await.ok()["end_position"], 40);
    let ended = reader.end(session, json!({ "end_position": 30 })).await;
    assert_eq!(ended.ok()["progress_delta"], -20);
}

#[tokio::test]
async fn session_of_another_reader_returns_404() {
    let app = App::start().await;
    let session = id(&app.reader().start(Uuid::new_v4()).await.ok());
    let stranger = app.reader();
    let update = stranger.update(session, 10.0).await;
    let end = stranger.end(session, json!({ "end_position": 10 })).await;
    let none = stranger.update(Uuid::new_v4(), 10.0).await;
    let detail = none.problem(404);
    assert_eq!(update.problem(404), detail);
    assert_eq!(end.problem(404), detail);
    assert_eq!(stranger.active().await.ok(), Value::Null);
}

#[tokio::test]
async fn positions_may_be_integers_floats_or_strings() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    for (sent, kept) in [
        (json!(42), "42"),
        (json!(42.0), "42"),
        (json!("43"), "43"),
        // The original's app sent such values, and the original returned 422.
        (json!(43.7), "43.7"),
    ] {
        let body = json!({ "current_position": sent });
        let session = reader.update_with(session, body).await.ok();
        assert_eq!(session["end_position"].to_string(), kept);
    }
    let minus = reader.update(session, -1.0).await;
    assert_eq!(minus.problem_code(422), "validation");
    let _ = reader.update(session, 101.0).await.problem(422);
}

#[tokio::test]
async fn malformed_book_id_returns_the_original_message() {
    let app = App::start().await;
    let reader = app.reader();
    let start = reader.start_with(json!({ "book_id": "seven" })).await;
    let history = reader.history("?book_id=seven").await;
    for refused in [start, history] {
        let detail = refused.problem(400);
        assert_eq!(detail, "Invalid book_id format: seven");
    }
    let id = reader.call(
        Method::PUT,
        "/seven/update",
        Some(json!({ "current_position": 1 })),
    );
    let _ = id.await.problem(422);
}

#[tokio::test]
async fn history_is_newest_first_filterable_and_may_be_empty() {
    let app = App::start().await;
    let reader = app.reader();
    let (book, other) = (Uuid::new_v4(), Uuid::new_v4());
    let mut sessions = Vec::new();
    for book in [book, other, book] {
        sessions.insert(0, id(&reader.start(book).await.ok()));
    }
    app.settled().await;
    let page = async |query: &str| {
        let page = reader.history(query).await.ok();
        let sessions = page["sessions"].as_array().unwrap();
        let ids: Vec<_> = sessions.iter().map(id).collect();
        (ids, page)
    };

    let (all, page_of_all) = page("").await;
    assert_eq!(all, sessions);
    assert_eq!(page_of_all["sessions"][0]["is_active"], true);
    assert_eq!(page_of_all["total"], 3);
    assert_eq!(page_of_all["page_size"], 20);
    assert_eq!(page_of_all["has_next"], false);
    assert_eq!(page_of_all["next_cursor"], Value::Null);

    let (of_book, _) = page(&format!("?book_id={book}")).await;
    assert_eq!(of_book, [sessions[0], sessions[2]]);

    let (none, empty) = page(&format!("?book_id={}", Uuid::new_v4())).await;
    assert!(none.is_empty());
    assert_eq!(empty["has_next"], false);
    assert_eq!(empty["total"], 0);
}

#[tokio::test]
async fn partly_applied_batch_returns_the_original_messages() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let unknown = Uuid::new_v4();
    let item =
        |session: &str, position| json!({ "session_id": session, "current_position": position });
    let response = reader
        .batch(json!([
            item(&session.to_string(), 10),
            item("seven", 20),
            item(&unknown.to_string(), 30),
            item(&session.to_string(), 40),
        ]))
        .await
        .ok();
    assert_eq!(response["success_count"], 2);
    assert_eq!(response["failed_count"], 2);
    let expected = [
        "Invalid UUID format: seven".to_owned(),
        format!("Session {unknown} not found or not active"),
    ];
    assert_eq!(response["errors"], json!(expected));
    // The last of several updates of one session applies.
    assert_eq!(reader.session(session).await.ok()["end_position"], 40);

    let many: Vec<_> = (0..51).map(|n| item(&session.to_string(), n)).collect();
    let _ = reader.batch(json!(many)).await.problem(422);
    let _ = reader.batch(json!([])).await.problem(422);
    let most = reader.batch(json!(many[..50])).await.ok();
    assert_eq!(most["success_count"], 50);
}

#[tokio::test]
async fn active_session_follows_a_day_of_reading() {
    let app = App::start().await;
    let reader = app.reader();
    let book = Uuid::new_v4();
    assert_eq!(reader.active().await.ok(), Value::Null);

    // Three sessions with one book, each with four updates.
    let mut last = 0;
    for _ in 0..3 {
        let start = json!({ "book_id": book, "start_position": last });
        let session = id(&reader.start_with(start).await.ok());
        for _ in 0..4 {
            last += 2;
            let updated = reader.update(session, f64::from(last)).await.ok();
            assert_eq!(updated["end_position"], last);
        }
        // After a break, the app reads the position of the active session.
        app.settled().await;
        let active = reader.active().await.ok();
        assert_eq!(
            (id(&active), &active["end_position"]),
            (session, &json!(last))
        );
        let _ = reader
            .end(session, json!({ "end_position": last }))
            .await
            .ok();
    }
    invariants::check(&app).await;
    assert_eq!(reader.active().await.ok(), Value::Null);
    let history = reader.history(&format!("?book_id={book}")).await.ok();
    let deltas: Vec<_> = history["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["progress_delta"])
        .collect();
    assert_eq!(deltas, [&json!(8); 3]);
}

#[tokio::test]
async fn readers_see_only_their_own_sessions() {
    let app = App::start().await;
    let book = Uuid::new_v4();
    let read = async |position: u8| {
        let reader = app.reader();
        let session = id(&reader.start(book).await.ok());
        let _ = reader.update(session, f64::from(position)).await.ok();
        (reader, session, position)
    };
    let readers = join_all((1..=20).map(read)).await;
    app.settled().await;
    for (reader, session, position) in readers {
        let active = reader.active().await.ok();
        assert_eq!(
            (id(&active), &active["end_position"]),
            (session, &json!(position))
        );
        let history = reader.history("").await.ok();
        assert_eq!(history["total"], 1);
        assert_eq!(id(&history["sessions"][0]), session);
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn cursors_and_page_numbers_return_the_same_history() {
    let app = App::start().await;
    let reader = app.reader();
    for _ in 0..53 {
        let _ = reader.start(Uuid::new_v4()).await.ok();
    }
    app.settled().await;
    let mut by_cursor = Vec::new();
    let mut query = "?page_size=10".to_owned();
    loop {
        let page = reader.history(&query).await.ok();
        assert_eq!(page["total"], 53);
        by_cursor.extend(page["sessions"].as_array().unwrap().iter().map(id));
        assert_eq!(page["has_next"], page["next_cursor"].is_string());
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        query = format!("?page_size=10&cursor={cursor}");
    }
    let mut by_page = Vec::new();
    for number in 1..=6 {
        let page = reader
            .history(&format!("?page_size=10&page={number}"))
            .await
            .ok();
        assert_eq!(page["page"], number);
        assert_eq!(page["has_next"], number < 6);
        by_page.extend(page["sessions"].as_array().unwrap().iter().map(id));
    }
    assert_eq!(by_cursor.len(), 53);
    assert_eq!(by_cursor, by_page);
}

/// Intentional difference: the original returned the first page for an invalid
/// cursor, so an app that followed cursors could loop forever.
#[tokio::test]
async fn invalid_cursor_returns_400() {
    let app = App::start().await;
    let _ = app.reader().history("?cursor=first").await.problem(400);
}
