//! Decodes payloads of all versions. Upcasters add the fields that an old version
//! lacks. Stored events are never rewritten for this.

use cqrs_es::persist::{EventUpcaster, SerializedEvent};
use domain::{SessionEvent, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// Why an event cannot be decoded.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// Probably a newer build wrote it.
    #[error("version {event_version} of event {event_type} is unknown")]
    UnknownVersion {
        event_type: String,
        event_version: String,
    },
    #[error("event type {0} is unknown")]
    UnknownEvent(String),
    /// The payload does not have the fields of its event type and version.
    #[error("the payload is invalid")]
    Payload(#[from] serde_json::Error),
    #[error("the session id is not a UUID")]
    SessionId(#[from] uuid::Error),
}

/// Each upcaster leads from one version to the next, so their order matters.
pub(crate) fn upcasters() -> Vec<Box<dyn EventUpcaster>> {
    vec![Box::new(AddElapsedTime)]
}

/// `SessionEnded` from version 1 to 2: adds the time from start to end, which
/// consumers of version 1 computed themselves.
struct AddElapsedTime;

impl EventUpcaster for AddElapsedTime {
    fn can_upcast(&self, event_type: &str, event_version: &str) -> bool {
        (event_type, event_version) == ("SessionEnded", "1")
    }

    /// Leaves a payload without valid times as it is; decoding rejects it later.
    fn upcast(&self, mut event: SerializedEvent) -> SerializedEvent {
        #[derive(Deserialize)]
        struct Times {
            started_at: Timestamp,
            ended_at: Timestamp,
        }
        if let Ok(times) = Times::deserialize(&event.payload)
            && let Some(fields) = event.payload.as_object_mut()
        {
            let elapsed = times.ended_at - times.started_at;
            fields.insert("elapsed_ms".to_owned(), elapsed.num_milliseconds().into());
        }
        "2".clone_into(&mut event.event_version);
        event
    }
}

/// Decodes a payload of any known version.
pub fn decode(
    event_type: &str,
    event_version: &str,
    payload: &str,
) -> Result<SessionEvent, DecodeError> {
    if current_version(event_type)? == event_version {
        return decode_current(event_type, payload);
    }
    let event = upcast(
        event_type,
        event_version,
        serde_json::from_str(payload)?,
        &upcasters(),
    );
    if current_version(&event.event_type)? == event.event_version {
        decode_current(&event.event_type, &event.payload.to_string())
    } else {
        Err(DecodeError::UnknownVersion {
            event_type: event.event_type,
            event_version: event.event_version,
        })
    }
}

fn current_version(event_type: &str) -> Result<&'static str, DecodeError> {
    let mut versions = SessionEvent::NAMES.iter().zip(SessionEvent::VERSIONS);
    versions
        .find_map(|(name, version)| (*name == event_type).then_some(version))
        .ok_or_else(|| DecodeError::UnknownEvent(event_type.to_owned()))
}

/// Applies all upcasters that fit the event, in order.
fn upcast(
    event_type: &str,
    event_version: &str,
    payload: Value,
    upcasters: &[Box<dyn EventUpcaster>],
) -> SerializedEvent {
    let event = SerializedEvent::new(
        String::new(),
        0,
        String::new(),
        event_type.to_owned(),
        event_version.to_owned(),
        payload,
        Value::Null,
    );
    upcasters.iter().fold(event, |event, upcaster| {
        if upcaster.can_upcast(&event.event_type, &event.event_version) {
            upcaster.upcast(event)
        } else {
            event
        }
    })
}

/// Decodes a payload of the current version. The event type selects the struct:
/// serde's tagged enum would buffer the whole payload before decoding it.
fn decode_current(event_type: &str, payload: &str) -> Result<SessionEvent, DecodeError> {
    let [started, updated, ended, erased] = SessionEvent::NAMES;
    Ok(match event_type {
        name if name == started => SessionEvent::SessionStarted(serde_json::from_str(payload)?),
        name if name == updated => SessionEvent::PositionUpdated(serde_json::from_str(payload)?),
        name if name == ended => SessionEvent::SessionEnded(serde_json::from_str(payload)?),
        name if name == erased => SessionEvent::SessionErased(serde_json::from_str(payload)?),
        other => return Err(DecodeError::UnknownEvent(other.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cqrs_es::persist::SemanticVersionEventUpcaster;
    use serde_json::json;

    #[test]
    fn old_payload_passes_all_upcasters() {
        let upcaster = |from: &str, field: &'static str| -> Box<dyn EventUpcaster> {
            Box::new(SemanticVersionEventUpcaster::new(
                "SessionStarted",
                from,
                Box::new(move |mut payload: Value| {
                    payload[field] = json!(true);
                    payload
                }),
            ))
        };
        let upcasters = [upcaster("0.2.0", "first"), upcaster("0.3.0", "second")];
        let event = upcast("SessionStarted", "0.1.0", json!({}), &upcasters);
        assert_eq!(event.payload, json!({"first": true, "second": true}));
    }

    #[test]
    fn unknown_version_is_rejected() {
        for name in SessionEvent::NAMES {
            for version in ["0", "3", "99", "1.0", ""] {
                let error = decode(name, version, "{}").unwrap_err();
                assert!(
                    matches!(error, DecodeError::UnknownVersion { .. }),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn old_end_without_times_is_rejected() {
        let error = decode("SessionEnded", "1", r#"{"started_at": 1}"#).unwrap_err();
        assert!(matches!(error, DecodeError::Payload(_)), "{error}");
    }

    #[test]
    fn unknown_event_is_rejected() {
        let error = decode("SessionPaused", "1", "{}").unwrap_err();
        assert!(matches!(error, DecodeError::UnknownEvent(_)), "{error}");
    }

    #[test]
    fn old_end_with_an_array_as_payload_is_rejected() {
        let times = r#"["2026-01-01T00:00:00Z","2026-01-01T01:00:00Z"]"#;
        let error = decode("SessionEnded", "1", times).unwrap_err();
        assert!(matches!(error, DecodeError::Payload(_)), "{error}");
    }
}
