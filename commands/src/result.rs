//! What goes into a command besides its content, and what comes out.

use std::sync::Arc;

use domain::{SessionError, SessionId, UpdatePosition};
use serde::Serialize;

use eventlog::idempotency::Key;

use crate::repository::VersionedSession;

/// What comes with a command besides its content.
#[derive(Clone, Debug, Default)]
pub struct CommandContext {
    /// The W3C trace context of the request, to be carried along.
    pub traceparent: Option<String>,
    /// Makes the command repeatable: its answer is kept under this key.
    pub key: Option<Key>,
}

/// What a command on one session leads to.
#[derive(Clone, Debug)]
pub struct CommandResult {
    /// The session it was for.
    pub session_id: SessionId,
    /// The session afterwards.
    pub versioned: Arc<VersionedSession>,
    /// Whether the position it brought is the latest now.
    pub applied: bool,
}

/// One observation of a batch.
#[derive(Clone, Debug)]
pub struct BatchUpdate {
    /// The session seen.
    pub session_id: SessionId,
    /// What was seen.
    pub update: UpdatePosition,
}

/// A session that was ended because nothing was heard of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EndedIdle {
    /// How long it was open until its last activity, in milliseconds.
    pub duration_ms: i64,
    /// Whether the reader came anywhere.
    pub progressed: bool,
}

/// What a batch leads to.
#[derive(Clone, Debug)]
pub struct BatchOutcome {
    /// For each update, in the order given: the session's version after it and
    /// whether it was applied, or why it was refused.
    pub results: Vec<Result<(i64, bool), SessionError>>,
    /// The last event; `None` when all was refused.
    pub last_event: Option<(SessionId, i64)>,
}

/// A command that is in the log.
#[derive(Clone, Debug)]
pub struct Committed<A> {
    /// What its client is told.
    pub answer: A,
    /// The global position of the last event that the answer rests on; `None`
    /// when there is none, because all of a batch was refused.
    pub global_position: Option<i64>,
}

/// A reader's active session.
#[derive(Clone, Debug)]
pub struct Active {
    /// Its id.
    pub session_id: SessionId,
    /// The session.
    pub versioned: Arc<VersionedSession>,
    /// The global position of its last event.
    pub global_position: i64,
}

impl CommandContext {
    pub(crate) fn metadata(&self) -> String {
        match &self.traceparent {
            Some(traceparent) => serde_json::json!({ "traceparent": traceparent }).to_string(),
            None => "{}".to_owned(),
        }
    }
}
