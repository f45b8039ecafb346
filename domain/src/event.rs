//! The events of a reading session.
//!
//! An event contains what the command decided, so that a projection needs no
//! state besides its own table. Every event contains the session's state after
//! it. Updates and ends also contain the active time that they add and the start
//! of that interval.
//!
//! The doc comments of the types that derive `JsonSchema` are published as
//! descriptions in `nats/schemas`: write them for analytics consumers.

use chrono_tz::Tz;
use cqrs_es::DomainEvent;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BookId, Position, ReaderId, Timestamp};

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
    /// The reader started another session.
    Superseded,
    /// The service ended the session after a period without events.
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
    /// The position at the start of the session.
    pub position: Position,
    /// The kind of device on which the reader reads, if the client sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<DeviceType>,
    /// The device's id in the client app's own format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The reader's IANA time zone, which determines the reader's calendar days. UTC if absent.
    #[serde(default = "utc", skip_serializing_if = "is_utc")]
    #[schemars(with = "String")]
    pub time_zone: Tz,
    /// The exact place in the book in the client app's own format, for example an EPUB CFI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub book: Option<Book>,
}

/// The service recorded the reader's position at a point in time: an observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PositionUpdated {
    pub reader_id: ReaderId,
    /// The time of the observation: the client's time if it sent one.
    /// Otherwise the arrival time at the service, but not before `previous_at`.
    pub occurred_at: Timestamp,
    /// The observed position.
    pub position: Position,
    /// The exact place in the book in the client app's own format, for example an EPUB CFI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
    /// Whether `position` became the session's latest position.
    /// `false` if the session already had this observation or a newer one.
    /// If two client times are equal, the observation with the further position counts as newer.
    pub applied: bool,
    /// The time of the session's latest observation before this event.
    pub previous_at: Timestamp,
    /// The session's latest position before this event.
    pub previous_position: Position,
    /// The active reading time that this event adds, in milliseconds, counted from `previous_at`.
    /// It is limited by the service's setting `ACTIVE_GAP` (two minutes by default), and is 0 if `applied` is `false`.
    pub credited_ms: i64,
    /// The active reading time of the session so far, in milliseconds, including `credited_ms`.
    pub active_ms: i64,
    /// The furthest position of the session so far. Observations that were not applied count too.
    pub furthest_position: Position,
    /// The reader's IANA time zone, which determines the reader's calendar days. UTC if absent.
    #[serde(default = "utc", skip_serializing_if = "is_utc")]
    #[schemars(with = "String")]
    pub time_zone: Tz,
}

/// A session ended. This event summarizes the whole session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionEnded {
    pub reader_id: ReaderId,
    pub book_id: BookId,
    pub reason: EndReason,
    /// The start time of the session.
    pub started_at: Timestamp,
    /// The end time of the session, never before `previous_at`.
    pub ended_at: Timestamp,
    /// The time from `started_at` to `ended_at`, in milliseconds. Version 1 of this event does not contain it.
    pub elapsed_ms: i64,
    /// The position at the start of the session.
    pub start_position: Position,
    /// The position at the end of the session.
    pub position: Position,
    /// The exact place of `position` in the client app's own format, for example an EPUB CFI.
    /// Present only if `position` equals `previous_position` and the latest observation had a locator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
    /// The time of the session's latest observation before the end.
    pub previous_at: Timestamp,
    /// The session's latest position before the end.
    pub previous_position: Position,
    /// The active reading time that the end adds, in milliseconds, counted from `previous_at`.
    /// It is limited by the service's setting `ACTIVE_GAP` (two minutes by default).
    pub credited_ms: i64,
    /// The active reading time of the whole session, in milliseconds, including `credited_ms`.
    pub active_ms: i64,
    /// The furthest position of the session. Observations that were not applied count too.
    pub furthest_position: Position,
    /// The reader's IANA time zone, which determines the reader's calendar days. UTC if absent.
    #[serde(default = "utc", skip_serializing_if = "is_utc")]
    #[schemars(with = "String")]
    pub time_zone: Tz,
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
    pub const VERSIONS: [&'static str; 4] = ["1", "1", "2", "1"];

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

fn utc() -> Tz {
    Tz::UTC
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_utc(zone: &Tz) -> bool {
    *zone == Tz::UTC
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
        })
    }

    fn updated() -> Value {
        json!({
            "type": "PositionUpdated",
            "reader_id": READER,
            "occurred_at": "2026-03-01T20:01:00Z",
            "position": 20.5,
            "locator": "chapter 2",
            "applied": true,
            "previous_at": "2026-03-01T20:00:00.123Z",
            "previous_position": 10,
            "credited_ms": 59_877,
            "active_ms": 59_877,
            "furthest_position": 20.5,
            "time_zone": "Europe/Berlin",
        })
    }

    fn ended() -> Value {
        json!({
            "type": "SessionEnded",
            "reader_id": READER,
            "book_id": BOOK,
            "reason": "superseded",
            "started_at": "2026-03-01T20:00:00.123Z",
            "ended_at": "2026-03-01T20:01:30Z",
            "elapsed_ms": 89_877,
            "start_position": 10,
            "position": 0.0001,
            "locator": "chapter 0",
            "previous_at": "2026-03-01T20:01:00Z",
            "previous_position": 20.5,
            "credited_ms": 30_000,
            "active_ms": 89_877,
            "furthest_position": 20.5,
            "time_zone": "Europe/Berlin",
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
        &["device_type", "device_id", "time_zone", "locator", "book"]
    ))]
    #[case::updated(updated())]
    #[case::updated_without_optional_fields(without(updated(), &["locator", "time_zone"]))]
    #[case::ended(ended())]
    #[case::ended_without_optional_fields(without(ended(), &["locator", "time_zone"]))]
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
