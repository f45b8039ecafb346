//! Decodes payloads of all versions. Upcasters add the fields that an old version
//! lacks. Stored events are never rewritten for this.

use cqrs_es::persist::{EventUpcaster, SerializedEvent};
use domain::event::EndReason;
use domain::{Interval, SessionEvent, Timestamp};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
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
    vec![
        Box::new(AddElapsedTime),
        Box::new(AddIntervals {
            event_type: "PositionUpdated",
            from: "1",
            to: "2",
        }),
        Box::new(AddIntervals {
            event_type: "SessionEnded",
            from: "2",
            to: "3",
        }),
    ]
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

/// `PositionUpdated` from version 1 to 2 and `SessionEnded` from version 2 to 3: the
/// credited time becomes an interval. The fields about the observation before the event
/// are removed, because observations can arrive in any order.
struct AddIntervals {
    event_type: &'static str,
    from: &'static str,
    to: &'static str,
}

impl EventUpcaster for AddIntervals {
    fn can_upcast(&self, event_type: &str, event_version: &str) -> bool {
        (event_type, event_version) == (self.event_type, self.from)
    }

    /// Leaves a payload without valid fields as it is; decoding rejects it later.
    fn upcast(&self, mut event: SerializedEvent) -> SerializedEvent {
        #[derive(Deserialize)]
        struct Credit {
            previous_at: Timestamp,
            credited_ms: i64,
            reason: Option<EndReason>,
            ended_at: Option<Timestamp>,
        }
        if let Ok(credit) = Credit::deserialize(&event.payload)
            && let Some(fields) = event.payload.as_object_mut()
        {
            let interval = Interval {
                from: credit.previous_at,
                ms: credit.credited_ms,
            };
            let intervals: Vec<_> = (interval.ms > 0).then_some(interval).into_iter().collect();
            fields.insert("intervals".to_owned(), json!(intervals));
            // An end by the service is no observation.
            let is_provisional = credit
                .reason
                .is_some_and(|reason| reason != EndReason::Finished);
            if is_provisional && Some(credit.previous_at) < credit.ended_at {
                fields.insert("position_at".to_owned(), json!(credit.previous_at));
            }
            for field in ["previous_at", "previous_position", "credited_ms"] {
                fields.remove(field);
            }
        }
        self.to.clone_into(&mut event.event_version);
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
        let mut payload = serde_json::Deserializer::from_str(payload);
        let event = decode_current(event_type, &mut payload)?;
        payload.end()?;
        return Ok(event);
    }
    let event = upcast(
        event_type,
        event_version,
        serde_json::from_str(payload)?,
        &upcasters(),
    );
    if current_version(&event.event_type)? == event.event_version {
        decode_current(&event.event_type, event.payload)
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
fn decode_current<'de>(
    event_type: &str,
    payload: impl Deserializer<'de, Error = serde_json::Error>,
) -> Result<SessionEvent, DecodeError> {
    let [started, updated, ended, erased] = SessionEvent::NAMES;
    Ok(match event_type {
        name if name == started => SessionEvent::SessionStarted(Deserialize::deserialize(payload)?),
        name if name == updated => {
            SessionEvent::PositionUpdated(Deserialize::deserialize(payload)?)
        }
        name if name == ended => SessionEvent::SessionEnded(Deserialize::deserialize(payload)?),
        name if name == erased => SessionEvent::SessionErased(Deserialize::deserialize(payload)?),
        other => return Err(DecodeError::UnknownEvent(other.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cqrs_es::persist::SemanticVersionEventUpcaster;
    use rstest::rstest;

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
            for version in ["0", "4", "99", "1.0", ""] {
                let error = decode(name, version, "{}").unwrap_err();
                assert!(
                    matches!(error, DecodeError::UnknownVersion { .. }),
                    "{error}"
                );
            }
        }
    }

    const UPDATED_1: &str = include_str!("../fixtures/position_updated.v1.json");
    const ENDED_1: &str = include_str!("../fixtures/ended.v1.json");
    const ENDED_2: &str = include_str!("../fixtures/ended.v2.json");

    /// A fixture with other values; JSON `null` removes a field.
    fn with(fixture: &str, fields: &Value) -> String {
        let mut payload: Value = serde_json::from_str(fixture).unwrap();
        let object = payload.as_object_mut().unwrap();
        for (name, value) in fields.as_object().unwrap() {
            if value.is_null() {
                object.remove(name);
            } else {
                object.insert(name.clone(), value.clone());
            }
        }
        payload.to_string()
    }

    fn decoded(event_type: &str, event_version: &str, payload: &str) -> Value {
        let event = decode(event_type, event_version, payload).unwrap();
        serde_json::to_value(event).unwrap()
    }

    #[test]
    fn credited_time_of_an_old_update_is_an_interval() {
        let expected: Value = serde_json::from_str(&with(
            UPDATED_1,
            &json!({
                "intervals": [{"from": "2026-03-01T20:00:00.123Z", "ms": 59_877}],
                "previous_at": null, "previous_position": null, "credited_ms": null,
            }),
        ))
        .unwrap();
        assert_eq!(decoded("PositionUpdated", "1", UPDATED_1), expected);
    }

    #[test]
    fn old_update_without_credited_time_has_no_interval() {
        for credited_ms in [0, -1] {
            let late = with(
                UPDATED_1,
                &json!({ "applied": false, "credited_ms": credited_ms }),
            );
            let event = decoded("PositionUpdated", "1", &late);
            assert_eq!(event["intervals"], json!([]));
            assert_eq!(event["applied"], false);
        }
    }

    #[rstest]
    #[case::finished("finished", "2026-03-01T20:01:00Z", None)]
    #[case::superseded("superseded", "2026-03-01T20:01:00Z", Some("2026-03-01T20:01:00Z"))]
    #[case::superseded_at_its_latest_observation("superseded", "2026-03-01T20:01:30Z", None)]
    #[case::idle("idle", "2026-03-01T20:01:30Z", None)]
    fn old_end_by_the_service_keeps_the_time_of_its_latest_observation(
        #[case] reason: &str,
        #[case] previous_at: &str,
        #[case] position_at: Option<&str>,
        #[values(("1", ENDED_1), ("2", ENDED_2))] (version, fixture): (&str, &str),
    ) {
        let old = with(
            fixture,
            &json!({ "reason": reason, "previous_at": previous_at }),
        );
        let event = decoded("SessionEnded", version, &old);
        let expected = json!({
            "intervals": [{"from": previous_at, "ms": 30_000}],
            "position_at": position_at,
            "previous_at": null, "previous_position": null, "credited_ms": null,
            "elapsed_ms": 89_877,
        });
        let expected: Value = serde_json::from_str(&with(&old, &expected)).unwrap();
        assert_eq!(event, expected);
    }

    #[test]
    fn all_old_versions_of_an_end_decode_to_the_same_event() {
        assert_eq!(
            decoded("SessionEnded", "1", ENDED_1),
            decoded("SessionEnded", "2", ENDED_2)
        );
    }

    #[rstest]
    #[case("PositionUpdated", "1", UPDATED_1, json!({ "previous_at": null }))]
    #[case("PositionUpdated", "1", UPDATED_1, json!({ "credited_ms": "5" }))]
    #[case("PositionUpdated", "1", UPDATED_1, json!({ "occurred_at": 5 }))]
    #[case("PositionUpdated", "2", UPDATED_1, json!({}))]
    #[case("SessionEnded", "1", ENDED_1, json!({ "started_at": 1 }))]
    #[case("SessionEnded", "1", ENDED_1, json!({ "ended_at": null }))]
    #[case("SessionEnded", "1", ENDED_1, json!({ "credited_ms": null }))]
    #[case("SessionEnded", "2", ENDED_2, json!({ "previous_at": "yesterday" }))]
    #[case("SessionEnded", "2", ENDED_2, json!({ "reason": "bored" }))]
    #[case("SessionEnded", "2", ENDED_2, json!({ "elapsed_ms": null }))]
    #[case("SessionEnded", "3", ENDED_2, json!({}))]
    fn payload_without_the_fields_of_its_version_is_rejected(
        #[case] event_type: &str,
        #[case] event_version: &str,
        #[case] fixture: &str,
        #[case] fields: Value,
    ) {
        let payload = with(fixture, &fields);
        let error = decode(event_type, event_version, &payload).unwrap_err();
        assert!(matches!(error, DecodeError::Payload(_)), "{error}");
    }

    #[rstest]
    #[case("SessionEnded", "1")]
    #[case("SessionEnded", "3")]
    #[case("PositionUpdated", "1")]
    fn payload_with_text_after_it_is_rejected(
        #[case] event_type: &str,
        #[case] event_version: &str,
    ) {
        let payload = format!("{UPDATED_1} {ENDED_2}");
        let error = decode(event_type, event_version, &payload).unwrap_err();
        assert!(matches!(error, DecodeError::Payload(_)), "{error}");
    }

    #[rstest]
    #[case("PositionUpdated", "1")]
    #[case("SessionEnded", "1")]
    #[case("SessionEnded", "2")]
    fn array_as_payload_is_rejected(#[case] event_type: &str, #[case] event_version: &str) {
        let fields = r#"["2026-01-01T00:00:00Z","2026-01-01T01:00:00Z"]"#;
        let error = decode(event_type, event_version, fields).unwrap_err();
        assert!(matches!(error, DecodeError::Payload(_)), "{error}");
    }

    #[test]
    fn unknown_event_is_rejected() {
        let error = decode("SessionPaused", "1", "{}").unwrap_err();
        assert!(matches!(error, DecodeError::UnknownEvent(_)), "{error}");
    }
}
