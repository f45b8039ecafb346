//! A session from its start to its end, in the log, the stream, the read tables,
//! Redis and the queries.

use serde_json::{Value, json};
use tests::reader::id;
use tests::{App, invariants, stream};
use uuid::Uuid;

#[tokio::test]
async fn start_update_and_end_reach_every_read_model() {
    let app = App::start().await;
    let reader = app.reader();
    let book = Uuid::new_v4();

    let response = reader
        .start_with(json!({
            "book_id": book, "start_position": 10, "device_type": "tablet",
            "time_zone": "Europe/Berlin",
            "book": { "title": "Middlemarch", "author": "George Eliot", "total_pages": 800 },
        }))
        .await;
    assert_eq!(response.status, 201);
    assert_eq!(response.headers["etag"], "\"1\"");
    let started = response.ok();
    let session = id(&started);
    assert_eq!(started["user_id"], reader.id.to_string());
    assert_eq!(started["book_id"], book.to_string());
    assert_eq!(started["end_position"], 10);
    assert_eq!(started["progress_delta"], 0);
    assert_eq!(started["is_active"], true);
    assert_eq!(started["ended_at"], Value::Null);
    assert_eq!(started["device_type"], "tablet");

    let response = reader.update(session, 12.5).await;
    assert_eq!(response.headers["etag"], "\"2\"");
    let updated = response.ok();
    assert_eq!(updated["applied"], true);
    assert_eq!(updated["end_position"], 12.5);
    assert_eq!(updated["progress_delta"], 2.5);
    assert_eq!(updated["pages_read"], 20);

    app.settled().await;
    let active = reader.active().await.ok();
    assert_eq!(id(&active), session);
    assert_eq!(active["end_position"], 12.5);
    assert_eq!(active["book"]["title"], "Middlemarch");

    let ended = reader.end(session, json!({ "end_position": 5 })).await.ok();
    assert_eq!(ended["is_active"], false);
    assert_eq!(ended["end_reason"], "finished");
    assert_eq!(ended["end_position"], 5);
    assert_eq!(ended["furthest_position"], 12.5);
    assert_eq!(ended["progress_delta"], -5);

    invariants::check(&app).await;
    assert_eq!(reader.active().await.ok(), Value::Null);
    let history = reader.history("").await.ok();
    assert_eq!(history["sessions"], json!([ended]));
    assert_eq!(history["total"], 1);
    assert_eq!(history["has_next"], false);
    assert_eq!(history["next_cursor"], Value::Null);
    let days = reader.days().await.ok();
    assert_eq!(days["days"][0]["sessions"], 1);
    assert_eq!(days["days"][0]["progress"], -5);

    let events = stream::read_all(&app.env).await;
    let types: Vec<&str> = events
        .iter()
        .map(|event| event.event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        [
            "reading.session.started.v1",
            "reading.session.position_updated.v2",
            "reading.session.ended.v3"
        ]
    );
    assert_eq!(events[2].event["data"]["reason"], "finished");
}

#[tokio::test]
async fn session_is_readable_right_after_its_start() {
    let app = App::start().await;
    let reader = app.reader();
    let started = reader.start(Uuid::new_v4()).await.ok();
    // The test does not wait for the projections.
    assert_eq!(reader.session(id(&started)).await.ok(), started);
    assert_eq!(id(&reader.active().await.ok()), id(&started));
}

#[tokio::test]
async fn end_without_a_position_keeps_the_last_one() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 33.3333).await.ok();
    let ended = reader.end(session, json!({})).await.ok();
    assert_eq!(ended["end_position"], 33.3333);
}

