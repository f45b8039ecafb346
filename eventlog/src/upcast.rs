//! Old payloads to today's. No stored event is rewritten for that: what an old
//! version lacks is added when it is read.

use cqrs_es::persist::{EventUpcaster, SerializedEvent};
use domain::{SessionEvent, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// Why a payload cannot be understood.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// A version that this build does not know; a newer one wrote it.
    #[error("{event_type} of version {event_version} is not known")]
    UnknownVersion {
        /// The name of the event.
        event_type: String,
        /// Its version.
        event_version: String,
    },
    /// An event that this build does not know.
    #[error("{0} is not an event of a reading session")]
    UnknownEvent(String),
    /// Not the JSON that the event consists of.
    #[error("the payload does not fit")]
    Payload(#[from] serde_json::Error),
    /// Not a session's id.
    #[error("the session id is not a UUID")]
    SessionId(#[from] uuid::Error),
}

/// The steps from each old version to the next.
fn upcasters() -> [Box<dyn EventUpcaster>; 1] {
    [Box::new(EndSaysHowLong)]
}

/// `SessionEnded` from version 1 to 2: how long the session was open stands in
/// the event, and was to be reckoned before.
struct EndSaysHowLong;

impl EventUpcaster for EndSaysHowLong {
    fn can_upcast(&self, event_type: &str, event_version: &str) -> bool {
        (event_type, event_version) == ("SessionEnded", "1")
    }

    /// A payload without its times is left as it is, to be refused as any
    /// other that does not fit.
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
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(
    event_type: &str,
    event_version: &str,
    payload: &str,
) -> Result<SessionEvent, DecodeError> {
    if current_version(event_type)? == event_version {
        return current(event_type, payload);
    }
    let event = upcast(
        event_type,
        event_version,
        serde_json::from_str(payload)?,
        &upcasters(),
    );
    if current_version(&event.event_type)? == event.event_version {
        current(&event.event_type, &event.payload.to_string())
    } else {
        Err(DecodeError::UnknownVersion {
            event_type: event.event_type,
            event_version: event.event_version,
        })
    }
}

/// The version that an event of this name is written in today.
fn current_version(event_type: &str) -> Result<&'static str, DecodeError> {
    let mut versions = SessionEvent::NAMES.iter().zip(SessionEvent::VERSIONS);
    versions
        .find_map(|(name, version)| (*name == event_type).then_some(version))
        .ok_or_else(|| DecodeError::UnknownEvent(event_type.to_owned()))
}

/// Takes an event through every step that fits it.
fn upcast(
    event_type: &str,
    event_version: &str,
    payload: Value,
    steps: &[Box<dyn EventUpcaster>],
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
    steps.iter().fold(event, |event, step| {
        if step.can_upcast(&event.event_type, &event.event_version) {
            step.upcast(event)
        } else {
            event
        }
    })
}

/// The name picks the event, so that the payload is parsed once and straight.
fn current(event_type: &str, payload: &str) -> Result<SessionEvent, DecodeError> {
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
    fn an_old_payload_goes_through_every_step() {
        let step = |from: &str, field: &'static str| -> Box<dyn EventUpcaster> {
            Box::new(SemanticVersionEventUpcaster::new(
                "SessionStarted",
                from,
                Box::new(move |mut payload: Value| {
                    payload[field] = json!(true);
                    payload
                }),
            ))
        };
        let steps = [step("0.2.0", "first"), step("0.3.0", "second")];
        let event = upcast("SessionStarted", "0.1.0", json!({}), &steps);
        assert_eq!(event.payload, json!({"first": true, "second": true}));
    }

    #[test]
    fn a_version_from_the_future_is_refused_not_guessed() {
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
    fn an_old_end_without_its_times_is_refused() {
        let error = decode("SessionEnded", "1", r#"{"started_at": 1}"#).unwrap_err();
        assert!(matches!(error, DecodeError::Payload(_)), "{error}");
    }

    #[test]
    fn an_unknown_event_is_refused() {
        let error = decode("SessionPaused", "1", "{}").unwrap_err();
        assert!(matches!(error, DecodeError::UnknownEvent(_)), "{error}");
    }

    #[test]
    fn what_only_looks_like_an_old_end_is_refused() {
        let times = r#"["2026-01-01T00:00:00Z","2026-01-01T01:00:00Z"]"#;
        let error = decode("SessionEnded", "1", times).unwrap_err();
        assert!(matches!(error, DecodeError::Payload(_)), "{error}");
    }
}
