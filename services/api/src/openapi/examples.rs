//! Examples of all request and response bodies.

use serde_json::{Value, json};

use super::common::operations;

/// Adds the examples to the document.
pub fn add(document: &mut Value) {
    for operation in operations(document) {
        let id = operation["operationId"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if let Some(request) = request(&id) {
            operation["requestBody"]["content"]["application/json"]["example"] = request;
        }
        if id == "export" {
            operation["responses"]["200"]["content"]["text/csv"]["example"] = CSV.into();
        }
        for status in ["200", "201", "202"] {
            if let Some(content) = operation["responses"].get_mut(status)
                && let Some(response) = response(&id)
            {
                content["content"]["application/json"]["example"] = response;
            }
        }
    }
}

const CSV: &str = "\
    session_id,sequence,event,occurred_at,recorded_at,book_id,book_title,book_author,\
    book_total_pages,position,locator,applied,active_seconds,end_reason,device_type,device_id,\
    time_zone\r\n\
    0193e5a0-6d1c-7c3a-9a51-0e6c5e1f7a10,2,PositionUpdated,2026-03-07T20:34:00.000Z,\
    2026-03-07T20:34:00.012Z,,,,,12.5,epubcfi(/6/14!/4/2/8:0),true,1980,,,,Europe/Berlin\r\n";

/// The names of the days in the weekly statistics, from Saturday backwards.
const NAMES: [&str; 7] = ["Sat", "Fri", "Thu", "Wed", "Tue", "Mon", "Sun"];

const SESSION: &str = "0193e5a0-6d1c-7c3a-9a51-0e6c5e1f7a10";
const ENDED: &str = "0193e59f-11b2-7d1e-8c1f-7f0a3b5c9d2e";

fn request(operation: &str) -> Option<Value> {
    let request = match operation {
        "start" => json!({
            "book_id": "0193e5a0-0000-7000-8000-000000000042",
            "start_position": 10,
            "device_type": "tablet",
            "time_zone": "Europe/Berlin",
            "book": { "title": "Middlemarch", "author": "George Eliot", "total_pages": 800 },
        }),
        "update" => json!({ "current_position": 12.5, "locator": "epubcfi(/6/14!/4/2/8:0)" }),
        "end" => json!({ "end_position": 25 }),
        "batchUpdate" => json!({
            "updates": [
                { "session_id": SESSION, "current_position": 20 },
                { "session_id": ENDED, "current_position": 40 },
            ]
        }),
        "sync" => json!({
            "sent_at": "2026-03-07T20:40:00Z",
            "sessions": [{
                "session_id": ENDED,
                "book_id": "0193e5a0-0000-7000-8000-000000000042",
                "started_at": "2026-03-07T20:00:00Z",
                "ended_at": "2026-03-07T20:34:00Z",
                "start_position": 10,
                "observations": [
                    { "current_position": 12.5, "occurred_at": "2026-03-07T20:02:00Z" },
                    { "current_position": 25, "occurred_at": "2026-03-07T20:33:00Z" },
                ],
                "device_type": "tablet",
                "time_zone": "Europe/Berlin",
            }],
        }),
        "correct" => json!({ "ended_at": "2026-03-07T20:34:00Z" }),
        _ => return None,
    };
    Some(request)
}

fn response(operation: &str) -> Option<Value> {
    let response = match operation {
        "start" => {
            let mut session = session(10.0);
            for field in [
                "duration_minutes",
                "duration_seconds",
                "active_seconds",
                "pages_read",
            ] {
                session[field] = json!(0);
            }
            session["last_activity_at"] = session["started_at"].clone();
            session["version"] = json!(1);
            session["locator"] = Value::Null;
            session
        }
        "update" => {
            let mut session = session(12.5);
            session["applied"] = json!(true);
            session
        }
        "session" => session(12.5),
        "active" => {
            let mut session = session(12.5);
            session["stale"] = json!(false);
            session
        }
        "end" | "correct" => ended(),
        "batchUpdate" => batch_result(),
        "sync" => json!({
            "results": [{
                "session_id": ENDED,
                "success": true,
                "session": ended(),
                "new_observations": 2,
                "refused": [],
                "code": null,
                "error": null,
            }],
        }),
        "history" => json!({
            "sessions": [ended()],
            "total": 1,
            "page": null,
            "page_size": 20,
            "has_next": false,
            "next_cursor": null,
        }),
        "dailyStats" => json!({
            "days": [{ "date": "2026-03-01", "sessions": 2, "active_minutes": 34, "active_seconds": 2_071, "progress": 15 }]
        }),
        "weeklyStats" => json!({
            "days": (0..7)
                .map(|ago| {
                    let read = i64::from(ago == 0);
                    json!({
                        "date": format!("2026-03-{:02}", 7 - ago),
                        "day": NAMES[ago],
                        "minutes": 34 * read,
                        "seconds": 2_071 * read,
                        "sessions": 2 * read,
                        "progress": 15 * read,
                    })
                })
                .collect::<Vec<_>>()
        }),
        "streak" => json!({
            "current": 3, "longest": 12, "total_reading_days": 21, "days_without_reading": 9
        }),
        "patterns" => json!({
            "weekdays": (1..=7)
                .map(|weekday| {
                    let read = i64::from(weekday == 7);
                    json!({
                        "weekday": weekday,
                        "active_minutes": 34 * read,
                        "active_seconds": 2_071 * read,
                        "sessions": 2 * read,
                    })
                })
                .collect::<Vec<_>>(),
            "hours": [
                { "weekday": 7, "hour": 8, "active_minutes": 12, "active_seconds": 745, "sessions": 1 },
                { "weekday": 7, "hour": 22, "active_minutes": 22, "active_seconds": 1_326, "sessions": 1 },
            ],
        }),
        "export" => json!({
            "reader_id": "0193e5a0-0000-7000-8000-000000000001",
            "exported_at": "2026-03-07T20:40:00Z",
            "sessions": [{
                "session_id": SESSION,
                "events": [{
                    "sequence": 1,
                    "version": "1",
                    "recorded_at": "2026-03-07T20:00:00.012Z",
                    "data": {
                        "type": "SessionStarted",
                        "reader_id": "0193e5a0-0000-7000-8000-000000000001",
                        "book_id": "0193e5a0-0000-7000-8000-000000000042",
                        "started_at": "2026-03-07T20:00:00Z",
                        "position": 10,
                    },
                }],
            }],
        }),
        "erase" => json!({ "sessions": 12, "erased_at": "2026-03-07T20:45:00Z" }),
        _ => return None,
    };
    Some(response)
}

fn batch_result() -> Value {
    let refusal = format!("Session {ENDED} not found or not active");
    json!({
        "success_count": 1,
        "failed_count": 1,
        "errors": [refusal],
        "results": [
            { "session_id": SESSION, "success": true, "applied": true, "version": 35, "code": null, "error": null },
            {
                "session_id": ENDED,
                "success": false,
                "applied": false,
                "version": null,
                "code": "session_inactive",
                "error": refusal,
            },
        ],
    })
}

fn ended() -> Value {
    let mut session = session(25.0);
    session["ended_at"] = session["last_activity_at"].clone();
    session["is_active"] = json!(false);
    session["end_reason"] = json!("finished");
    session["version"] = json!(36);
    session["locator"] = Value::Null;
    session
}

fn session(position: f64) -> Value {
    // One percent of the 800 pages is 8 pages.
    let pages = if position > 20.0 { 120 } else { 20 };
    json!({
        "id": SESSION,
        "user_id": "0193e5a0-0000-7000-8000-000000000001",
        "book_id": "0193e5a0-0000-7000-8000-000000000042",
        "started_at": "2026-03-07T20:00:00Z",
        "ended_at": null,
        "duration_minutes": 34,
        "start_position": 10,
        "end_position": position,
        "pages_read": pages,
        "device_type": "tablet",
        "is_active": true,
        "progress_delta": position - 10.0,
        "duration_seconds": 2_040,
        "active_seconds": 1_980,
        "furthest_position": position,
        "end_reason": null,
        "last_activity_at": "2026-03-07T20:34:00Z",
        "version": 34,
        "locator": "epubcfi(/6/14!/4/2/8:0)",
        "book": { "title": "Middlemarch", "author": "George Eliot", "total_pages": 800 },
    })
}
