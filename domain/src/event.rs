//! The events of a reading session.
//!
//! An event contains what the command decided, so that a projection needs no
//! state besides its own table. Every event contains the session's state after
//! it. Updates and ends also contain the intervals of active time that they add.
//!
//! The doc comments of the types that derive `JsonSchema` are published as
//! descriptions in `nats/schemas`: write them for analytics consumers.

use cqrs_es::DomainEvent;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::intervals::Interval;
use crate::{BookId, Position, ReaderId, Timestamp, ZoneName};

/// The kind of device on which the reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceType {
    /// A phone.
    Mobile,
    /// A tablet.
    Tablet,
    /// A desktop or laptop computer.
    Desktop,
}

impl DeviceType {
    /// The name in events and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
            Self::Desktop => "desktop",
        }
    }

    /// The inverse of [`DeviceType::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Mobile, Self::Tablet, Self::Desktop]
            .into_iter()
            .find(|device| device.as_str() == text)
    }
}

/// The reason why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The reader ended the session.
    Finished,
    /// The reader continued in another session. The service concluded this; a newer observation makes the session active again.
    Superseded,
    /// The session had no observation for a long time. The service concluded this; a newer observation makes the session active again.
    Idle,
}

impl EndReason {
    /// The name in events and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Superseded => "superseded",
            Self::Idle => "idle",
        }
    }

    /// The inverse of [`EndReason::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Finished, Self::Superseded, Self::Idle]
            .into_iter()
            .find(|reason| reason.as_str() == text)
    }
}

/// Details of a book, as the client app sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Book {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The number of pages in the book.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_pages: Option<u32>,
}

/// A reader started a reading session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionStarted {
    pub reader_id: ReaderId,
    pub book_id: BookId,
    /// The start time: the client's time, or the arrival time at the service if the client sent none.
    pub started_at: Timestamp,
    /// The start time by the device's own clock, if it differs from `started_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_time: Option<Timestamp>,
    /// The position at the start of the session.
    pub position: Position,
    /// The kind of device on which the reader reads, if the client sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<DeviceType>,
    /// The device's id in the client app's own format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The reader's time zone, which determines the reader's calendar days: an IANA name or a fixed offset such as `+02:00`. UTC if absent.
    #[serde(default, skip_serializing_if = "ZoneName::is_utc")]
    pub time_zone: ZoneName,
    /// The exact place in the book in the client app's own format, for example an EPUB CFI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub book: Option<Book>,
    /// Present if the session is not active from its start on, because the reader has a newer observation in another session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
}

/// The service recorded the reader's position at a point in time: an observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PositionUpdated {
    pub reader_id: ReaderId,
    /// The time of the observation: the client's time if it sent one, otherwise the arrival time at the service.
    pub occurred_at: Timestamp,
    /// The time of the observation by the device's own clock, if it differs from `occurred_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_time: Option<Timestamp>,
    /// The observed position.
    pub position: Position,
    /// The exact place in the book in the client app's own format, for example an EPUB CFI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
    /// Whether `position` became the session's latest position.
    /// `false` if the session already had a newer observation.
    pub applied: bool,
    /// The intervals of active reading time that this event adds, usually one. They do not overlap those of the session's earlier events.
    /// The active time of a session is the union of the time after each observation, limited to the service's setting `ACTIVE_GAP` (two minutes by default), between the first observation and the last.
    pub intervals: Vec<Interval>,
    /// The active reading time of the session so far, in milliseconds, including `intervals`.
    pub active_ms: i64,
    /// Whether the reader has set the active time by a correction. Observations then add no active time.
    #[serde(default, skip_serializing_if = "is_false")]
    pub active_fixed: bool,
    /// The furthest position of the session so far. Observations that were not applied count too.
    pub furthest_position: Position,
    /// The time of the session's first observation, if it is not the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The position of that observation. Present with `started_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_position: Option<Position>,
    /// The end of the session after this event. Absent if the session is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Why the session is not active after this event. Present with `ended_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// The reader's time zone, which determines the reader's calendar days: an IANA name or a fixed offset such as `+02:00`. UTC if absent.
    #[serde(default, skip_serializing_if = "ZoneName::is_utc")]
    pub time_zone: ZoneName,
}

