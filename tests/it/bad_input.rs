//! Bad input returns a 4xx problem with the reason, and appends no event.

use reqwest::Method;
use serde_json::{Value, json};
use tests::app::{SECRET, token_until};
use tests::reader::id;
use tests::{App, invariants};
use uuid::Uuid;

/// Sends a body unchanged.
async fn raw(app: &App, token: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
    let method = if path.contains("start") || path.contains("batch") {
        Method::POST
    } else {
        Method::PUT
    };
    let response = app
        .client
        .request(method, format!("{}{path}", app.url))
        .bearer_auth(token)
        .header("content-type", content_type)
        .body(body.to_vec())
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16();
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    (status, response.json().await.unwrap())
}

#[tokio::test]
async fn invalid_body_is_rejected_and_appends_nothing() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let update = format!("/{session}/update");
    let end = format!("/{session}/end");
    let book = Uuid::new_v4();
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let cases: &[(&str, &str, u16)] = &[
        (&update, "", 400),
        (&update, "{", 400),
        (&update, "{\"current_position\": NaN}", 400),
        (&update, "{\"current_position\": 1} x", 400),
        (&update, &deep, 422),
        (&update, "{}", 422),
        (&update, "[]", 422),
        (&update, "null", 422),
        (&update, "{\"current_position\": null}", 422),
        (&update, "{\"current_position\": true}", 422),
        (&update, "{\"current_position\": \"NaN\"}", 422),
        (&update, "{\"current_position\": \"inf\"}", 422),
        (&update, "{\"current_position\": -0.1}", 422),
        (&update, "{\"current_position\": 100.1}", 422),
        (&update, "{\"current_position\": 100.00005}", 422),
        (&update, "{\"current_position\": -0.00005}", 422),
        (&update, "{\"current_position\": 1e999}", 400),
        (&update, "{\"current_position\": 18446744073709551615}", 422),
        (
            &update,
            "{\"current_position\": 1, \"current_position\": 2}",
            422,
        ),
        (
            &update,
            "{\"current_position\": 1, \"occurred_at\": \"yesterday\"}",
            422,
        ),
        (
            &update,
            "{\"current_position\": 1, \"occurred_at\": \"1999-01-01T00:00:00Z\"}",
            422,
        ),
        (&end, "{\"end_position\": 101}", 422),
        (&end, "{\"end_position\": []}", 422),
        ("/start", "{}", 422),
        ("/start", "{\"book_id\": 7}", 422),
        ("/start", "{\"book_id\": \"seven\"}", 400),
        ("/batch-update", "{}", 422),
        ("/batch-update", "{\"updates\": {}}", 422),
        ("/batch-update", "{\"updates\": []}", 422),
    ];
    for (path, body, expected) in cases {
        let (status, problem) = raw(
            &app,
            &reader.token,
            path,
            "application/json",
            body.as_bytes(),
        )
        .await;
        assert_eq!(status, *expected, "{path} {body}: {problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
    let starts = [
        json!({ "start_position": 200 }),
        json!({ "device_type": "toaster" }),
        json!({ "session_id": Uuid::new_v4() }),
        json!({ "session_id": "018f4c2e-7c1a-7000-8000-000000000001" }),
    ];
    for extra in starts {
        let mut body = json!({ "book_id": book });
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let problem = reader.start_with(body.clone()).await;
        let errors = problem.body["errors"].clone();
        let _ = problem.problem(422);
        let field = extra.as_object().unwrap().keys().next().unwrap();
        let named = errors[0]["field"].as_str().unwrap();
        assert!(
            named.contains(field.as_str()) || field == "start_position",
            "{errors} for {body}"
        );
    }
    // Invalid UTF-8, a wrong content type, and a body that is too large.
    let (status, _) = raw(
        &app,
        &reader.token,
        &update,
        "application/json",
        b"{\"current_position\": \"\xff\"}",
    )
    .await;
    assert_eq!(status, 400);
    let (status, _) = raw(&app, &reader.token, &update, "text/plain", b"{}").await;
    assert_eq!(status, 415);
    let large = vec![b' '; 64 * 1024 + 1];
    let (status, _) = raw(&app, &reader.token, &update, "application/json", &large).await;
    assert_eq!(status, 413);

    assert_eq!(
        invariants::read_log(&app.pool).await.len(),
        1,
        "only the start is in the log"
    );
}

#[tokio::test]
async fn unknown_fields_are_ignored_as_in_the_original() {
    let app = App::start().await;
    let reader = app.reader();
    let start = json!({ "book_id": Uuid::new_v4(), "start_position": "5", "unknown": true });
    let session = id(&reader.start_with(start).await.ok());
    let update = json!({ "current_position": "42", "unknown": true });
    let updated = reader.update_with(session, update).await.ok();
    assert_eq!(updated["end_position"], 42);
}

#[tokio::test]
async fn positions_are_rounded_before_their_range_is_checked() {
    let app = App::start().await;
    let reader = app.reader();
    let book = Uuid::new_v4();
    let start = json!({ "book_id": book, "start_position": -1e-13 });
    let started = reader.start_with(start).await.ok();
    assert_eq!(started["start_position"], 0);
    let session = id(&started);
    for (sent, position) in [
        (json!(100.000_000_000_000_01), json!(100)),
        (json!("-1e-13"), json!(0)),
        (json!(-0.0), json!(0)),
        (json!("100.00000000000001"), json!(100)),
        (json!(33.333_333_333), json!(33.3333)),
    ] {
        let update = json!({ "current_position": sent });
        let updated = reader.update_with(session, update).await.ok();
        assert_eq!(updated["end_position"], position, "{sent}");
    }
    let batch = json!([{ "session_id": session, "current_position": 100.000_000_000_000_01 }]);
    assert_eq!(reader.batch(batch).await.ok()["success_count"], 1);
    let end = json!({ "end_position": 100.000_000_000_000_01 });
    assert_eq!(reader.end(session, end).await.ok()["end_position"], 100);
    invariants::check(&app).await;
}

#[tokio::test]
async fn unknown_paths_methods_and_ids_are_rejected() {
    let app = App::start().await;
    let reader = app.reader();
    let unknown = Uuid::now_v7();
    assert_eq!(
        reader.session(unknown).await.problem(404),
        "Reading session not found"
    );
    assert_eq!(
        reader.update(unknown, 1.0).await.problem(404),
        "Reading session not found"
    );
    assert_eq!(
        reader.end(unknown, json!({})).await.problem(404),
        "Reading session not found"
    );
    let _ = reader
        .call(Method::GET, "/not-a-uuid", None)
        .await
        .problem(422);
    let _ = reader
        .call(Method::PUT, "/not-a-uuid/end", Some(json!({})))
        .await
        .problem(422);
    let _ = reader.call(Method::GET, "/a/b/c", None).await.problem(404);
    let response = reader.call(Method::DELETE, "/active", None).await;
    assert!(response.headers.contains_key("allow"));
    let _ = response.problem(405);
    for query in [
        "?page_size=0",
        "?page_size=101",
        "?page_size=x",
        "?limit=-1",
    ] {
        let _ = reader.history(query).await.problem(422);
    }
    assert_eq!(
        reader.history("?book_id=x").await.problem(400),
        "Invalid book_id format: x"
    );
    for cursor in ["x", "AAAA", "%00", "e30"] {
        let response = reader.history(&format!("?cursor={cursor}")).await;
        assert_eq!(response.problem_code(400), "invalid_cursor");
    }
    for query in ["?days=0", "?days=367", "?days=all"] {
        let path = format!("/stats/daily{query}");
        let _ = reader.call(Method::GET, &path, None).await.problem(422);
    }
    assert!(invariants::read_log(&app.pool).await.is_empty());
}

#[tokio::test]
async fn session_of_another_reader_returns_404() {
    let app = App::start().await;
    let owner = app.reader();
    let session = id(&owner.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    let other = app.reader();
    let body = |response: tests::ApiResponse| {
        let mut body = response.body.clone();
        let _ = response.problem(404);
        body["request_id"] = Value::Null;
        body
    };
    let none = body(other.session(Uuid::now_v7()).await);
    assert_eq!(body(other.session(session).await), none);
    assert_eq!(body(other.update(session, 1.0).await), none);
    assert_eq!(body(other.end(session, json!({})).await), none);
    assert_eq!(other.active().await.ok(), Value::Null);
    assert_eq!(other.history("").await.ok()["sessions"], json!([]));
    assert_eq!(other.days().await.ok()["days"], json!([]));
    assert_eq!(invariants::read_log(&app.pool).await.len(), 1);
}

#[tokio::test]
async fn missing_or_invalid_token_returns_401() {
    let app = App::start().await;
    let user = Uuid::new_v4();
    let now = eventlog::clock::now();
    let good = token_until(user, now + chrono::TimeDelta::minutes(1));
    let expired = token_until(user, now - chrono::TimeDelta::hours(1));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.");
    // {"alg":"HS512","typ":"JWT"}
    let other_algorithm = format!("eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.{claims}.{signature}");
    let truncated = format!("{header}.{claims}");
    let other_secret = {
        let mut auth = tests::app::auth();
        auth.jwt_secret = Some(SECRET.to_uppercase().into());
        let until = now.timestamp() + 60;
        api::auth::issue_token(
            &auth.secret().unwrap(),
            &user.to_string(),
            api::auth::AdminAccess::None,
            &auth.claims(),
            until,
        )
        .unwrap()
    };
    let call = async |authorization: Option<String>| {
        let mut request = app.client.get(format!("{}/active", app.url));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let challenge = response.headers().get("www-authenticate");
        let challenge = challenge.map(|challenge| challenge.to_str().unwrap().to_owned());
        let body: Value = response.json().await.unwrap();
        (status, body["code"].clone(), challenge)
    };
    let challenge = |text: &str| Some(text.to_owned());
    assert_eq!(call(Some(format!("Bearer {good}"))).await.0, 200);
    assert_eq!(call(Some(format!("bearer {good}"))).await.0, 200);
    for missing in [
        None,
        Some(String::new()),
        Some(good.clone()),
        Some(format!("Basic {good}")),
    ] {
        assert_eq!(
            call(missing).await,
            (401, json!("missing_token"), challenge("Bearer"))
        );
    }
    for (bad, code) in [
        (expired, "token_expired"),
        (forged, "invalid_token"),
        (unsigned, "invalid_token"),
        (other_algorithm, "invalid_token"),
        (truncated, "invalid_token"),
        (other_secret, "invalid_token"),
        ("x".to_owned(), "invalid_token"),
    ] {
        let response = call(Some(format!("Bearer {bad}"))).await;
        let expected = challenge("Bearer error=\"invalid_token\"");
        assert_eq!(response, (401, json!(code), expected), "{bad}");
    }
    assert!(invariants::read_log(&app.pool).await.is_empty());
}
