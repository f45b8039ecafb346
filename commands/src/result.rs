//! The output of the command side.

use std::sync::Arc;

use domain::{SessionError, SessionId};
use serde::Serialize;

use crate::decision::Decision;
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

/// The effect of an accepted observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The session's version after it.
    pub version: i64,
    /// Whether its position is the latest one.
    pub applied: bool,
    /// `false` if the session had the observation already.
    pub is_new: bool,
}

/// The effect of a batch.
#[derive(Clone, Debug)]
pub struct BatchOutcome {
    /// A result per update, in the order of the request.
    pub results: Vec<Result<Observed, SessionError>>,
    /// The session and the sequence of the last event; `None` if no update was new.
    pub last_event: Option<(SessionId, i64)>,
}

/// The effect of a whole session that was merged.
#[derive(Clone, Debug)]
pub struct SyncOutcome {
    pub session_id: SessionId,
    /// The session after the command.
    pub versioned: Arc<VersionedSession>,
    /// A result per observation, in the order of the request.
    pub results: Vec<Result<Observed, SessionError>>,
    /// Whether the session had no event before.
    pub is_new: bool,
}

/// A session that the service ended because it was idle.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EndedIdle {
    /// From the start to the latest observation, in milliseconds.
    pub duration_ms: i64,
    /// Whether the latest position differs from the start position.
    pub progressed: bool,
}

impl Decision {
    /// The effect on one session.
    pub(crate) fn result(&self, session_id: SessionId) -> CommandResult {
        CommandResult {
            session_id,
            versioned: self.versioned(session_id),
            applied: match self.results.last() {
                Some(Ok(observed)) => observed.applied,
                _ => true,
            },
        }
    }

    /// The session after the command.
    fn versioned(&self, session_id: SessionId) -> Arc<VersionedSession> {
        self.sessions.get(&session_id).cloned().unwrap_or_default()
    }

    /// The effect of [`crate::command::Command::UpdateBatch`].
    pub(crate) fn batch_outcome(&self) -> BatchOutcome {
        BatchOutcome {
            results: self.results.clone(),
            last_event: self
                .events
                .last()
                .map(|(session_id, sequence, _)| (*session_id, *sequence)),
        }
    }

    /// The effect of [`crate::command::Command::Sync`].
    pub(crate) fn sync_outcome(&self, session_id: SessionId) -> SyncOutcome {
        SyncOutcome {
            session_id,
            versioned: self.versioned(session_id),
            results: self.results.clone(),
            is_new: self
                .events
                .iter()
                .any(|(id, sequence, _)| *id == session_id && *sequence == 1),
        }
    }

    /// The effect of [`crate::command::Command::EndIdle`]; `None` if the session is
    /// not idle any more.
    pub(crate) fn ended_idle(&self, session_id: SessionId) -> Option<EndedIdle> {
        self.events.first()?;
        let session = self.sessions.get(&session_id)?.session.started()?;
        Some(EndedIdle {
            duration_ms: session.duration().num_milliseconds(),
            progressed: session.progress.latest.position != session.first().position,
        })
    }
}
