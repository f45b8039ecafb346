//! An export contains all data of the reader, and no data of other readers.

use std::io::{Read, Write};
use std::net::TcpStream;

use api::export::{ExportFormat, Exporter};
use eventlog::StoredEvent;
use eventlog::export::PageLimit;
use futures::TryStreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tests::app::SETTLE;
use tests::process::command;
use tests::random_history::write_random_histories;
use tests::reader::id;
use tests::{App, Reader, invariants, until};
use uuid::Uuid;

async fn text(app: &App, reader: &Reader, query: &str) -> (reqwest::header::HeaderMap, String) {
    let request = app.client.get(format!("{}/export{query}", app.url));
    let response = request.bearer_auth(&reader.token).send().await.unwrap();
    assert_eq!(response.status(), 200);
    (response.headers().clone(), response.text().await.unwrap())
}

/// A reader's events in the log, in the form of the export.
fn expected(log: &[StoredEvent], reader: &Reader) -> Vec<Value> {
    let mut events: Vec<(&StoredEvent, Value)> = log
        .iter()
        .map(|event| (event, serde_json::from_str(&event.payload).unwrap()))
        .filter(|(_, payload): &(_, Value)| payload["reader_id"] == reader.id.to_string())
        .collect();
    events.sort_by_key(|(event, _)| (event.session_id.clone(), event.sequence));
    let events = events.into_iter().map(|(event, payload)| {
        json!({
            "session_id": event.session_id, "sequence": event.sequence,
            "version": event.event_version, "data": payload,
        })
    });
    events.collect()
}

/// The events of an export, in order.
fn exported(export: &Value) -> Vec<Value> {
    let sessions = export["sessions"].as_array().unwrap().iter();
    let events = sessions.flat_map(|session| {
        let events = session["events"].as_array().unwrap().iter();
        events.map(|event| {
            json!({
                "session_id": session["session_id"], "sequence": event["sequence"],
                "version": event["version"], "data": event["data"],
            })
        })
    });
    events.collect()
}

#[tokio::test]
async fn export_equals_the_readers_events_in_the_log() {
    let app = App::start().await;
    write_random_histories(&app, 1..5).await;
    let log = invariants::read_log(&app.pool).await;
    let reader: Value = serde_json::from_str(&log[0].payload).unwrap();
    let reader = app.reader_with_id(reader["reader_id"].as_str().unwrap().parse().unwrap());

    let (headers, export) = text(&app, &reader, "").await;
    assert_eq!(headers["content-type"], "application/json");
    let file = headers["content-disposition"].to_str().unwrap();
    assert_eq!(file, "attachment; filename=\"reading-sessions.json\"");
    let export: Value = serde_json::from_str(&export).unwrap();
    assert_eq!(export["reader_id"], reader.id.to_string());
    let expected_events = expected(&log, &reader);
    assert!(expected_events.len() > 10);
    assert_eq!(exported(&export), expected_events);

    // The export of a reader without sessions is empty and complete.
    let (_, export) = text(&app, &app.reader(), "?format=json").await;
    let export: Value = serde_json::from_str(&export).unwrap();
    assert_eq!(export["sessions"], json!([]));

    // The operator command exports the same.
    let path = std::env::temp_dir().join(format!("export-{}.json", reader.id));
    let written = command(&app.env)
        .args(["reader", "export", &reader.id.to_string(), "--out"])
        .arg(&path)
        .output();
    assert!(written.await.unwrap().status.success());
    let export: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(exported(&export), expected_events);
    // The command does not overwrite an existing file.
    let again = command(&app.env)
        .args(["reader", "export", &reader.id.to_string(), "--out"])
        .arg(&path)
        .output();
    assert_eq!(again.await.unwrap().status.code(), Some(1));
    std::fs::remove_file(path).unwrap();
    let none = command(&app.env)
        .args(["reader", "export", &Uuid::new_v4().to_string()])
        .output();
    assert_eq!(none.await.unwrap().status.code(), Some(1));

    // After an erasure, the export is empty.
    let _ = reader.erase().await.ok();
    let (_, export) = text(&app, &reader, "").await;
    let export: Value = serde_json::from_str(&export).unwrap();
    assert_eq!(export["sessions"], json!([]));
}

