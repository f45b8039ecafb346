//! Old payloads to today's. Stored events are never rewritten: what an old
//! version lacks is added when it is read.

use cqrs_es::persist::{EventUpcaster, SerializedEvent};
use domain::SessionEvent;
use domain::event::EVENT_VERSION;
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

/// The steps from each old version to the next. Empty as long as there is only
/// one version.
fn upcasters() -> [Box<dyn EventUpcaster>; 0] {
    []
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
    if event_version == EVENT_VERSION {
        return current(event_type, payload);
    }
    let event = upcast(
        event_type,
        event_version,
        serde_json::from_str(payload)?,
        &upcasters(),
    );
    if event.event_version == EVENT_VERSION {
        current(&event.event_type, &event.payload.to_string())
    } else {
        Err(DecodeError::UnknownVersion {
            event_type: event.event_type,
            event_version: event.event_version,
        })
    }
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
    let [started, updated, ended] = SessionEvent::NAMES;
    Ok(match event_type {
        name if name == started => SessionEvent::SessionStarted(serde_json::from_str(payload)?),
        name if name == updated => SessionEvent::PositionUpdated(serde_json::from_str(payload)?),
        name if name == ended => SessionEvent::SessionEnded(serde_json::from_str(payload)?),
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
        let error = decode("PositionUpdated", "99", "{}").unwrap_err();
        assert!(
            matches!(error, DecodeError::UnknownVersion { .. }),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_event_is_refused() {
        let error = decode("SessionPaused", EVENT_VERSION, "{}").unwrap_err();
        assert!(matches!(error, DecodeError::UnknownEvent(_)), "{error}");
    }
}
