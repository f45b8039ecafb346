//! The JSON export: one object with the reader, the time of the export, and the
//! sessions with their events as the log stores them.

use domain::{ReaderId, Timestamp};
use eventlog::StoredEvent;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Writes the object piece by piece, because a whole export may not fit into
/// memory.
pub struct JsonWriter {
    reader_id: ReaderId,
    exported_at: Timestamp,
    /// The session whose events are being written; `None` before the first.
    session: Option<String>,
}

/// The sessions of a reader with all their events.
#[derive(ToSchema)]
#[schema(as = Export)]
#[expect(
    dead_code,
    reason = "describes what JsonWriter writes; never constructed"
)]
pub struct ExportDocument<'a> {
    #[schema(value_type = Uuid)]
    reader_id: ReaderId,
    /// The time of the request.
    #[schema(value_type = DateTime)]
    exported_at: Timestamp,
    /// The sessions in the order of their start.
    sessions: Vec<ExportedSession<'a>>,
}

/// A session with its events in the order of `sequence`.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes what JsonWriter writes; never constructed"
)]
pub struct ExportedSession<'a> {
    #[schema(value_type = Uuid)]
    session_id: &'a str,
    events: Vec<ExportedEvent<'a>>,
}

/// An event as the log stores it.
#[derive(Serialize, ToSchema)]
pub struct ExportedEvent<'a> {
    /// The number of the event in its session, from 1.
    sequence: i64,
    /// The version of the format of `data`.
    version: &'a str,
    /// The time at which the service recorded the event.
    #[schema(value_type = DateTime)]
    recorded_at: Timestamp,
    /// The event. Its member `type` is the kind of event.
    #[schema(value_type = Object)]
    data: &'a RawValue,
}

impl JsonWriter {
    pub fn new(reader_id: ReaderId, exported_at: Timestamp) -> Self {
        Self {
            reader_id,
            exported_at,
            session: None,
        }
    }

    pub fn begin(&self, text: &mut String) {
        text.push_str("{\"reader_id\":");
        push(text, &self.reader_id);
        text.push_str(",\"exported_at\":");
        push(text, &self.exported_at);
        text.push_str(",\"sessions\":[");
    }

    /// Adds an event. The events of a session must follow each other.
    pub fn add(&mut self, text: &mut String, event: &StoredEvent) {
        if self.session.as_ref() == Some(&event.session_id) {
            text.push(',');
        } else {
            if self.session.is_some() {
                text.push_str("]},");
            }
            text.push_str("\n{\"session_id\":");
            push(text, &event.session_id);
            text.push_str(",\"events\":[");
            self.session = Some(event.session_id.clone());
        }
        let data = serde_json::from_str(&event.payload).expect("the log stores only JSON");
        let event = ExportedEvent {
            sequence: event.sequence,
            version: &event.event_version,
            recorded_at: event.recorded_at,
            data,
        };
        text.push_str("\n  ");
        push(text, &event);
    }

    pub fn end(&self, text: &mut String) {
        if self.session.is_some() {
            text.push_str("]}");
        }
        text.push_str("\n]}\n");
    }
}

fn push(text: &mut String, value: &impl Serialize) {
    text.push_str(&serde_json::to_string(value).expect("it is plain JSON"));
}
