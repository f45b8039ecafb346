//! A row an event, with what the reader or the app said; what was reckoned from
//! it is in the JSON. RFC 4180: rows end with CR LF, and a text with a comma, a
//! quote or a line break stands in quotes.

use std::fmt::Write as _;

use chrono::SecondsFormat;
use domain::event::{Book, DeviceType};
use domain::{SessionEvent, Timestamp};
use eventlog::Stored;

const COLUMNS: [&str; 17] = [
    "session_id",
    "sequence",
    "event",
    "occurred_at",
    "recorded_at",
    "book_id",
    "book_title",
    "book_author",
    "book_total_pages",
    "position",
    "locator",
    "applied",
    "active_seconds",
    "end_reason",
    "device_type",
    "device_id",
    "time_zone",
];

/// The names of the columns.
pub fn head(text: &mut String) {
    text.push_str(&COLUMNS.join(","));
    text.push_str("\r\n");
}

/// What an event says; nothing in a column that it does not have.
#[derive(Default)]
struct Said {
    occurred_at: String,
    book_id: String,
    book: Book,
    position: String,
    locator: Option<String>,
    applied: &'static str,
    active_seconds: String,
    end_reason: &'static str,
    device_type: &'static str,
    device_id: Option<String>,
    time_zone: &'static str,
}

/// An event. Of one that this build cannot read stands only that it is there.
pub fn row(text: &mut String, event: &Stored) {
    let recorded = event.decode().ok();
    let said = recorded.map(|recorded| said(recorded.event));
    let said = said.unwrap_or_default();
    let sequence = event.sequence.to_string();
    let pages = said.book.total_pages.map(|pages| pages.to_string());
    let cells: [&str; COLUMNS.len()] = [
        &event.session_id,
        &sequence,
        &event.event_type,
        &said.occurred_at,
        &written(event.recorded_at),
        &said.book_id,
        said.book.title.as_deref().unwrap_or_default(),
        said.book.author.as_deref().unwrap_or_default(),
        pages.as_deref().unwrap_or_default(),
        &said.position,
        said.locator.as_deref().unwrap_or_default(),
        said.applied,
        &said.active_seconds,
        said.end_reason,
        said.device_type,
        said.device_id.as_deref().unwrap_or_default(),
        said.time_zone,
    ];
    for (i, cell) in cells.into_iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        push(text, cell);
    }
    text.push_str("\r\n");
}

fn said(event: SessionEvent) -> Said {
    let occurred_at = written(event.occurred_at());
    let seconds = |ms: i64| (ms / 1_000).to_string();
    match event {
        SessionEvent::SessionStarted(event) => Said {
            occurred_at,
            book_id: event.book_id.to_string(),
            book: event.book.unwrap_or_default(),
            position: event.position.percent().to_string(),
            locator: event.locator,
            device_type: event.device_type.map_or("", DeviceType::as_str),
            device_id: event.device_id,
            time_zone: event.time_zone.name(),
            ..Said::default()
        },
        SessionEvent::PositionUpdated(event) => Said {
            occurred_at,
            position: event.position.percent().to_string(),
            locator: event.locator,
            applied: if event.applied { "true" } else { "false" },
            active_seconds: seconds(event.active_ms),
            time_zone: event.time_zone.name(),
            ..Said::default()
        },
        SessionEvent::SessionEnded(event) => Said {
            occurred_at,
            book_id: event.book_id.to_string(),
            position: event.position.percent().to_string(),
            locator: event.locator,
            active_seconds: seconds(event.active_ms),
            end_reason: event.reason.as_str(),
            time_zone: event.time_zone.name(),
            ..Said::default()
        },
        SessionEvent::SessionErased(_) => Said {
            occurred_at,
            ..Said::default()
        },
    }
}

fn push(text: &mut String, cell: &str) {
    if cell.contains([',', '"', '\r', '\n']) {
        let _ = write!(text, "\"{}\"", cell.replace('"', "\"\""));
    } else {
        text.push_str(cell);
    }
}

fn written(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_a_row_stands_in_quotes() {
        let mut text = String::new();
        for cell in ["plain", "a, b", "say \"hi\"", "two\r\nlines", ""] {
            push(&mut text, cell);
            text.push(';');
        }
        assert_eq!(text, "plain;\"a, b\";\"say \"\"hi\"\"\";\"two\r\nlines\";;");
    }
}
