//! The CSV export: one row per event. The JSON export also contains the values
//! of an event that have no column here.
//!
//! RFC 4180: rows end with CR LF, and a cell with a comma, a quote or a line
//! break is quoted.

use std::fmt::Write as _;

use chrono::SecondsFormat;
use domain::event::{Book, DeviceType};
use domain::{SessionEvent, Timestamp};
use eventlog::StoredEvent;

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

pub fn write_header(text: &mut String) {
    text.push_str(&COLUMNS.join(","));
    text.push_str("\r\n");
}

/// The cells of an event. A cell is empty if the event has no such value.
#[derive(Default)]
struct CsvCells {
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

/// Writes the row of an event. If this build cannot decode the event, the row
/// contains only its session, sequence, type and time of recording.
pub fn write_row(text: &mut String, event: &StoredEvent) {
    let event_cells = event
        .decode()
        .map(|recorded| CsvCells::from(recorded.event))
        .unwrap_or_default();
    let sequence = event.sequence.to_string();
    let pages = event_cells.book.total_pages.map(|pages| pages.to_string());
    let cells: [&str; COLUMNS.len()] = [
        &event.session_id,
        &sequence,
        &event.event_type,
        &event_cells.occurred_at,
        &timestamp(event.recorded_at),
        &event_cells.book_id,
        event_cells.book.title.as_deref().unwrap_or_default(),
        event_cells.book.author.as_deref().unwrap_or_default(),
        pages.as_deref().unwrap_or_default(),
        &event_cells.position,
        event_cells.locator.as_deref().unwrap_or_default(),
        event_cells.applied,
        &event_cells.active_seconds,
        event_cells.end_reason,
        event_cells.device_type,
        event_cells.device_id.as_deref().unwrap_or_default(),
        event_cells.time_zone,
    ];
    for (i, cell) in cells.into_iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        push(text, cell);
    }
    text.push_str("\r\n");
}

impl From<SessionEvent> for CsvCells {
    fn from(event: SessionEvent) -> Self {
        let occurred_at = timestamp(event.occurred_at());
        let seconds = |ms: i64| (ms / 1_000).to_string();
        match event {
            SessionEvent::SessionStarted(event) => Self {
                occurred_at,
                book_id: event.book_id.to_string(),
                book: event.book.unwrap_or_default(),
                position: event.position.percent().to_string(),
                locator: event.locator,
                device_type: event.device_type.map_or("", DeviceType::as_str),
                device_id: event.device_id,
                time_zone: event.time_zone.name(),
                ..Self::default()
            },
            SessionEvent::PositionUpdated(event) => Self {
                occurred_at,
                position: event.position.percent().to_string(),
                locator: event.locator,
                applied: if event.applied { "true" } else { "false" },
                active_seconds: seconds(event.active_ms),
                time_zone: event.time_zone.name(),
                ..Self::default()
            },
            SessionEvent::SessionEnded(event) => Self {
                occurred_at,
                book_id: event.book_id.to_string(),
                position: event.position.percent().to_string(),
                locator: event.locator,
                active_seconds: seconds(event.active_ms),
                end_reason: event.reason.as_str(),
                time_zone: event.time_zone.name(),
                ..Self::default()
            },
            SessionEvent::SessionErased(_) => Self {
                occurred_at,
                ..Self::default()
            },
        }
    }
}

fn push(text: &mut String, cell: &str) {
    if cell.contains([',', '"', '\r', '\n']) {
        let _ = write!(text, "\"{}\"", cell.replace('"', "\"\""));
    } else {
        text.push_str(cell);
    }
}

fn timestamp(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_quoted() {
        let mut text = String::new();
        for cell in ["plain", "a, b", "say \"hi\"", "two\r\nlines", ""] {
            push(&mut text, cell);
            text.push(';');
        }
        assert_eq!(text, "plain;\"a, b\";\"say \"\"hi\"\"\";\"two\r\nlines\";;");
    }
}
