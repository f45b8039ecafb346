//! Every route isolates readers from each other.

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use tests::reader::id;
use tests::{ApiResponse, App, Reader};
use uuid::Uuid;

#[tokio::test]
async fn data_of_another_reader_returns_404_or_nothing() {
    let app = App::start().await;
    let (owner, other) = (app.reader(), app.reader());
    let book = Uuid::new_v4();
    // Long enough to count in every statistic.
    let ago = |minutes| eventlog::clock::now() - TimeDelta::minutes(minutes);
    let start = json!({ "book_id": book, "occurred_at": ago(2) });
    let foreign = id(&owner.start_with(start).await.ok());
    let update = json!({ "current_position": 10, "occurred_at": ago(0) });
    let _ = owner.update_with(foreign, update).await.ok();
    app.settled().await;

    // The response is the same as for a session that does not exist.
    let body = |response: ApiResponse| {
        let mut body = response.body.clone();
        assert!(!response.headers.contains_key("etag"));
        let _ = response.problem(404);
        body["request_id"] = Value::Null;
        body
    };
    for (method, path, sent) in [
        (Method::GET, "", None),
        (
            Method::PUT,
            "/update",
            Some(json!({ "current_position": 50 })),
        ),
        (Method::PUT, "/end", Some(json!({ "end_position": 50 }))),
        (Method::PUT, "/end", Some(json!({}))),
    ] {
        let call = async |reader: &Reader, session: Uuid| {
            let path = format!("/{session}{path}");
            body(reader.call(method.clone(), &path, sent.clone()).await)
        };
        let none = call(&other, Uuid::now_v7()).await;
        assert_eq!(call(&other, foreign).await, none, "{method} {path}");
    }
    // Starting with another reader's session id reveals nothing about them.
    let taken = json!({ "book_id": book, "session_id": foreign });
    let response = other.start_with(taken).await;
    assert!(response.status.is_client_error(), "{}", response.body);
    assert!(!response.body.to_string().contains(&owner.id.to_string()));
    // In a batch it is one failed item.
    let item = async |session: Uuid| {
        let updates = json!([{ "session_id": session, "current_position": 50 }]);
        let response = other.batch(updates).await.ok();
        assert_eq!(response["success_count"], 0);
        assert_eq!(response["failed_count"], 1);
        response.to_string().replace(&session.to_string(), "")
    };
    assert_eq!(item(foreign).await, item(Uuid::now_v7()).await);

    // Lists and statistics contain only the reader's own sessions.
    assert_eq!(other.active().await.ok(), Value::Null);
    for query in [String::new(), format!("?book_id={book}")] {
        let history = other.history(&query).await.ok();
        assert_eq!(
            (&history["sessions"], &history["total"]),
            (&json!([]), &json!(0))
        );
    }
    let newcomer = app.reader();
    for path in ["daily", "weekly", "streak", "patterns"] {
        let statistics = async |reader: &Reader| {
            let path = format!("/stats/{path}");
            reader.call(Method::GET, &path, None).await.ok()
        };
        assert_eq!(
            statistics(&other).await,
            statistics(&newcomer).await,
            "{path}"
        );
        assert_ne!(statistics(&other).await, statistics(&owner).await, "{path}");
    }

    // Another reader can neither export nor erase it.
    let export = other.call(Method::GET, "/export", None).await.ok();
    assert_eq!(export["sessions"], json!([]));
    let path = format!("?confirm={}", owner.id);
    let _ = other.call(Method::DELETE, &path, None).await.problem(422);
    assert_eq!(other.erase().await.ok()["sessions"], 0);

    // The owner's session is unchanged.
    let session = owner.session(foreign).await.ok();
    assert_eq!(session["end_position"], 10);
    assert_eq!(session["is_active"], true);
}