/// A session ended, or its end was corrected. This event summarizes the whole session.
///
/// After the reason `finished`, late observations up to `ended_at` and corrections may follow. After `superseded` and `idle`, observations of any time may follow, and then another end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionEnded {
    pub reader_id: ReaderId,
    pub book_id: BookId,
    pub reason: EndReason,
    /// The time of the session's first observation.
    pub started_at: Timestamp,
    /// The end time of the session. If the reader did not end it, the time of its latest observation.
    pub ended_at: Timestamp,
    /// The time from `started_at` to `ended_at`, in milliseconds.
    pub elapsed_ms: i64,
    /// The position of the session's first observation.
    pub start_position: Position,
    /// The position at the end of the session.
    pub position: Position,
    /// The time of the observation that `position` is from. Absent if the reader ended the session with a position, or if the service ended it at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position_at: Option<Timestamp>,
    /// The time of the observation that `position` is from by the device's own clock, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_time: Option<Timestamp>,
    /// The exact place of `position` in the client app's own format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
    /// The intervals of active reading time that this event adds. Empty if the service ended the session.
    pub intervals: Vec<Interval>,
    /// Whether `intervals` are all intervals of the session. They then replace those of its earlier events.
    #[serde(default, skip_serializing_if = "is_false")]
    pub intervals_complete: bool,
    /// Whether the reader has corrected an earlier end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub corrected: bool,
    /// The active reading time of the whole session, in milliseconds, including `intervals`.
    pub active_ms: i64,
    /// Whether the reader has set the active time by a correction. Observations then add no active time.
    #[serde(default, skip_serializing_if = "is_false")]
    pub active_fixed: bool,
    /// The furthest position of the session. Observations that were not applied count too.
    pub furthest_position: Position,
    /// The reader's time zone, which determines the reader's calendar days: an IANA name or a fixed offset such as `+02:00`. UTC if absent.
    #[serde(default, skip_serializing_if = "ZoneName::is_utc")]
    pub time_zone: ZoneName,
}

/// The reader's data was erased, including this session.
/// Consumers must erase their own data about the session too.
/// In the log, copies of this event overwrite the session's earlier events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionErased {
    pub reader_id: ReaderId,
    /// The time of the erasure request.
    pub erased_at: Timestamp,
}

/// An event of a reading session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum SessionEvent {
    SessionStarted(SessionStarted),
    PositionUpdated(PositionUpdated),
    SessionEnded(SessionEnded),
    SessionErased(SessionErased),
}

impl SessionEvent {
    /// The names of all events, as [`Self::name`] returns them.
    pub const NAMES: [&'static str; 4] = [
        "SessionStarted",
        "PositionUpdated",
        "SessionEnded",
        "SessionErased",
    ];

    /// The current versions of all events, in the order of [`Self::NAMES`]. An
    /// optional field needs no new version; any other change of an event does.
    /// Events in the log keep the version in which they were written.
    pub const VERSIONS: [&'static str; 4] = ["1", "2", "3", "1"];

    #[must_use]
    pub fn name(&self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// The version in which a new event of this kind is written.
    #[must_use]
    pub fn version(&self) -> &'static str {
        Self::VERSIONS[self.index()]
    }

    /// The index into [`Self::NAMES`] and [`Self::VERSIONS`].
    fn index(&self) -> usize {
        match self {
            Self::SessionStarted(_) => 0,
            Self::PositionUpdated(_) => 1,
            Self::SessionEnded(_) => 2,
            Self::SessionErased(_) => 3,
        }
    }

    #[must_use]
    pub fn reader_id(&self) -> ReaderId {
        match self {
            Self::SessionStarted(event) => event.reader_id,
            Self::PositionUpdated(event) => event.reader_id,
            Self::SessionEnded(event) => event.reader_id,
            Self::SessionErased(event) => event.reader_id,
        }
    }

    /// The time at which the event happened, which is not when it was recorded.
    #[must_use]
    pub fn occurred_at(&self) -> Timestamp {
        match self {
            Self::SessionStarted(event) => event.started_at,
            Self::PositionUpdated(event) => event.occurred_at,
            Self::SessionEnded(event) => event.ended_at,
            Self::SessionErased(event) => event.erased_at,
        }
    }
}

impl DomainEvent for SessionEvent {
    fn event_type(&self) -> String {
        self.name().to_owned()
    }

