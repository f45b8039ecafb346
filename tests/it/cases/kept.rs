//! Repeats, parallel calls and queues that arrive after an erasure.

use super::*;

use futures::future::join_all;
use serde_json::json;
use tests::process::command;
use tests::reader::id;

#[tokio::test]
async fn start_that_is_sent_eight_times_at_once_is_one_session() {
    let app = App::start().await;
    let reader = app.reader();
    for begin in [clock::now(), minutes_ago(60 * 24)] {
        let start = json!({
            "session_id": id_of(begin), "book_id": Uuid::new_v4(), "occurred_at": begin,
        });
        let starts = join_all((0..8).map(|_| reader.start_with(start.clone()))).await;
        for response in starts {
            assert_eq!(response.status, 201, "{}", response.body);
            assert_eq!(id(&response.ok()), id_of_start(&start));
        }
    }
    app.settled().await;
    assert_eq!(reader.history("").await.ok()["total"], 2);
    invariants::check(&app).await;
}

fn id_of_start(start: &Value) -> Uuid {
    start["session_id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn fifty_parallel_updates_are_all_kept() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(60);
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": begin });
    let session = id(&reader.start_with(start).await.ok());
    let updates = (1..=50).map(|minute| {
        let update = json!({ "current_position": minute, "occurred_at": begin + minutes(minute) });
        reader.update_with(session, update)
    });
    for response in join_all(updates).await {
        assert_eq!(response.status, 200, "{}", response.body);
    }
    app.settled().await;
    let expected = json!({
        "version": 51, "active_seconds": 3_000, "end_position": 50, "is_active": true,
    });
    assert_fields(&reader.session(session).await.ok(), &expected);
    invariants::check(&app).await;
}

/// A device that was offline sends its queue after the reader's data was erased.
#[tokio::test]
async fn queue_that_arrives_after_an_erasure_brings_nothing_back() {
    let app = App::start().await;
    let begin = minutes_ago(60);
    let plan = Plan {
        sessions: vec![
            session(begin, 0, 1..=40),
            ended(session(begin, 45, 46..=50), begin + minutes(51)),
        ],
    };
    let first = [
        Call::Start(0),
        batch(0, 0..10),
        Call::Start(1),
        batch(1, 0..2),
    ];
    let told = Told::deliver(&app, &plan, &first).await;
    app.settled().await;
    let _ = told.reader.erase().await.ok();

    let late = [
        Call::Start(0),
        batch(0, 10..40),
        Call::End(1),
        batch(1, 2..5),
    ];
    for call in &late {
        let (method, path, body) = call.request(&plan, &told.ids, tests::facts::Device::PUNCTUAL);
        let response = told.reader.call(method, &path, Some(body)).await;
        let nothing = match call {
            Call::Batch(_) => response.body["success_count"] == 0,
            _ => response.status.is_client_error(),
        };
        assert!(nothing, "{call:?}: {} {}", response.status, response.body);
    }
    let replayed = command(&app.env)
        .args(["replay", "daily_stats", "--yes"])
        .output()
        .await
        .unwrap();
    println!("{}", String::from_utf8_lossy(&replayed.stderr));
    app.settled().await;
    let empty = json!([]);
    assert_eq!(told.reader.history("").await.ok()["sessions"], empty);
    assert_eq!(get(&told.reader, "/stats/daily").await["days"], empty);
    assert_eq!(told.reader.active().await.ok(), Value::Null);
    // A new session is recorded.
    let next = id(&told.reader.start(Uuid::new_v4()).await.ok());
    assert_eq!(id(&told.reader.active().await.ok()), next);
    invariants::check(&app).await;
}
