//! Calls that delete or export refuse what they do not know. A filter that they
//! ignored would delete or export everything.

use reqwest::Method;
use serde_json::{Value, json};
use tests::reader::id;
use tests::{ApiResponse, App, invariants};
use uuid::Uuid;

#[track_caller]
fn assert_refused(response: ApiResponse, code: &str) {
    assert_eq!(response.problem_code(400), code);
}

#[tokio::test]
async fn erasure_with_an_unknown_filter_erases_nothing() {
    let app = App::start().await;
    let reader = app.reader();
    let book = Uuid::new_v4();
    let session = id(&reader.start(book).await.ok());
    let confirm = format!("?confirm={}", reader.id);
    for filter in [
        format!("session_id={session}"),
        "dry_run".to_owned(),
        "dry_run=true".to_owned(),
        format!("BOOK_ID={book}"),
        "limit=1".to_owned(),
    ] {
        for query in [
            format!("{confirm}&{filter}"),
            format!("?{filter}&{}", &confirm[1..]),
        ] {
            let response = reader.call(Method::DELETE, &query, None).await;
            let field = response.body["errors"][0]["field"].as_str().unwrap();
            assert!(filter.starts_with(field), "{field} for {query}");
            assert_refused(response, "unknown_parameter");
        }
    }
    for body in [json!({ "book_id": book }), json!([session]), Value::Null] {
        let response = reader.call(Method::DELETE, &confirm, Some(body)).await;
        assert_refused(response, "unexpected_body");
    }
    assert_eq!(invariants::read_log(&app.pool).await.len(), 1);
    let _ = reader.session(session).await.ok();

    // Some HTTP clients send an empty object with every request.
    let empty = Some(json!({}));
    let erased = reader.call(Method::DELETE, &confirm, empty).await.ok();
    assert_eq!(erased["sessions"], 1);
}

#[tokio::test]
async fn export_with_an_unknown_filter_is_refused() {
    let app = App::start().await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    for query in [
        "?book_id=0193e5a0-0000-7000-8000-000000000042",
        "?format=csv&from=2026-01-01",
        "?Format=csv",
        "?min_position=1",
    ] {
        let path = format!("/export{query}");
        let response = reader.call(Method::GET, &path, None).await;
        assert_refused(response, "unknown_parameter");
    }
    for query in ["", "?", "?format=json", "?format=csv"] {
        let path = format!("/export{query}");
        let response = reader.call(Method::GET, &path, None).await;
        assert_eq!(response.status, 200, "{query}");
    }
}

#[tokio::test]
async fn admin_calls_with_an_unknown_filter_do_nothing() {
    let app = App::start().await;
    let operator = app.operator();
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    app.settled().await;
    for path in [
        "/reading-sessions/cleanup",
        "/jobs/partitions/run",
        "/cache/warmup",
        "/projections/history/pause",
        "/projections/history/resume",
        "/projections/history/replay",
        "/dead-letters/history.1/retry",
        "/dead-letters/history.1/discard",
    ] {
        for query in ["?dry_run=true", "?hours=48"] {
            let path = format!("{path}{query}");
            let response = operator.call(Method::POST, &path, None).await;
            assert_refused(response, "unknown_parameter");
        }
        let body = Some(json!({ "hours": 48 }));
        let response = operator.call(Method::POST, path, body).await;
        assert_refused(response, "unexpected_body");
    }
    let projections = operator.call(Method::GET, "/projections", None).await.ok();
    let mut projections = projections["projections"].as_array().unwrap().iter();
    assert!(
        projections
            .all(|projection| projection["state"] == "running" && projection["replay"].is_null())
    );
    invariants::check(&app).await;
}