    fn event_version(&self) -> String {
        self.version().to_owned()
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    const READER: &str = "00000000-0000-0000-0000-000000000001";
    const BOOK: &str = "00000000-0000-0000-0000-000000000002";

    fn started() -> Value {
        json!({
            "type": "SessionStarted",
            "reader_id": READER,
            "book_id": BOOK,
            "started_at": "2026-03-01T20:00:00.123Z",
            "position": 10,
            "device_type": "tablet",
            "device_id": "kitchen",
            "time_zone": "Europe/Berlin",
            "locator": "chapter 1",
            "book": {"title": "Middlemarch", "author": "George Eliot", "total_pages": 880},
            "device_time": "2000-01-01T00:00:00Z",
            "end_reason": "superseded",
        })
    }

    fn updated() -> Value {
        json!({
            "type": "PositionUpdated",
            "reader_id": READER,
            "occurred_at": "2026-03-01T20:01:00Z",
            "device_time": "2000-01-01T00:01:00Z",
            "position": 20.5,
            "locator": "chapter 2",
            "applied": true,
            "intervals": [{"from": "2026-03-01T20:00:00.123Z", "ms": 59_877}],
            "active_ms": 59_877,
            "active_fixed": true,
            "furthest_position": 20.5,
            "started_at": "2026-03-01T19:59:00Z",
            "start_position": 9.5,
            "ended_at": "2026-03-01T20:01:00Z",
            "end_reason": "superseded",
            "time_zone": "Europe/Berlin",
        })
    }

    fn ended() -> Value {
        json!({
            "type": "SessionEnded",
            "reader_id": READER,
            "book_id": BOOK,
            "reason": "finished",
            "started_at": "2026-03-01T20:00:00.123Z",
            "ended_at": "2026-03-01T20:01:30Z",
            "elapsed_ms": 89_877,
            "start_position": 10,
            "position": 0.0001,
            "position_at": "2026-03-01T20:01:00Z",
            "device_time": "2000-01-01T00:01:00Z",
            "locator": "chapter 0",
            "intervals": [{"from": "2026-03-01T20:01:00Z", "ms": 30_000}],
            "intervals_complete": true,
            "corrected": true,
            "active_ms": 89_877,
            "active_fixed": true,
            "furthest_position": 20.5,
            "time_zone": "+02:00",
        })
    }

    fn erased() -> Value {
        json!({
            "type": "SessionErased",
            "reader_id": READER,
            "erased_at": "2026-03-02T08:00:00.001Z",
        })
    }

    fn without(mut event: Value, fields: &[&str]) -> Value {
        for field in fields {
            event.as_object_mut().unwrap().remove(*field);
        }
        event
    }

    /// The log keeps its events: these JSON objects may only gain optional
    /// fields. Any other change needs a new version.
    #[rstest]
    #[case::started(started())]
    #[case::started_without_optional_fields(without(
        started(),
        &["device_type", "device_id", "device_time", "time_zone", "locator", "book", "end_reason"]
    ))]
    #[case::updated(updated())]
    #[case::updated_without_optional_fields(without(
        updated(),
        &["device_time", "locator", "active_fixed", "started_at", "start_position", "ended_at", "end_reason", "time_zone"]
    ))]
    #[case::ended(ended())]
    #[case::ended_without_optional_fields(without(
        ended(),
        &["position_at", "device_time", "locator", "intervals_complete", "corrected", "active_fixed", "time_zone"]
    ))]
    #[case::erased(erased())]
    fn event_json_of_the_log_round_trips_unchanged(#[case] json: Value) {
        let event: SessionEvent = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&event).unwrap(), json);
        assert_eq!(event.name(), json["type"]);
        assert_eq!(event.event_type(), event.name());
        assert!(SessionEvent::NAMES.contains(&event.name()));
    }

    #[test]
    fn unknown_fields_are_ignored() {
        for mut json in [started(), updated(), ended(), erased()] {
            let event: SessionEvent = serde_json::from_value(json.clone()).unwrap();
            json["mood"] = json!("cheerful");
            assert_eq!(serde_json::from_value::<SessionEvent>(json).unwrap(), event);
        }
    }
}
