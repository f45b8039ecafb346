//! The output of the command side.

use std::sync::Arc;

use domain::{SessionError, SessionId};
use serde::Serialize;

use crate::repository::VersionedSession;

/// A command that is committed to the log.
#[derive(Clone, Debug)]
pub struct Committed<R> {
    /// The response that the caller built. If the command has an idempotency
    /// key, the log contains it too.
    pub response: R,
    /// The global position of the last event that the response depends on.
    /// `None` if there is no such event, because all updates of a batch were
    /// refused.
    pub global_position: Option<i64>,
}

/// The effect of a command on one session.
#[derive(Clone, Debug)]
pub struct CommandResult {
    pub session_id: SessionId,
    /// The session after the command.
    pub versioned: Arc<VersionedSession>,
    /// Whether the command's position is the latest one. `false` for a late
    /// observation.
    pub applied: bool,
}

/// The effect of a batch.
#[derive(Clone, Debug)]
pub struct BatchOutcome {
    /// A result per update, in the order of the request: the session's version
    /// after the update and whether its position is the latest one, or why the
    /// update was refused.
    pub results: Vec<Result<(i64, bool), SessionError>>,
    /// The session and the sequence of the last event; `None` if all updates were
    /// refused.
    pub last_event: Option<(SessionId, i64)>,
}

/// A session that the service ended because it was idle.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EndedIdle {
    /// From the start to the latest observation, in milliseconds.
    pub duration_ms: i64,
    /// Whether the latest position differs from the start position.
    pub progressed: bool,
}
