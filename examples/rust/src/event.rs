//! Decodes events, which `nats/asyncapi.yaml` describes.

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

/// An event of a session, of any version.
pub struct Event {
    pub session: Uuid,
    /// The number of the event in its session.
    pub sequence: u64,
    pub change: Change,
}

/// The values of an event that this consumer uses. They are absolute.
pub enum Change {
    Started {
        book_id: Uuid,
        started_at: DateTime<Utc>,
        /// Whether the session is active.
        active: bool,
    },
    Updated {
        /// The time of the first observation, if it is not the start event's.
        started_at: Option<DateTime<Utc>>,
        /// `None` if the session is active.
        ended_at: Option<DateTime<Utc>>,
    },
    Ended {
        book_id: Uuid,
        started_at: DateTime<Utc>,
        ended_at: DateTime<Utc>,
    },
    Erased,
}

#[derive(Deserialize)]
struct CloudEvent {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    subject: Uuid,
    sequence: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    book_id: Option<Uuid>,
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    end_reason: Option<String>,
}

impl Event {
    /// Decodes a message. An unsupported type is an error: the consumer stops rather
    /// than miscount.
    pub fn decode(message: &[u8]) -> anyhow::Result<Self> {
        let event: CloudEvent = serde_json::from_slice(message)?;
        let CloudEvent { id, kind, data, .. } = event;
        let incomplete = || format!("event {id} lacks a field of its type {kind}");
        let book_id = || data.book_id.with_context(incomplete);
        let started_at = || data.started_at.with_context(incomplete);
        let change = match kind.strip_prefix("reading.session.").unwrap_or(&kind) {
            "started.v1" => Change::Started {
                book_id: book_id()?,
                started_at: started_at()?,
                active: data.end_reason.is_none(),
            },
            // Version 1 has neither a start nor an end: it never follows an end.
            "position_updated.v1" | "position_updated.v2" => Change::Updated {
                started_at: data.started_at,
                ended_at: data.ended_at,
            },
            "ended.v1" | "ended.v2" | "ended.v3" => Change::Ended {
                book_id: book_id()?,
                started_at: started_at()?,
                ended_at: data.ended_at.with_context(incomplete)?,
            },
            "erased.v1" => Change::Erased,
            _ => bail!("event {id} has unsupported type {kind}; it was not counted"),
        };
        Ok(Self {
            session: event.subject,
            sequence: event.sequence.parse()?,
            change,
        })
    }
}
