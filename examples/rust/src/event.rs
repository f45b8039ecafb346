//! Decodes `ended` events, which `nats/asyncapi.yaml` describes.

use anyhow::bail;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

/// The end of a session, of any version.
pub struct Ended {
    /// The event's id, which is the same in each duplicate.
    pub id: String,
    pub book_id: Uuid,
    /// Milliseconds for which the session was open.
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
    /// Decodes a message. An unsupported type is an error: the consumer stops rather
    /// than miscount.
    pub fn decode(message: &[u8]) -> anyhow::Result<Self> {
        let CloudEvent { id, kind, data } = serde_json::from_slice(message)?;
        let elapsed_ms = match (kind.as_str(), data.elapsed_ms) {
            // Version 1 does not contain `elapsed_ms`.
            ("reading.session.ended.v1", _) => (data.ended_at - data.started_at).num_milliseconds(),
            ("reading.session.ended.v2", Some(elapsed_ms)) => elapsed_ms,
            _ => bail!("event {id} has unsupported type {kind}; it was not counted"),
        };
        Ok(Self {
            id,
            book_id: data.book_id,
            elapsed_ms,
        })
    }
}
