//! Two readers on every route.

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use tests::reader::id;
use tests::{Answer, App, Reader};
use uuid::Uuid;

#[tokio::test]
async fn what_belongs_to_another_reader_is_not_there() {
    let app = App::start().await;
    let (owner, thief) = (app.reader(), app.reader());
    let book = Uuid::new_v4();
    // Long enough to count in every number.
    let ago = |minutes| services::clock::now() - TimeDelta::minutes(minutes);
    let start = json!({ "book_id": book, "occurred_at": ago(2) });
    let foreign = id(&owner.start_with(start).await.ok());
    let update = json!({ "current_position": 10, "occurred_at": ago(0) });
    let _ = owner.update_with(foreign, update).await.ok();
    app.settled().await;

    // The same answer as for a session that nobody has.
    let body = |answer: Answer| {
        let mut body = answer.body.clone();
        assert!(!answer.headers.contains_key("etag"));
        let _ = answer.problem(404);
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
        let none = call(&thief, Uuid::now_v7()).await;
        assert_eq!(call(&thief, foreign).await, none, "{method} {path}");
    }
    // A name that is taken by somebody else gives nothing of theirs away.
    let taken = json!({ "book_id": book, "session_id": foreign });
    let answer = thief.start_with(taken).await;
    assert!(answer.status.is_client_error(), "{}", answer.body);
    assert!(!answer.body.to_string().contains(&owner.id.to_string()));
    // In a batch it is one bad item.
    let item = async |session: Uuid| {
        let updates = json!([{ "session_id": session, "current_position": 50 }]);
        let answer = thief.batch(updates).await.ok();
        assert_eq!(answer["success_count"], 0);
        assert_eq!(answer["failed_count"], 1);
        answer.to_string().replace(&session.to_string(), "")
    };
    assert_eq!(item(foreign).await, item(Uuid::now_v7()).await);

    // Lists and numbers are one's own.
    assert_eq!(thief.active().await.ok(), Value::Null);
    for query in [String::new(), format!("?book_id={book}")] {
        let history = thief.history(&query).await.ok();
        assert_eq!(
            (&history["sessions"], &history["total"]),
            (&json!([]), &json!(0))
        );
    }
    let nobody = app.reader();
    for path in ["daily", "weekly", "streak", "patterns"] {
        let numbers = async |reader: &Reader| {
            let path = format!("/stats/{path}");
            reader.call(Method::GET, &path, None).await.ok()
        };
        assert_eq!(numbers(&thief).await, numbers(&nobody).await, "{path}");
        assert_ne!(numbers(&thief).await, numbers(&owner).await, "{path}");
    }

    // Nor is it handed out to another, or erased by one.
    let export = thief.call(Method::GET, "/export", None).await.ok();
    assert_eq!(export["sessions"], json!([]));
    let path = format!("?confirm={}", owner.id);
    let _ = thief.call(Method::DELETE, &path, None).await.problem(422);
    assert_eq!(thief.erase().await.ok()["sessions"], 0);

    // Nothing of it has touched the owner's session.
    let session = owner.session(foreign).await.ok();
    assert_eq!(session["end_position"], 10);
    assert_eq!(session["is_active"], true);
}