#[tokio::test]
async fn csv_export_has_one_row_per_event_and_quotes_texts() {
    let app = App::start().await;
    let reader = app.reader();
    let start = json!({
        "book_id": Uuid::new_v4(), "start_position": 10.5, "device_type": "tablet",
        "locator": "a,b\r\n\"c\"", "time_zone": "Europe/Berlin",
        "book": { "title": "Me, \"Myself\"\nand I", "total_pages": 300 },
    });
    let session = id(&reader.start_with(start).await.ok());
    let _ = reader.update(session, 20.0).await.ok();
    let _ = reader.end(session, json!({})).await.ok();

    let (headers, csv) = text(&app, &reader, "?format=csv").await;
    let kind = headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/csv"), "{kind}");
    let rows = parsed(&csv);
    let column = |name: &str| rows[0].iter().position(|column| column == name).unwrap();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
    let cells = |name: &str| {
        rows[1..]
            .iter()
            .map(|row| row[column(name)].as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        cells("event"),
        ["SessionStarted", "PositionUpdated", "SessionEnded"]
    );
    assert_eq!(cells("position"), ["10.5", "20", "20"]);
    assert_eq!(cells("book_title"), ["Me, \"Myself\"\nand I", "", ""]);
    assert_eq!(cells("locator"), ["a,b\r\n\"c\"", "", ""]);
    assert_eq!(cells("applied"), ["", "true", ""]);
    assert_eq!(cells("end_reason"), ["", "", "finished"]);
    let _ = reader
        .call(Method::GET, "/export?format=xml", None)
        .await
        .problem(422);
}

#[tokio::test]
async fn csv_export_contains_no_formulas() {
    let app = App::start().await;
    let reader = app.reader();
    let title = "=HYPERLINK(\"http://example.com\",\"Title\")";
    let start = json!({
        "book_id": Uuid::new_v4(), "locator": "@SUM(1)", "device_id": "-5",
        "book": { "title": title, "author": "+ Plus" },
    });
    let session = id(&reader.start_with(start).await.ok());
    let update = json!({ "current_position": 20, "locator": " \"=1+1" });
    let _ = reader.update_with(session, update).await.ok();

    let (_, csv) = text(&app, &reader, "?format=csv").await;
    let rows = parsed(&csv);
    let cell = |row: usize, name: &str| {
        let column = rows[0].iter().position(|column| column == name).unwrap();
        rows[row][column].as_str()
    };
    assert_eq!(cell(1, "book_title"), format!("'{title}"));
    assert_eq!(cell(1, "book_author"), "'+ Plus");
    assert_eq!(cell(1, "locator"), "'@SUM(1)");
    assert_eq!(cell(1, "device_id"), "-5");
    assert_eq!(cell(2, "locator"), "' \"=1+1");
    // The JSON contains the texts unchanged.
    let (_, export) = text(&app, &reader, "").await;
    let export: Value = serde_json::from_str(&export).unwrap();
    let events = exported(&export);
    assert_eq!(events[0]["data"]["book"]["title"], title);
    assert_eq!(events[0]["data"]["locator"], "@SUM(1)");
}

/// The rows and cells of a CSV text (RFC 4180).
fn parsed(csv: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut chars = csv.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {
                assert_eq!(chars.next(), Some('\n'));
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            other => cell.push(other),
        }
    }
    assert!(
        row.is_empty() && cell.is_empty(),
        "the last row ends with CRLF"
    );
    rows
}

