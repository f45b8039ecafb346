//! Why a command is refused. A refused command leaves no event.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a command is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionError {
    /// There is no such session, or it is another reader's.
    #[error("Reading session not found")]
    NotFound,
    /// A session that was started cannot be started otherwise.
    #[error("This session id is already in use")]
    AlreadyStarted,
    /// A position came after the end.
    #[error("Cannot update inactive session")]
    Inactive,
    /// An end came after the end.
    #[error("Session already ended")]
    AlreadyEnded,
    /// Not a position in a book.
    #[error("A position is a number from 0 to 100")]
    Position,
    /// Not an id that a client may give a session.
    #[error("A session id is a UUIDv7 made within the last 30 days and at most 24 hours ahead")]
    SessionId,
    /// A time that a client's clock cannot mean.
    #[error("A time lies within the last 30 days and at most 24 hours ahead")]
    OccurredAt,
}
