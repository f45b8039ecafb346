//! An event as a line of text or JSON. An event that cannot be decoded is printed
//! as it is stored, with the error.

use chrono::SecondsFormat;
use domain::SessionEvent;
use eventlog::error::error_chain;
use eventlog::outgoing::OutgoingEvent;
use eventlog::{LogError, StoredEvent};
use messaging::cloud_event::CloudEvent;
use messaging::subject::short_name;
use serde::Serialize;

pub fn text(event: &StoredEvent) -> String {
    let (at, description) = match event.decode() {
        Ok(recorded) => (recorded.event.occurred_at(), describe(&recorded.event)),
        Err(error) => (
            event.recorded_at,
            format!(
                "NOT DECODED, {}: {}",
                decode_error(error),
                on_one_line(&event.payload)
            ),
        ),
    };
    format!(
        "{:>8}  {}  {:16}  {}  {description}",
        event.global_position,
        at.to_rfc3339_opts(SecondsFormat::Millis, true),
        short_name(&event.event_type),
        event.session_id,
    )
}

fn describe(event: &SessionEvent) -> String {
    let reader = event.reader_id();
    match event {
        SessionEvent::SessionStarted(event) => {
            let book = event.book.as_ref();
            let title = book.and_then(|book| book.title.as_ref());
            let title = title.map_or_else(String::new, |title| format!(" {title:?}"));
            let (book, at) = (event.book_id, event.position.percent());
            format!("reader {reader}, book {book}{title}, at {at} %")
        }
        SessionEvent::PositionUpdated(event) => {
            let late = if event.applied { "" } else { ", late" };
            let (at, active) = (event.position.percent(), event.active_ms / 1_000);
            format!("reader {reader}, at {at} %{late}, {active} s active")
        }
        SessionEvent::SessionEnded(event) => {
            let (at, reason) = (event.position.percent(), event.reason.as_str());
            let (elapsed, active) = (event.elapsed_ms / 1_000, event.active_ms / 1_000);
            format!("reader {reader}, at {at} %, {reason} after {elapsed} s, {active} s active")
        }
        SessionEvent::SessionErased(_) => format!("reader {reader}"),
    }
}

/// The event as it is published, and the error if it cannot be decoded.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: CloudEvent<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecodable: Option<String>,
}

/// A `CloudEvent`, with the attribute `undecodable` if it cannot be decoded.
/// `previous` is the global position of the event before it.
pub fn json(event: &StoredEvent, previous: i64) -> String {
    let undecodable = event.decode().err().map(decode_error);
    let outgoing = OutgoingEvent::from(event.clone());
    let event =
        CloudEvent::new(&outgoing, previous).expect("the payload column contains only JSON");
    let line = serde_json::to_string(&Line { event, undecodable });
    on_one_line(&line.expect("the event is JSON"))
}

fn decode_error(error: LogError) -> String {
    match error {
        LogError::Undecodable { source, .. } => error_chain(&source),
        error => error_chain(&error),
    }
}

/// In JSON, line breaks occur only between tokens: a string contains them as
/// `\n`.
fn on_one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}