/// Inserts sessions directly into the log, each with a start and nine updates.
async fn many_sessions(app: &App, reader: &Reader, count: i32) {
    sqlx::query(
        "insert into events
            (aggregate_id, sequence, aggregate_type, event_type, event_version, payload, metadata)
        select overlay($3 placing lpad(n::text, 12, '0') from 25), k, 'reading_session',
            case k when 1 then 'SessionStarted' else 'PositionUpdated' end, '1',
            case k
                when 1 then json_build_object('type', 'SessionStarted', 'reader_id', $1,
                    'book_id', $1, 'started_at', now(), 'position', 1)
                else json_build_object('type', 'PositionUpdated', 'reader_id', $1,
                    'occurred_at', now(), 'position', k, 'applied', true, 'previous_at', now(),
                    'previous_position', k - 1, 'credited_ms', 1000, 'active_ms', k * 1000,
                    'furthest_position', k)
            end, '{}'
        from generate_series(1, $2) as n, generate_series(1, 10) as k
        order by n, k",
    )
    .bind(reader.id)
    .bind(count)
    .bind(Uuid::now_v7().to_string())
    .execute(&app.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn export_with_large_events_needs_the_memory_of_a_small_page() {
    // Pages have half a megabyte, and the event that exceeds it.
    const MAX_CHUNK: usize = 700_000;
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    // JSON has six bytes for each of these characters.
    let locator = "\u{1}".repeat(8_000);
    for position in 1..=40 {
        let update = json!({ "current_position": position, "locator": locator });
        let _ = reader.update_with(session, update).await.ok();
    }
    for format in ExportFormat::ALL {
        let mut chunks = Exporter::new(app.pool.clone()).stream(reader.id.into(), format);
        let mut total = 0;
        while let Some(chunk) = chunks.try_next().await.unwrap() {
            assert!(chunk.len() < MAX_CHUNK, "{} bytes", chunk.len());
            total += chunk.len();
        }
        assert!(total > 300_000, "{total} bytes");
    }
    let log = invariants::read_log(&app.pool).await;
    let (_, export) = text(&app, &reader, "").await;
    let export: Value = serde_json::from_str(&export).unwrap();
    assert_eq!(exported(&export), expected(&log, &reader));

    // An event that is larger than the page is a page.
    let page = |events, bytes| {
        let limit = PageLimit { events, bytes };
        eventlog::export::after(&app.pool, reader.id.into(), None, limit)
    };
    assert_eq!(page(1_000, 1).await.unwrap().len(), 1);
    assert_eq!(page(3, 1_000_000).await.unwrap().len(), 3);
    assert_eq!(page(1_000, 100_000).await.unwrap().len(), 4);
}

#[tokio::test]
async fn slow_export_is_complete_and_holds_no_connection() {
    let app = App::with_settings(|settings| settings.database.database_pool_size = 1).await;
    let reader = app.reader();
    many_sessions(&app, &reader, 3_000).await;
    let log = invariants::read_log(&app.pool).await;
    let (_, export) = text(&app, &reader, "").await;
    assert_eq!(
        exported(&serde_json::from_str(&export).unwrap()),
        expected(&log, &reader)
    );

    // Clients that request the export and read only its first bytes.
    let address = app.url.strip_prefix("http://").unwrap();
    let address = address.split_once('/').unwrap().0.to_owned();
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut connection = TcpStream::connect(&address).unwrap();
        let request = format!(
            "GET /api/v1/reading-sessions/export HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
            reader.token
        );
        connection.write_all(request.as_bytes()).unwrap();
        let mut start = [0; 64];
        connection = tokio::task::spawn_blocking(move || {
            connection.read_exact(&mut start).unwrap();
            assert!(start.starts_with(b"HTTP/1.1 200"));
            connection
        })
        .await
        .unwrap();
        slow.push(connection);
    }
    // The only Postgres connection stays available to other requests.
    let other = app.reader();
    let session = id(&other.start(Uuid::new_v4()).await.ok());
    let _ = other.session(session).await.ok();
    let (_, export) = text(&app, &other, "").await;
    assert!(export.contains(&session.to_string()));
}

#[tokio::test]
async fn export_of_an_operator_who_does_not_read_it_to_its_end_is_recorded_as_failed() {
    let app = App::start().await;
    let reader = app.reader();
    many_sessions(&app, &reader, 6_000).await;
    let outcome = async || -> String {
        sqlx::query_scalar("select outcome from audit order by id desc limit 1")
            .fetch_one(&app.pool)
            .await
            .unwrap()
    };
    let url = format!(
        "{}/api/v1/admin/readers/{}/export",
        app.admin_url, reader.id
    );
    let request = app.client.post(url).bearer_auth(app.operator().token);
    let mut response = request.send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    assert_eq!(outcome().await, "started");
    drop(response);
    until("the action ends", SETTLE, async || {
        outcome().await == "failed"
    })
    .await;
}
