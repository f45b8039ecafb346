//! An event with its place in the log.

use std::sync::Arc;

use domain::{ReaderId, SessionEvent, SessionId, Timestamp};
use serde::Deserialize;

use crate::LogError;
use crate::upcast::{self, DecodeError};

/// An event as the log holds it, undecoded.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its place in the whole log; grows, with holes.
    pub global_position: i64,
    /// Its session, a UUID as text.
    pub session_id: String,
    /// Its place in the session, from 1, without holes.
    pub sequence: i64,
    /// The name of the event.
    pub event_type: String,
    /// The version of its payload.
    pub event_version: String,
    /// The event, as JSON.
    pub payload: String,
    /// What came with the command, as JSON.
    pub metadata: String,
    /// When it was written.
    pub recorded_at: Timestamp,
}

/// An event as today's code knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the whole log.
    pub global_position: i64,
    /// Its session.
    pub session_id: SessionId,
    /// Its place in the session, from 1.
    pub sequence: i64,
    /// The event.
    pub event: SessionEvent,
}

/// What stands at a place of the log.
#[derive(Clone, Debug)]
pub enum Logged {
    /// An event.
    Event(Arc<Recorded>),
    /// What this build cannot read as one.
    Undecodable(Arc<Undecodable>),
}

/// An event that this build cannot read.
#[derive(Debug)]
pub struct Undecodable {
    /// Its place in the whole log.
    pub global_position: i64,
    /// Its session, a UUID as text.
    pub session_id: String,
    /// Its place in the session, from 1.
    pub sequence: i64,
    /// Whose session it is, if that can be told.
    pub reader_id: Option<ReaderId>,
    /// Why it cannot be read.
    pub error: DecodeError,
}

impl Logged {
    /// Its place in the whole log.
    #[must_use]
    pub fn global_position(&self) -> i64 {
        match self {
            Self::Event(event) => event.global_position,
            Self::Undecodable(event) => event.global_position,
        }
    }

    /// Its session, a UUID as text.
    #[must_use]
    pub fn session_id(&self) -> String {
        match self {
            Self::Event(event) => event.session_id.to_string(),
            Self::Undecodable(event) => event.session_id.clone(),
        }
    }

    /// Its place in the session, from 1.
    #[must_use]
    pub fn sequence(&self) -> i64 {
        match self {
            Self::Event(event) => event.sequence,
            Self::Undecodable(event) => event.sequence,
        }
    }

    /// Whose session it is, if that can be told.
    #[must_use]
    pub fn reader_id(&self) -> Option<ReaderId> {
        match self {
            Self::Event(event) => Some(event.event.reader_id()),
            Self::Undecodable(event) => event.reader_id,
        }
    }
}

/// The id of a session's event.
pub(crate) fn id(session_id: &str, sequence: i64) -> String {
    format!("{session_id}.{sequence}")
}

impl Stored {
    /// The event's id, the same wherever it is carried: its session and its
    /// sequence name it for good.
    #[must_use]
    pub fn id(&self) -> String {
        id(&self.session_id, self.sequence)
    }

    /// The event in today's version.
    ///
    /// # Errors
    /// [`LogError::Undecodable`] when no version that is known fits.
    pub fn decode(&self) -> Result<Recorded, LogError> {
        self.recorded().map_err(|source| LogError::Undecodable {
            session_id: self.session_id.clone(),
            sequence: self.sequence,
            source,
        })
    }

    /// The event in today's version, or what can be told of it.
    #[must_use]
    pub fn logged(self) -> Logged {
        match self.recorded() {
            Ok(event) => Logged::Event(Arc::new(event)),
            Err(error) => Logged::Undecodable(Arc::new(Undecodable {
                global_position: self.global_position,
                sequence: self.sequence,
                reader_id: reader(&self.payload),
                session_id: self.session_id,
                error,
            })),
        }
    }

    fn recorded(&self) -> Result<Recorded, DecodeError> {
        let event = upcast::decode(&self.event_type, &self.event_version, &self.payload)?;
        Ok(Recorded {
            global_position: self.global_position,
            session_id: self.session_id.parse()?,
            sequence: self.sequence,
            event,
        })
    }
}

/// The reader that a payload of any version names.
fn reader(payload: &str) -> Option<ReaderId> {
    #[derive(Deserialize)]
    struct Payload {
        reader_id: ReaderId,
    }
    let payload: Payload = serde_json::from_str(payload).ok()?;
    Some(payload.reader_id)
}
