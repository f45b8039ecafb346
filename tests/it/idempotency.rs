//! I2: a command with an `Idempotency-Key` takes effect once, and every repeat
//! gets the first answer.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use services::config::Role;
use tests::reader::id;
use tests::{Answer, App, Reader, check};
use uuid::Uuid;

async fn keyed(reader: &Reader, method: Method, path: &str, key: &str, body: &Value) -> Answer {
    let headers = [("idempotency-key", key)];
    let body = Some(body.clone());
    reader.call_with(method, path, &headers, body).await
}

/// What a client sees of an answer, apart from the request's id.
fn seen(answer: &Answer) -> (u16, String, String, &Value) {
    (
        answer.status.as_u16(),
        answer.header("etag").to_owned(),
        answer.header("x-global-position").to_owned(),
        &answer.body,
    )
}

#[tokio::test]
async fn every_repeated_command_gets_its_first_answer() {
    let app = App::start().await;
    let reader = app.reader();
    let start = json!({ "book_id": Uuid::new_v4() });
    let first = keyed(&reader, Method::POST, "/start", "start", &start).await;
    let session = id(&first.body);
    let commands = [
        (
            Method::PUT,
            format!("/{session}/update"),
            json!({ "current_position": 10 }),
        ),
        (
            Method::POST,
            "/batch-update".to_owned(),
            json!({ "updates": [
                { "session_id": session, "current_position": 20 },
                { "session_id": Uuid::now_v7(), "current_position": 20 },
            ] }),
        ),
        (
            Method::PUT,
            format!("/{session}/end"),
            json!({ "end_position": 30 }),
        ),
    ];
    let mut answers = vec![first];
    for (method, path, body) in &commands {
        let answer = keyed(&reader, method.clone(), path, path, body).await;
        assert!(answer.status.is_success(), "{}", answer.body);
        assert_eq!(answer.header("idempotent-replayed"), "");
        answers.push(answer);
    }
    let log = check::log(&app.pool).await.len();
    assert_eq!(log, 4);

    // Long after, when the session has ended.
    let again = keyed(&reader, Method::POST, "/start", "start", &start).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(seen(&again), seen(&answers[0]));
    for ((method, path, body), first) in commands.iter().zip(&answers[1..]) {
        let again = keyed(&reader, method.clone(), path, path, body).await;
        assert_eq!(again.header("idempotent-replayed"), "true", "{path}");
        assert_eq!(seen(&again), seen(first), "{path}");
    }
    assert_eq!(check::log(&app.pool).await.len(), log);
}

#[tokio::test]
async fn a_hundred_parallel_sends_to_two_processes_make_one_event_and_one_answer() {
    let app = App::start().await;
    let other = app.beside(&[Role::Api]).await;
    let here = app.reader();
    let there = here.at(&other.url);
    let session = id(&here.start(Uuid::new_v4()).await.ok());
    let path = format!("/{session}/update");
    let body = json!({ "current_position": 42 });

    let sends = (0..100).map(|i| {
        let reader = if i % 2 == 0 { &here } else { &there };
        let (path, body) = (&path, &body);
        async move {
            for _ in 0..1_000 {
                let answer = keyed(reader, Method::PUT, path, "once", body).await;
                if answer.status != 409 {
                    return answer;
                }
                // In flight: it says when to ask again.
                assert_eq!(answer.header("retry-after"), "1");
            }
            panic!("a command stays in flight");
        }
    });
    let answers = join_all(sends).await;
    for answer in &answers {
        assert_eq!(seen(answer), seen(&answers[0]));
        assert_eq!(answer.status, 200);
    }
    let replayed = |answer: &&Answer| answer.header("idempotent-replayed") == "true";
    assert_eq!(answers.iter().filter(replayed).count(), 99);
    assert_eq!(check::log(&app.pool).await.len(), 2);
    check::everything(&app).await;
}

#[tokio::test]
async fn an_answer_survives_a_restart() {
    let app = App::start().await;
    let id = Uuid::new_v4();
    let start = json!({ "book_id": Uuid::new_v4() });
    let first = keyed(&app.reader_with_id(id), Method::POST, "/start", "k", &start).await;
    let (stack, corner) = (app.stack.clone(), app.corner.clone());
    app.stop().await;
    let settings = tests::app::settings(&corner, &Role::ALL);
    let app = App::run(stack, corner, &settings).await;
    let again = keyed(&app.reader_with_id(id), Method::POST, "/start", "k", &start).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(seen(&again), seen(&first));
}

