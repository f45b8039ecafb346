//! An event as a line: for people, or as the JSON that is published. What
//! cannot be decoded is printed as it is stored, with the reason.

use chrono::SecondsFormat;
use domain::{SessionEvent, Timestamp};
use eventlog::outgoing::OutgoingEvent;
use messaging::cloud_event::CloudEvent;
use messaging::subject::short_name;
use eventlog::{LogError, Stored};
use serde::Serialize;

/// A line for people.
pub fn text(event: &Stored) -> String {
    let (at, what) = match event.decode() {
        Ok(recorded) => (recorded.event.occurred_at(), described(&recorded.event)),
        Err(error) => (
            event.recorded_at,
            format!(
                "NOT DECODED, {}: {}",
                reason(error),
                on_a_line(&event.payload)
            ),
        ),
    };
    format!(
        "{:>8}  {}  {:16}  {}  {what}",
        event.global_position,
        written(at),
        short_name(&event.event_type),
        event.session_id,
    )
}

fn described(event: &SessionEvent) -> String {
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

/// The event as it is published, and why it cannot be decoded when that is so.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: CloudEvent<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecodable: Option<String>,
}

/// A `CloudEvent`, with an attribute `undecodable` where it cannot be decoded.
/// `previous` is the place in the log of the event before it.
pub fn json(event: &Stored, previous: i64) -> String {
    let undecodable = event.decode().err().map(reason);
    let outgoing = OutgoingEvent::from(event.clone());
    let event = CloudEvent::new(&outgoing, previous).expect("the log takes JSON alone");
    let line = serde_json::to_string(&Line { event, undecodable });
    on_a_line(&line.expect("it is plain JSON"))
}

fn reason(error: LogError) -> String {
    let source = match error {
        LogError::Undecodable { source, .. } => anyhow::Error::new(source),
        error => anyhow::Error::new(error),
    };
    format!("{source:#}")
}

/// Line breaks in JSON stand between its parts only; others are written `\n`.
fn on_a_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

fn written(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
