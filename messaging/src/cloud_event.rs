//! The wire format of an event: a CloudEvents 1.0 object in structured JSON, as in
//! its NATS binding (<https://github.com/cloudevents/spec>).
//!
//! `data` is the stored payload, byte for byte. The doc comments of [`CloudEvent`]
//! become descriptions in `nats/schemas/envelope.json`.

use std::borrow::Cow;

use domain::{ReaderId, SessionEvent, Timestamp};
use eventlog::outgoing::OutgoingEvent;
use eventlog::upcast::{self, DecodeError};
use eventlog::{LogError, RecordedEvent};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::subject::short_name;

/// The `source` of every event and dead letter.
pub const SOURCE: &str = "/reading-sessions";

/// An event of a reading session, as a CloudEvents 1.0 JSON object. Numbers are
/// decimal strings, because CloudEvents integers have 32 bits.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct CloudEvent<'a> {
    /// The version of the CloudEvents specification.
    #[schemars(extend("const" = "1.0"))]
    specversion: Cow<'a, str>,
    /// Identifies the event: the session id, a dot and `sequence`. It is also the
    /// header `Nats-Msg-Id`. A message that is delivered again has the same id.
    pub id: Cow<'a, str>,
    /// The service that published the event.
    #[schemars(extend("const" = SOURCE))]
    source: Cow<'a, str>,
    /// The kind of event and the version of its schema:
    /// `reading.session.<event>.v<version>`.
    #[serde(rename = "type")]
    pub event_type: Cow<'a, str>,
    /// The id of the reading session, a UUID.
    pub subject: Cow<'a, str>,
    /// When the event happened, in UTC. Offline clients report events later, so
    /// times do not always increase from one event to the next. An end by the service
    /// has the time of the session's latest observation.
    pub time: Timestamp,
    /// The media type of `data`.
    #[schemars(extend("const" = "application/json"))]
    datacontenttype: Cow<'a, str>,
    /// The number of the event in its session: 1 for the first event, without gaps.
    #[serde(with = "decimal")]
    #[schemars(with = "String", regex(pattern = "^[0-9]+$"))]
    pub sequence: i64,
    /// The global position of the event in the log. Global positions increase from
    /// one event to the next and have gaps.
    #[serde(with = "decimal")]
    #[schemars(with = "String", regex(pattern = "^[0-9]+$"))]
    pub globalposition: i64,
    /// The `globalposition` of the previous event in the stream; 0 for the first
    /// event. A consumer of the whole stream that has not received the previous
    /// event has missed at least one.
    #[serde(with = "decimal")]
    #[schemars(with = "String", regex(pattern = "^[0-9]+$"))]
    pub previousposition: i64,
    /// The id of the reader. It determines the partition in the NATS subject, so all
    /// events of a reader are in one partition.
    pub partitionkey: ReaderId,
    /// The W3C trace context of the request that caused the event. Absent if the
    /// request had none and was not sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Cow<'a, str>>,
    /// The event. Its JSON Schema is the one that `type` names.
    #[serde(borrow)]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub data: &'a RawValue,
}

#[derive(Default, Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
}

impl<'a> CloudEvent<'a> {
    /// `previousposition` is the global position of the previous event in the stream.
    ///
    /// # Errors
    /// [`LogError::Undecodable`] if the payload is not JSON. The log does not accept
    /// such a payload.
    pub fn new(event: &'a OutgoingEvent, previousposition: i64) -> Result<Self, LogError> {
        let metadata: Metadata = serde_json::from_str(&event.metadata).unwrap_or_default();
        Ok(Self {
            specversion: "1.0".into(),
            id: event.id().into(),
            source: SOURCE.into(),
            event_type: wire_type(&event.event_type, &event.event_version).into(),
            subject: event.session_id.as_str().into(),
            time: event.time,
            datacontenttype: "application/json".into(),
            sequence: event.sequence,
            globalposition: event.global_position,
            previousposition,
            partitionkey: event.reader_id,
            traceparent: metadata.traceparent,
            data: serde_json::from_str(&event.payload).map_err(|source| LogError::Undecodable {
                session_id: event.session_id.clone(),
                sequence: event.sequence,
                source: source.into(),
            })?,
        })
    }

    /// Decodes the event and converts it to its current version.
    pub fn decode(&self) -> Result<RecordedEvent, DecodeError> {
        let (event_type, event_version) = SessionEvent::NAMES
            .into_iter()
            .find_map(|name| {
                let version = self
                    .event_type
                    .strip_prefix("reading.session.")?
                    .strip_prefix(&short_name(name))?
                    .strip_prefix(".v")?;
                Some((name, version))
            })
            .ok_or_else(|| DecodeError::UnknownEvent(self.event_type.to_string()))?;
        Ok(RecordedEvent {
            global_position: self.globalposition,
            session_id: self.subject.parse()?,
            sequence: self.sequence,
            event: upcast::decode(event_type, event_version, self.data.get())?,
        })
    }
}

fn wire_type(event_type: &str, event_version: &str) -> String {
    format!(
        "reading.session.{}.v{event_version}",
        short_name(event_type)
    )
}

/// Encodes an integer as a decimal string.
mod decimal {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    pub fn serialize<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        Cow::<str>::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use eventlog::StoredEvent;

    use super::*;

    #[test]
    fn published_event_decodes_to_the_stored_event() {
        let stored = StoredEvent {
            global_position: 7_000_000_000,
            session_id: "019a0000-0000-7000-8000-000000000001".to_owned(),
            sequence: 3,
            event_type: "PositionUpdated".to_owned(),
            event_version: "2".to_owned(),
            payload: r#"{"type":"PositionUpdated","reader_id":"00000000-0000-0000-0000-000000000001","occurred_at":"2026-01-02T03:04:05Z","position":42.5,"applied":true,"intervals":[{"from":"2026-01-02T03:04:00Z","ms":5000}],"active_ms":5000,"furthest_position":42.5,"started_at":"2026-01-02T03:00:00Z","ended_at":"2026-01-02T03:05:00Z","end_reason":"finished"}"#.to_owned(),
            metadata: r#"{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}"#.to_owned(),
            recorded_at: Timestamp::UNIX_EPOCH,
        };
        let outgoing = OutgoingEvent::from(stored.clone());
        let published =
            serde_json::to_string(&CloudEvent::new(&outgoing, 6_999_999_999).unwrap()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&published).unwrap();
        assert_eq!(value["type"], "reading.session.position_updated.v2");
        assert_eq!(value["id"], "019a0000-0000-7000-8000-000000000001.3");
        assert_eq!(value["time"], "2026-01-02T03:04:05Z");
        assert_eq!(value["globalposition"], "7000000000");
        assert_eq!(value["previousposition"], "6999999999");

        let read: CloudEvent = serde_json::from_str(&published).unwrap();
        assert_eq!(read.data.get(), stored.payload);
        assert_eq!(read.decode().unwrap(), stored.decode().unwrap());
    }
}
