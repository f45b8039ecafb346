//! One object: whose data it is and when it was read, and the sessions, each
//! with its events as the log holds them.

use domain::{ReaderId, Timestamp};
use eventlog::Stored;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Writes the object piece by piece.
pub struct Writer {
    reader_id: ReaderId,
    exported_at: Timestamp,
    /// The session whose events are being written.
    session: Option<String>,
}

/// All of a reader's data. It is written piece by piece; this says how it looks.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, and never in memory")]
pub struct Export<'a> {
    /// Whose data it is.
    #[schema(value_type = Uuid)]
    reader_id: ReaderId,
    /// When it was asked for.
    #[schema(value_type = DateTime)]
    exported_at: Timestamp,
    /// By time.
    sessions: Vec<ExportedSession<'a>>,
}

/// A session with its events, in their order.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, and never in memory")]
pub struct ExportedSession<'a> {
    #[schema(value_type = Uuid)]
    session_id: &'a str,
    events: Vec<ExportedEvent<'a>>,
}

/// An event as the log holds it.
#[derive(Serialize, ToSchema)]
pub struct ExportedEvent<'a> {
    /// Its place in the session, from 1.
    sequence: i64,
    /// Of the data.
    version: &'a str,
    /// When the service wrote it down.
    #[schema(value_type = DateTime)]
    recorded_at: Timestamp,
    /// What happened; `type` says what kind of event it is.
    #[schema(value_type = Object)]
    data: &'a RawValue,
}

impl Writer {
    /// Of a reader, at a time.
    pub fn new(reader_id: ReaderId, exported_at: Timestamp) -> Self {
        Self {
            reader_id,
            exported_at,
            session: None,
        }
    }

    /// What comes first.
    pub fn begin(&self, text: &mut String) {
        text.push_str("{\"reader_id\":");
        push(text, &self.reader_id);
        text.push_str(",\"exported_at\":");
        push(text, &self.exported_at);
        text.push_str(",\"sessions\":[");
    }

    /// An event; events of a session come one after the other.
    pub fn add(&mut self, text: &mut String, event: &Stored) {
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
        let data = serde_json::from_str(&event.payload).expect("the log takes JSON alone");
        let event = ExportedEvent {
            sequence: event.sequence,
            version: &event.event_version,
            recorded_at: event.recorded_at,
            data,
        };
        text.push_str("\n  ");
        push(text, &event);
    }

    /// What comes last.
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
