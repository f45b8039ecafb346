//! A client of the service that this one follows works unchanged: what that
//! service's own tests pin, and what its app relies on. docs/compatibility.md
//! has each row, and those that are different on purpose.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tests::reader::id;
use tests::{App, check};
use uuid::Uuid;

/// The fields of a session that an old client knows.
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
async fn a_start_ends_at_its_own_position_and_closes_the_session_before() {
    let app = App::start().await;
    let reader = app.reader();
    let started = reader
        .start_with(json!({
            "book_id": Uuid::new_v4(), "start_position": 25, "device_type": "mobile",
            "something_new": "which it does not know",
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
    check::everything(&app).await;
}

/// Different on purpose: there it went back to where it had begun.
#[tokio::test]
async fn the_session_before_keeps_how_far_it_came() {
    let app = App::start().await;
    let reader = app.reader();
    let first = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(first, 40.0).await.ok();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    assert_eq!(reader.session(first).await.ok()["end_position"], 40);
}

#[tokio::test]
async fn what_is_over_is_over() {
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

/// Different on purpose: there such a session could not be ended at all.
#[tokio::test]
async fn who_leafed_back_ends_before_the_start() {
    let app = App::start().await;
    let reader = app.reader();
    let start = json!({ "book_id": Uuid::new_v4(), "start_position": 50 });
    let session = id(&reader.start_with(start).await.ok());
    assert_eq!(reader.update(session, 40.0).await.ok()["end_position"], 40);
    let ended = reader.end(session, json!({ "end_position": 30 })).await;
    assert_eq!(ended.ok()["progress_delta"], -20);
}

#[tokio::test]
async fn somebody_elses_session_is_none() {
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
async fn positions_may_come_as_whole_numbers_floats_or_text() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    for (sent, kept) in [
        (json!(42), "42"),
        (json!(42.0), "42"),
        (json!("43"), "43"),
        // What the original's own app sent, and got 422 for.
        (json!(43.7), "43.7"),
    ] {
        let body = json!({ "current_position": sent });
        let session = reader.update_with(session, body).await.ok();
        assert_eq!(session["end_position"].to_string(), kept);
    }
    let minus = reader.update(session, -1.0).await;
    assert!(minus.problem(422).contains("from 0 to 100"));
    let _ = reader.update(session, 101.0).await.problem(422);
}

#[tokio::test]
async fn a_bad_book_is_said_to_be_invalid() {
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
async fn the_history_is_newest_first_by_book_and_may_be_empty() {
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
async fn a_batch_is_taken_in_part_and_says_why_in_the_old_words() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let unknown = Uuid::new_v4();
    let item =
        |session: &str, position| json!({ "session_id": session, "current_position": position });
    let answer = reader
        .batch(json!([
            item(&session.to_string(), 10),
            item("seven", 20),
            item(&unknown.to_string(), 30),
            item(&session.to_string(), 40),
        ]))
        .await
        .ok();
    assert_eq!(answer["success_count"], 2);
    assert_eq!(answer["failed_count"], 2);
    let expected = [
        "Invalid UUID format: seven".to_owned(),
        format!("Session {unknown} not found or not active"),
    ];
    assert_eq!(answer["errors"], json!(expected));
    // Of several for one session the last one holds.
    assert_eq!(reader.session(session).await.ok()["end_position"], 40);

    let many: Vec<_> = (0..51).map(|n| item(&session.to_string(), n)).collect();
    let _ = reader.batch(json!(many)).await.problem(422);
    let _ = reader.batch(json!([])).await.problem(422);
    let most = reader.batch(json!(many[..50])).await.ok();
    assert_eq!(most["success_count"], 50);
}

#[tokio::test]
async fn a_day_with_an_app() {
    let app = App::start().await;
    let reader = app.reader();
    let book = Uuid::new_v4();
    assert_eq!(reader.active().await.ok(), Value::Null);

    // Several sessions with one book, a position each time it settles.
    let mut last = 0;
    for _ in 0..3 {
        let start = json!({ "book_id": book, "start_position": last });
        let session = id(&reader.start_with(start).await.ok());
        for _ in 0..4 {
            last += 2;
            let updated = reader.update(session, f64::from(last)).await.ok();
            assert_eq!(updated["end_position"], last);
        }
        // The app comes back after a break, and finds where it was.
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
    check::everything(&app).await;
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
async fn readers_do_not_see_each_other() {
    let app = App::start().await;
    let book = Uuid::new_v4();
    let read = async |place: u8| {
        let reader = app.reader();
        let session = id(&reader.start(book).await.ok());
        let _ = reader.update(session, f64::from(place)).await.ok();
        (reader, session, place)
    };
    let readers = join_all((1..=20).map(read)).await;
    app.settled().await;
    for (reader, session, place) in readers {
        let active = reader.active().await.ok();
        assert_eq!(
            (id(&active), &active["end_position"]),
            (session, &json!(place))
        );
        let history = reader.history("").await.ok();
        assert_eq!(history["total"], 1);
        assert_eq!(id(&history["sessions"][0]), session);
    }
    check::everything(&app).await;
}

#[tokio::test]
async fn a_large_history_is_read_by_cursor_and_by_page_alike() {
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

/// Different on purpose: there a bad cursor was the first page once more, and
/// an app that followed it never came to an end.
#[tokio::test]
async fn a_bad_cursor_is_refused() {
    let app = App::start().await;
    let _ = app.reader().history("?cursor=first").await.problem(400);
}
