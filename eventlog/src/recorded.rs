//! An event with its place in the log.

use domain::{SessionEvent, SessionId, Timestamp};

use crate::LogError;
use crate::upcast;

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

impl Stored {
    /// The event's id, the same wherever it is carried: its session and its
    /// sequence name it for good.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}.{}", self.session_id, self.sequence)
    }

    /// The event in today's version.
    ///
    /// # Errors
    /// [`LogError::Undecodable`] when no version that is known fits.
    pub fn decode(&self) -> Result<Recorded, LogError> {
        upcast::decode(&self.event_type, &self.event_version, &self.payload)
            .and_then(|event| {
                Ok(Recorded {
                    global_position: self.global_position,
                    session_id: self.session_id.parse()?,
                    sequence: self.sequence,
                    event,
                })
            })
            .map_err(|source| LogError::Undecodable {
                session_id: self.session_id.clone(),
                sequence: self.sequence,
                source,
            })
    }
}
