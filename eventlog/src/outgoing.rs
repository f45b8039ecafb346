//! An event on its way to the stream, with what routing needs.

use std::borrow::Cow;

use domain::{ReaderId, Timestamp};
use serde::Deserialize;
use uuid::Uuid;

use crate::{Stored, recorded};

/// An event on its way to the stream.
#[derive(Clone, Debug)]
pub struct OutgoingEvent {
    /// Its place in the whole log.
    pub global_position: i64,
    /// Its session, a UUID as text.
    pub session_id: String,
    /// Its place in the session, from 1.
    pub sequence: i64,
    /// The name of the event.
    pub event_type: Cow<'static, str>,
    /// The version of its payload.
    pub event_version: Cow<'static, str>,
    /// The event, as JSON.
    pub payload: String,
    /// What came with the command, as JSON.
    pub metadata: String,
    /// Whose session it is; the nil UUID when the event does not name a reader.
    pub reader_id: ReaderId,
    /// When it happened.
    pub time: Timestamp,
}

impl From<Stored> for OutgoingEvent {
    fn from(stored: Stored) -> Self {
        let routing: Routing = serde_json::from_str(&stored.payload).unwrap_or_default();
        Self {
            global_position: stored.global_position,
            session_id: stored.session_id,
            sequence: stored.sequence,
            event_type: stored.event_type.into(),
            event_version: stored.event_version.into(),
            payload: stored.payload,
            metadata: stored.metadata,
            reader_id: routing
                .reader_id
                .unwrap_or_else(|| ReaderId::from(Uuid::nil())),
            time: routing
                .occurred_at
                .or(routing.ended_at)
                .or(routing.started_at)
                .or(routing.erased_at)
                .unwrap_or(stored.recorded_at),
        }
    }
}

impl OutgoingEvent {
    /// The event's id, the same wherever it is carried.
    #[must_use]
    pub fn id(&self) -> String {
        recorded::id(&self.session_id, self.sequence)
    }
}

/// What routing needs of any event, of a version from the future too. What
/// does not have it is published all the same: the stream is the log.
#[derive(Default, Deserialize)]
struct Routing {
    #[serde(default)]
    reader_id: Option<ReaderId>,
    occurred_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    erased_at: Option<Timestamp>,
}

#[cfg(test)]
impl OutgoingEvent {
    /// An event at a position.
    pub(crate) fn example(global_position: i64) -> Self {
        Self {
            global_position,
            session_id: Uuid::nil().to_string(),
            sequence: 1,
            event_type: "SessionStarted".into(),
            event_version: "1".into(),
            payload: "{}".to_owned(),
            metadata: "{}".to_owned(),
            reader_id: ReaderId::from(Uuid::nil()),
            time: Timestamp::UNIX_EPOCH,
        }
    }
}