#[tokio::test]
async fn a_key_is_good_for_one_command_of_one_reader() {
    let app = App::start().await;
    let reader = app.reader();
    let start = json!({ "book_id": Uuid::new_v4() });
    let session = keyed(&reader, Method::POST, "/start", "k", &start).await;
    let session = id(&session.ok());

    let other_body = json!({ "book_id": Uuid::new_v4() });
    let answer = keyed(&reader, Method::POST, "/start", "k", &other_body).await;
    assert_eq!(answer.body["errors"][0]["field"], "idempotency-key");
    let _ = answer.problem(422);
    let other_path = format!("/{session}/end");
    let answer = keyed(&reader, Method::PUT, &other_path, "k", &start).await;
    let _ = answer.problem(422);
    assert_eq!(check::log(&app.pool).await.len(), 1);

    let other_reader = app.reader();
    let answer = keyed(&other_reader, Method::POST, "/start", "k", &start).await;
    assert_eq!(answer.header("idempotent-replayed"), "");
    assert_ne!(id(&answer.ok()), session);
}

#[tokio::test]
async fn a_refused_command_stays_refused() {
    let app = App::start().await;
    let reader = app.reader();
    let own = domain::SessionId::at(services::clock::now()).uuid();
    let path = format!("/{own}/update");
    let update = json!({ "current_position": 5 });
    let send = async |key: &str, body: &Value| keyed(&reader, Method::PUT, &path, key, body).await;
    let first = send("k", &update).await;
    let detail = first.body["detail"].clone();
    assert_eq!(first.header("idempotent-replayed"), "");
    let _ = first.problem(404);

    // Now it could be taken; but it was decided.
    let start = json!({ "book_id": Uuid::new_v4(), "session_id": own });
    let _ = reader.start_with(start).await.ok();
    let again = send("k", &update).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.body["detail"], detail);
    let _ = again.problem(404);
    let other = send("k", &json!({ "current_position": 6 })).await;
    let _ = other.problem(422);
    assert_eq!(check::log(&app.pool).await.len(), 1);
    // Another key is another command.
    assert_eq!(send("other", &update).await.ok()["applied"], true);
}

#[tokio::test]
async fn bad_input_leaves_its_key_free() {
    let app = App::start().await;
    let reader = app.reader();
    let bad = json!({ "book_id": Uuid::new_v4(), "start_position": 101 });
    let _ = keyed(&reader, Method::POST, "/start", "k", &bad)
        .await
        .problem(422);
    let good = json!({ "book_id": Uuid::new_v4(), "start_position": 100 });
    let _ = keyed(&reader, Method::POST, "/start", "k", &good)
        .await
        .ok();
}

#[tokio::test]
async fn a_start_that_is_repeated_by_its_id_tells_where_the_first_one_is() {
    let app = App::start().await;
    let reader = app.reader();
    let own = domain::SessionId::at(services::clock::now()).uuid();
    let start = json!({ "book_id": Uuid::new_v4(), "session_id": own });
    let first = reader.start_with(start.clone()).await;
    let again = reader.start_with(start.clone()).await;
    assert_eq!(seen(&again), seen(&first));
    for _ in 0..2 {
        let keyed = keyed(&reader, Method::POST, "/start", "k", &start).await;
        assert_eq!(seen(&keyed), seen(&first));
    }
    assert_eq!(check::log(&app.pool).await.len(), 1);
}

#[tokio::test]
async fn a_key_has_1_to_255_visible_characters() {
    let app = App::start().await;
    let reader = app.reader();
    let start = json!({ "book_id": Uuid::new_v4() });
    for bad in [String::new(), "a key".to_owned(), "k".repeat(256)] {
        let answer = keyed(&reader, Method::POST, "/start", &bad, &start).await;
        let _ = answer.problem(422);
    }
    assert!(check::log(&app.pool).await.is_empty());
    let longest = "k".repeat(255);
    let answer = keyed(&reader, Method::POST, "/start", &longest, &start).await;
    let _ = answer.ok();
}
