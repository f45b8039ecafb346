//! Batch updates: each item succeeds or fails on its own, and all are written in
//! one transaction.

use chrono::TimeDelta;
use serde_json::{Value, json};
use tests::reader::id;
use tests::{App, invariants};
use uuid::Uuid;

#[tokio::test]
async fn good_updates_are_applied_and_bad_ones_reported() {
    let app = App::start().await;
    let reader = app.reader();
    let ended = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.end(ended, json!({})).await.ok();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let foreign = id(&app.reader().start(Uuid::new_v4()).await.ok());
    let unknown = Uuid::now_v7();

    let response = reader
        .batch(json!([
            { "session_id": session, "current_position": 10 },
            { "session_id": "not-a-uuid", "current_position": 11 },
            { "session_id": ended, "current_position": 12 },
            { "session_id": foreign, "current_position": 13 },
            { "session_id": unknown, "current_position": 14 },
            { "session_id": session, "current_position": 101 },
            { "session_id": session, "current_position": "far" },
            { "session_id": session },
            "nonsense",
            { "session_id": session, "current_position": 20.5 },
        ]))
        .await;
    assert_eq!(response.status, 200);
    assert!(response.headers.contains_key("x-global-position"));
    let body = response.ok();
    assert_eq!(body["success_count"], 2);
    assert_eq!(body["failed_count"], 8);
    let errors: Vec<&str> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e.as_str().unwrap())
        .collect();
    assert_eq!(errors[0], "Invalid UUID format: not-a-uuid");
    for (error, session) in errors[1..4].iter().zip([ended, foreign, unknown]) {
        assert_eq!(*error, format!("Session {session} not found or not active"));
    }
    assert!(
        errors[4..]
            .iter()
            .all(|error| error.starts_with("Invalid update: ")),
        "{errors:?}"
    );
    let results = body["results"].as_array().unwrap();
    let versions: Vec<&Value> = results.iter().map(|result| &result["version"]).collect();
    assert_eq!(versions[0], 2);
    assert_eq!(versions[9], 3);
    assert_eq!(results[9]["applied"], true);
    // The result of a bad update contains its session id, if the update has one.
    assert_eq!(results[5]["session_id"], session.to_string());
    assert_eq!(results[8]["session_id"], Value::Null);

    assert_eq!(reader.session(session).await.ok()["end_position"], 20.5);
    invariants::check(&app).await;
}

#[tokio::test]
async fn updates_of_one_session_apply_in_time_order() {
    let app = App::start().await;
    let reader = app.reader();
    let now = eventlog::clock::now();
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": now - TimeDelta::minutes(30) });
    let session = id(&reader.start_with(start).await.ok());
    let update = |minutes_ago: i64, position: u32| {
        json!({
            "session_id": session, "current_position": position,
            "occurred_at": now - TimeDelta::minutes(minutes_ago),
        })
    };
    let body = reader
        .batch(json!([update(5, 50), update(20, 20), update(10, 40)]))
        .await
        .ok();
    assert_eq!(body["success_count"], 3);
    let applied: Vec<&Value> = body["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| &result["applied"])
        .collect();
    assert_eq!(applied, [true, true, true]);
    let session = reader.session(session).await.ok();
    assert_eq!(session["end_position"], 50);
    assert_eq!(session["active_seconds"], 3 * 120);

    // Without times, the last update in the batch wins.
    let session = id(&session);
    let untimed = |position: u32| json!({ "session_id": session, "current_position": position });
    let _ = reader
        .batch(json!([untimed(70), untimed(60), untimed(65)]))
        .await
        .ok();
    assert_eq!(reader.session(session).await.ok()["end_position"], 65);
    invariants::check(&app).await;
}

#[tokio::test]
async fn batch_accepts_1_to_50_updates() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let batch = |count: u32| -> Value {
        (0..count)
            .map(|n| json!({ "session_id": session, "current_position": n }))
            .collect()
    };
    let _ = reader.batch(batch(0)).await.problem(422);
    let _ = reader.batch(batch(51)).await.problem(422);
    assert_eq!(invariants::read_log(&app.pool).await.len(), 1);
    assert_eq!(reader.batch(batch(50)).await.ok()["success_count"], 50);
    invariants::check(&app).await;
}
