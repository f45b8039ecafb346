//! An event to be published to the stream, with the fields that routing needs.
//!
//! Every event of the log is published, even one that this build cannot decode.
//! This module never rejects an event.

use std::borrow::Cow;

use domain::{ReaderId, Timestamp};
use serde::Deserialize;
use uuid::Uuid;

use crate::{StoredEvent, recorded};

/// An event to be published. Fields without a comment are those of
/// [`StoredEvent`].
#[derive(Clone, Debug)]
pub struct OutgoingEvent {
    pub global_position: i64,
    pub session_id: String,
    pub sequence: i64,
    pub event_type: Cow<'static, str>,
    pub event_version: Cow<'static, str>,
    pub payload: String,
    pub metadata: String,
    /// The owner of the session; the nil UUID if the payload has no reader.
    pub reader_id: ReaderId,
    /// When the event occurred; when it was recorded if the payload has no time.
    pub time: Timestamp,
}

impl From<StoredEvent> for OutgoingEvent {
    fn from(stored: StoredEvent) -> Self {
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
    /// The event's id, the same as [`StoredEvent::id`].
    #[must_use]
    pub fn id(&self) -> String {
        recorded::id(&self.session_id, self.sequence)
    }
}

/// The payload fields that routing needs, of any event and any version, also of
/// future ones. Each is optional, because an event is published even without them.
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
    /// An event for unit tests.
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
