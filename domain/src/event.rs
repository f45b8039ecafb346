//! What happened. Events carry what was decided, so that a projection needs
//! no state besides its own table: an update says how much active time it
//! adds and since when, and every event says where the session stands after it.

use chrono_tz::Tz;
use cqrs_es::DomainEvent;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BookId, Position, ReaderId, Timestamp};

/// The kind of device read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceType {
    /// A phone.
    Mobile,
    /// A tablet.
    Tablet,
    /// A computer.
    Desktop,
}

impl DeviceType {
    /// As it is written in events and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
            Self::Desktop => "desktop",
        }
    }

    /// Reads what [`DeviceType::as_str`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Mobile, Self::Tablet, Self::Desktop]
            .into_iter()
            .find(|device| device.as_str() == text)
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The reader stopped.
    Finished,
    /// The reader started another session.
    Superseded,
    /// Nothing was heard of the session for too long.
    Idle,
}

impl EndReason {
    /// As it is written in events and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Superseded => "superseded",
            Self::Idle => "idle",
        }
    }

    /// Reads what [`EndReason::as_str`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Finished, Self::Superseded, Self::Idle]
            .into_iter()
            .find(|reason| reason.as_str() == text)
    }
}

/// What the app knows about a book.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Book {
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Its length in pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_pages: Option<u32>,
}

/// A reader began to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionStarted {
    /// Who.
    pub reader_id: ReaderId,
    /// What.
    pub book_id: BookId,
    /// When.
    pub started_at: Timestamp,
    /// Where in the book.
    pub position: Position,
    /// The kind of device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<DeviceType>,
    /// The device, as the app names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The reader's IANA time zone; UTC when it is left out.
    #[serde(default = "utc", skip_serializing_if = "is_utc")]
    #[schemars(with = "String")]
    pub time_zone: Tz,
    /// The exact place, opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
    /// The book, as the app knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub book: Option<Book>,
}

/// A reader was seen at a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PositionUpdated {
    /// Who.
    pub reader_id: ReaderId,
    /// When.
    pub occurred_at: Timestamp,
    /// Where in the book.
    pub position: Position,
    /// The exact place, opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
    /// Whether this became the latest position; `false` for an observation
    /// that is older than one already known.
    pub applied: bool,
    /// When the latest observation before this one was.
    pub previous_at: Timestamp,
    /// The latest position before this one.
    pub previous_position: Position,
    /// Active time that this observation adds, in milliseconds, from
    /// `previous_at` on.
    pub credited_ms: i64,
    /// Active time of the session so far, in milliseconds.
    pub active_ms: i64,
    /// The furthest position so far.
    pub furthest_position: Position,
    /// The reader's IANA time zone; UTC when it is left out.
    #[serde(default = "utc", skip_serializing_if = "is_utc")]
    #[schemars(with = "String")]
    pub time_zone: Tz,
}

/// A session came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionEnded {
    /// Who.
    pub reader_id: ReaderId,
    /// What.
    pub book_id: BookId,
    /// Why.
    pub reason: EndReason,
    /// When reading began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How long the session was open, in milliseconds: from `started_at` to
    /// `ended_at`. Since version 2.
    pub elapsed_ms: i64,
    /// Where reading began.
    pub start_position: Position,
    /// Where it ended.
    pub position: Position,
    /// The exact place, opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
    /// When the latest observation before the end was.
    pub previous_at: Timestamp,
    /// The latest position before the end.
    pub previous_position: Position,
    /// Active time that the end adds, in milliseconds, from `previous_at` on.
    pub credited_ms: i64,
    /// Active time of the whole session, in milliseconds.
    pub active_ms: i64,
    /// The furthest position of the session.
    pub furthest_position: Position,
    /// The reader's IANA time zone; UTC when it is left out.
    #[serde(default = "utc", skip_serializing_if = "is_utc")]
    #[schemars(with = "String")]
    pub time_zone: Tz,
}

/// A reader's data was erased. Nothing is known of the session any more, and
/// what events before this one said is written over in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionErased {
    /// Whose.
    pub reader_id: ReaderId,
    /// When.
    pub erased_at: Timestamp,
}

/// An event of a reading session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum SessionEvent {
    /// A reader began to read.
    SessionStarted(SessionStarted),
    /// A reader was seen at a position.
    PositionUpdated(PositionUpdated),
    /// A session came to its end.
    SessionEnded(SessionEnded),
    /// A reader's data was erased.
    SessionErased(SessionErased),
}

impl SessionEvent {
    /// The names of all events, as [`SessionEvent::name`] gives them.
    pub const NAMES: [&'static str; 4] = [
        "SessionStarted",
        "PositionUpdated",
        "SessionEnded",
        "SessionErased",
    ];

    /// The versions that these are written in, in the same order. A version
    /// changes when a reader of the one before would miss something; what the
    /// log holds of it stays as it is.
    pub const VERSIONS: [&'static str; 4] = ["1", "1", "2", "1"];

    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        Self::NAMES[self.kind()]
    }

    /// The version that the event is written in.
    #[must_use]
    pub fn version(&self) -> &'static str {
        Self::VERSIONS[self.kind()]
    }

    /// Its place in the tables above.
    fn kind(&self) -> usize {
        match self {
            Self::SessionStarted(_) => 0,
            Self::PositionUpdated(_) => 1,
            Self::SessionEnded(_) => 2,
            Self::SessionErased(_) => 3,
        }
    }

    /// Whose session it is.
    #[must_use]
    pub fn reader_id(&self) -> ReaderId {
        match self {
            Self::SessionStarted(event) => event.reader_id,
            Self::PositionUpdated(event) => event.reader_id,
            Self::SessionEnded(event) => event.reader_id,
            Self::SessionErased(event) => event.reader_id,
        }
    }

    /// When it happened.
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

    /// What is in the log stays there: these shapes may gain optional fields
    /// and change in no other way; any other change makes a version.
    #[rstest]
    #[case::started(started())]
    #[case::started_with_the_least(without(
        started(),
        &["device_type", "device_id", "time_zone", "locator", "book"]
    ))]
    #[case::updated(updated())]
    #[case::updated_with_the_least(without(updated(), &["locator", "time_zone"]))]
    #[case::ended(ended())]
    #[case::ended_with_the_least(without(ended(), &["locator", "time_zone"]))]
    #[case::erased(erased())]
    fn an_event_is_read_and_written_as_the_log_has_it(#[case] json: Value) {
        let event: SessionEvent = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&event).unwrap(), json);
        assert_eq!(event.name(), json["type"]);
        assert_eq!(event.event_type(), event.name());
        assert!(SessionEvent::NAMES.contains(&event.name()));
    }

    #[test]
    fn an_event_of_a_later_version_may_carry_more() {
        for mut json in [started(), updated(), ended(), erased()] {
            let event: SessionEvent = serde_json::from_value(json.clone()).unwrap();
            json["mood"] = json!("cheerful");
            assert_eq!(serde_json::from_value::<SessionEvent>(json).unwrap(), event);
        }
    }
}
