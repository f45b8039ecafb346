//! The events that are counted, as `nats/asyncapi.yaml` describes them.

use anyhow::bail;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

/// The end of a session, of any version.
pub struct Ended {
    /// The event's id.
    pub id: String,
    /// What was read.
    pub book_id: Uuid,
    /// How long the session was open.
    pub elapsed_ms: i64,
}

#[derive(Deserialize)]
struct CloudEvent {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    book_id: Uuid,
    started_at: DateTime<Utc>,
    ended_at: DateTime<Utc>,
    elapsed_ms: Option<i64>,
}

impl Ended {
    /// Reads a message; one of a version that is not known is an error, since
    /// it is better to stop than to count what is not understood.
    pub fn read(message: &[u8]) -> anyhow::Result<Self> {
        let CloudEvent { id, kind, data } = serde_json::from_slice(message)?;
        let elapsed_ms = match (kind.as_str(), data.elapsed_ms) {
            // Version 1 left it to be reckoned.
            ("reading.session.ended.v1", _) => (data.ended_at - data.started_at).num_milliseconds(),
            ("reading.session.ended.v2", Some(elapsed_ms)) => elapsed_ms,
            _ => bail!("{kind} is not known; {id} was not counted"),
        };
        Ok(Self {
            id,
            book_id: data.book_id,
            elapsed_ms,
        })
    }
}
