//! The errors of the domain. A refused command produces no event.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The reason why a command or a value was refused.
///
/// The event log stores the serialized variants in the responses that it keeps
/// for idempotency keys: keep their names.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionError {
    /// The session does not exist, was erased or belongs to another reader.
    #[error("Reading session not found")]
    NotFound,
    /// A start used the id of a session that has another reader, book or start
    /// position, or that was erased.
    #[error("This session id is already in use")]
    AlreadyStarted,
    /// A position update arrived for a session that its reader has ended.
    #[error("Cannot update inactive session")]
    Inactive,
    /// An end arrived for a session that its reader has ended.
    #[error("Session already ended")]
    AlreadyEnded,
    /// The position is not a number from 0 to 100.
    #[error("A position must be a number from 0 to 100")]
    Position,
    /// The client's session id is not a `UUIDv7`, or its time is out of range.
    #[error(
        "A session id must be a UUIDv7 whose time is at most 30 days ago and at most 24 hours from now"
    )]
    SessionId,
    /// The client's time is out of range.
    #[error("A time must be at most 30 days ago")]
    OccurredAt,
    /// A correction arrived for an active session.
    #[error("Only an ended session can be corrected")]
    StillActive,
    /// The corrected end is before the start or in the future.
    #[error("The corrected end must be between the start of the session and now")]
    CorrectedEnd,
    /// The corrected active time is longer than the session.
    #[error("The corrected active time must not be longer than the session")]
    CorrectedActiveTime,
}

/// A command was not decided.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecideError {
    /// The command is refused.
    #[error(transparent)]
    Refused(#[from] SessionError),
    /// The decision depends on the session's earlier observations. Decide again with
    /// its timeline.
    #[error("the decision needs the session's timeline")]
    TimelineNeeded,
}
