//! The CSV export: one row per event. The JSON export also contains the values
//! of an event that have no column here.
//!
//! RFC 4180: rows end with CR LF, and a cell with a comma, a quote or a line
//! break is quoted. Cells that a spreadsheet would execute as a formula get an
//! apostrophe.

use std::borrow::Cow;
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
    time_zone: String,
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
        &event_cells.time_zone,
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
                time_zone: event.time_zone.to_string(),
                ..Self::default()
            },
            SessionEvent::PositionUpdated(event) => Self {
                occurred_at,
                position: event.position.percent().to_string(),
                locator: event.locator,
                applied: if event.applied { "true" } else { "false" },
                active_seconds: seconds(event.active_ms),
                time_zone: event.time_zone.to_string(),
                ..Self::default()
            },
            SessionEvent::SessionEnded(event) => Self {
                occurred_at,
                book_id: event.book_id.to_string(),
                position: event.position.percent().to_string(),
                locator: event.locator,
                active_seconds: seconds(event.active_ms),
                end_reason: event.reason.as_str(),
                time_zone: event.time_zone.to_string(),
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
    let cell = without_formulas(cell);
    if cell.contains([',', '"', '\r', '\n']) {
        let _ = write!(text, "\"{}\"", cell.replace('"', "\"\""));
    } else {
        text.push_str(&cell);
    }
}

/// Inserts an apostrophe before each part of a cell that a spreadsheet would
/// execute (<https://owasp.org/www-community/attacks/CSV_Injection>). A spreadsheet
/// that is set to another separator splits a cell into parts.
fn without_formulas(cell: &str) -> Cow<'_, str> {
    if !cell.contains(FORMULA_STARTS) || is_number(cell) {
        return Cow::Borrowed(cell);
    }
    let mut inert = String::with_capacity(cell.len() + 1);
    // A tab or a carriage return at the start of the cell is an empty part.
    if cell.starts_with(['\t', '\r', '\n']) {
        inert.push('\'');
    }
    for part in cell.split_inclusive(['\t', '\r', '\n', ';']) {
        let start = part.trim_start_matches(|char: char| {
            char.is_whitespace() || char.is_control() || matches!(char, '"' | '\'' | '\u{feff}')
        });
        if start.starts_with(FORMULA_STARTS) {
            inert.push('\'');
        }
        inert.push_str(part);
    }
    Cow::Owned(inert)
}

/// A spreadsheet executes a cell that starts with one of these. The last four are
/// the full-width forms of the first four.
const FORMULA_STARTS: [char; 11] = [
    '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
];

/// Whether the cell is a decimal number, such as `-5` or `+0.5`.
fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix(['+', '-']).unwrap_or(cell);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, fraction]
        .iter()
        .all(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn timestamp(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "=HYPERLINK(\"http://example.com\")",
        "'=HYPERLINK(\"http://example.com\")"
    )]
    #[case("@SUM(1)", "'@SUM(1)")]
    #[case("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0")]
    #[case("-2+3", "'-2+3")]
    #[case("  =1+1", "'  =1+1")]
    #[case("\"=1+1", "'\"=1+1")]
    #[case("'=1+1", "''=1+1")]
    #[case("\u{feff}=1+1", "'\u{feff}=1+1")]
    #[case("\u{a0}=1+1", "'\u{a0}=1+1")]
    #[case("\u{ff1d}1+1", "'\u{ff1d}1+1")]
    #[case("\tA", "'\tA")]
    #[case("\rA", "'\rA")]
    #[case("\t=1+1", "'\t'=1+1")]
    #[case("A\r\n=1+1", "A\r\n'=1+1")]
    #[case("A;=1+1", "A;'=1+1")]
    #[case("A;\"=1+1", "A;'\"=1+1")]
    fn formula_becomes_text(#[case] cell: &str, #[case] expected: &str) {
        assert_eq!(without_formulas(cell), expected);
    }

    #[rstest]
    #[case("")]
    #[case("Middlemarch")]
    #[case("1+1=2")]
    #[case("Catch-22; a novel")]
    #[case("epubcfi(/6/14!/4/2/8:0)")]
    #[case("2026-03-07T20:34:00.000Z")]
    #[case("two\r\nlines")]
    #[case("-5")]
    #[case("+5")]
    #[case("-0.5")]
    #[case("12.5")]
    fn other_cells_stay_unchanged(#[case] cell: &str) {
        assert_eq!(without_formulas(cell), cell);
    }

    #[rstest]
    #[case("-")]
    #[case("-.5")]
    #[case("-5.")]
    #[case("--5")]
    #[case("-5e3")]
    #[case("-1,000")]
    fn only_a_plain_number_stays_a_number(#[case] cell: &str) {
        assert_eq!(without_formulas(cell), format!("'{cell}"));
    }

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
