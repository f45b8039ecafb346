//! Events of the log: encoded as stored ([`StoredEvent`]), decoded
//! ([`RecordedEvent`]), and both for consumers that must handle events they cannot
//! decode ([`LogEntry`]).
//!
//! This module reads no database.

use std::sync::Arc;

use domain::{ReaderId, SessionEvent, SessionId, Timestamp};
use serde::Deserialize;

use crate::LogError;
use crate::trace::TraceParent;
use crate::upcast::{self, DecodeError};

/// An event as a row of the log.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Orders all events of the log. Ascends, with gaps.
    pub global_position: i64,
    /// A UUID as text.
    pub session_id: String,
    /// The number of the event in its session, from 1, without gaps.
    pub sequence: i64,
    pub event_type: String,
    /// The version of the payload.
    pub event_version: String,
    /// JSON.
    pub payload: String,
    /// A JSON object, with the member `traceparent` if the request had one or was sampled.
    pub metadata: String,
    pub recorded_at: Timestamp,
}

/// A decoded event, in its current version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent {
    pub global_position: i64,
    pub session_id: SessionId,
    pub sequence: i64,
    pub event: SessionEvent,
}

/// An event of the log, decoded if possible.
#[derive(Clone, Debug)]
pub enum LogEntry {
    /// With the trace context of the request that caused the event, if it had one.
    Event(Arc<RecordedEvent>, Option<TraceParent>),
    Undecodable(Arc<Undecodable>),
}

/// An event that this build cannot decode.
#[derive(Debug)]
pub struct Undecodable {
    pub global_position: i64,
    /// A UUID as text.
    pub session_id: String,
    pub sequence: i64,
    /// The owner of the session, if the payload contains it.
    pub reader_id: Option<ReaderId>,
    pub error: DecodeError,
}

impl LogEntry {
    #[must_use]
    pub fn global_position(&self) -> i64 {
        match self {
            Self::Event(event, _) => event.global_position,
            Self::Undecodable(event) => event.global_position,
        }
    }

    /// A UUID as text.
    #[must_use]
    pub fn session_id(&self) -> String {
        match self {
            Self::Event(event, _) => event.session_id.to_string(),
            Self::Undecodable(event) => event.session_id.clone(),
        }
    }

    #[must_use]
    pub fn sequence(&self) -> i64 {
        match self {
            Self::Event(event, _) => event.sequence,
            Self::Undecodable(event) => event.sequence,
        }
    }

    /// The owner of the session; `None` if the payload cannot be decoded and does
    /// not contain it.
    #[must_use]
    pub fn reader_id(&self) -> Option<ReaderId> {
        match self {
            Self::Event(event, _) => Some(event.event.reader_id()),
            Self::Undecodable(event) => event.reader_id,
        }
    }
}

pub(crate) fn id(session_id: &str, sequence: i64) -> String {
    format!("{session_id}.{sequence}")
}

impl StoredEvent {
    /// The event's id in the stream and in exports. Session and sequence identify
    /// an event permanently.
    #[must_use]
    pub fn id(&self) -> String {
        id(&self.session_id, self.sequence)
    }

    /// The owner of the session; `None` if the payload, of any version, does not
    /// contain it.
    #[must_use]
    pub fn reader_id(&self) -> Option<ReaderId> {
        #[derive(Deserialize)]
        struct Payload {
            reader_id: ReaderId,
        }
        let payload: Payload = serde_json::from_str(&self.payload).ok()?;
        Some(payload.reader_id)
    }

    /// # Errors
    /// [`LogError::Undecodable`].
    pub fn decode(&self) -> Result<RecordedEvent, LogError> {
        self.try_decode().map_err(|source| LogError::Undecodable {
            session_id: self.session_id.clone(),
            sequence: self.sequence,
            source,
        })
    }

    #[must_use]
    pub fn into_log_entry(self) -> LogEntry {
        match self.try_decode() {
            Ok(event) => {
                let traceparent = TraceParent::from_metadata(&self.metadata);
                LogEntry::Event(Arc::new(event), traceparent)
            }
            Err(error) => LogEntry::Undecodable(Arc::new(Undecodable {
                global_position: self.global_position,
                sequence: self.sequence,
                reader_id: self.reader_id(),
                session_id: self.session_id,
                error,
            })),
        }
    }

    fn try_decode(&self) -> Result<RecordedEvent, DecodeError> {
        let event = upcast::decode(&self.event_type, &self.event_version, &self.payload)?;
        Ok(RecordedEvent {
            global_position: self.global_position,
            session_id: self.session_id.parse()?,
            sequence: self.sequence,
            event,
        })
    }
}