#[tokio::test]
async fn repeated_start_with_the_same_id_returns_the_same_session() {
    let app = App::start().await;
    let reader = app.reader();
    let own = domain::SessionId::new(eventlog::clock::now());
    let start = json!({ "book_id": Uuid::new_v4(), "session_id": own.uuid() });
    let first = reader.start_with(start.clone()).await.ok();
    let second = reader.start_with(start.clone()).await;
    assert_eq!(second.status, 201);
    assert_eq!(second.ok(), first);
    assert_eq!(invariants::read_log(&app.pool).await.len(), 1);

    // Under the same id, another book and another reader are refused.
    let mut other_book = start.clone();
    other_book["book_id"] = json!(Uuid::new_v4());
    for refused in [
        reader.start_with(other_book).await,
        app.reader().start_with(start).await,
    ] {
        assert_eq!(refused.problem_code(409), "session_id_in_use");
    }
    assert_eq!(invariants::read_log(&app.pool).await.len(), 1);
}

#[tokio::test]
async fn session_over_midnight_counts_on_both_local_days() {
    let app = App::start().await;
    let reader = app.reader();
    // Midnight of the day before yesterday in Kathmandu, +05:45.
    let today = eventlog::clock::now().date_naive();
    let midnight = (today - chrono::Days::new(2))
        .and_hms_opt(18, 15, 0)
        .unwrap()
        .and_utc();
    let at = |seconds: i64| midnight + chrono::TimeDelta::seconds(seconds);
    let session = id(&reader
        .start_with(json!({
            "book_id": Uuid::new_v4(), "time_zone": "Asia/Kathmandu", "occurred_at": at(-90),
        }))
        .await
        .ok());
    for (seconds, position) in [(-30, 1), (60, 2), (150, 3)] {
        let update = json!({ "current_position": position, "occurred_at": at(seconds) });
        let _ = reader.update_with(session, update).await.ok();
    }
    let _ = reader
        .end(session, json!({ "occurred_at": at(170) }))
        .await
        .ok();

    invariants::check(&app).await;
    let days = reader.days().await.ok();
    let first = (today - chrono::Days::new(2)).to_string();
    let second = (today - chrono::Days::new(1)).to_string();
    assert_eq!(
        days["days"],
        json!([
            { "date": second, "sessions": 1, "active_minutes": 2, "active_seconds": 170, "progress": 2 },
            { "date": first, "sessions": 1, "active_minutes": 1, "active_seconds": 90, "progress": 1 },
        ])
    );
}

#[tokio::test]
async fn history_pages_list_sessions_newest_first() {
    let app = App::start().await;
    let reader = app.reader();
    let books = [Uuid::new_v4(), Uuid::new_v4()];
    let mut started = Vec::new();
    for n in 0..7 {
        started.push(id(&reader.start(books[n % 2]).await.ok()));
    }
    // This session of another reader must not appear in the history.
    let _ = app.reader().start(books[0]).await.ok();
    app.settled().await;

    let pages = async |filter: &str| {
        let mut seen = Vec::new();
        let mut query = format!("?page_size=3{filter}");
        loop {
            let response = reader.history(&query).await;
            let link = response.headers.get("link").cloned();
            let page = response.ok();
            seen.extend(page["sessions"].as_array().unwrap().iter().map(id));
            let Some(cursor) = page["next_cursor"].as_str() else {
                assert_eq!(page["has_next"], false);
                assert_eq!(link, None);
                return (seen, page["total"].clone());
            };
            let link = link.unwrap();
            assert!(link.to_str().unwrap().contains(cursor));
            query = format!("?limit=3&cursor={cursor}{filter}");
        }
    };
    let newest_first: Vec<Uuid> = started.iter().rev().copied().collect();
    assert_eq!(pages("").await, (newest_first.clone(), json!(7)));
    let of_book: Vec<Uuid> = newest_first.iter().copied().step_by(2).collect();
    assert_eq!(
        pages(&format!("&book_id={}", books[0])).await,
        (of_book, json!(4))
    );

    // A cursor is valid only for the list that returned it.
    let page = reader.history("?page_size=3").await.ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    let foreign = app.reader().history(&format!("?cursor={cursor}")).await;
    assert_eq!(foreign.problem_code(400), "invalid_cursor");
}
