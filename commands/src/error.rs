//! Errors of commands, grouped by the caller's next action.

use domain::SessionError;
use eventlog::{AppendError, LogError};
use thiserror::Error;

/// A command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The domain refuses the command. No event was written.
    #[error(transparent)]
    Refused(#[from] SessionError),
    /// Other processes changed the session during every attempt. No event was
    /// written.
    #[error("other commands kept changing the session")]
    Conflict,
    /// The idempotency key is in use: by the same command, committed earlier or
    /// by another process, or by a different command. No event was written.
    #[error("the idempotency key was used by an earlier command")]
    Repeated,
    /// A queue of waiting commands is full. No event was written.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The log is unreachable, or the outcome is unknown. An observation with its
    /// own time can be sent again: it has no second effect.
    #[error("the event log is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// This build cannot read the log. A retry fails again.
    #[error(transparent)]
    Broken(LogError),
}

impl CommandError {
    /// An active session accepts every observation. So a conflict only means that
    /// the session is very busy.
    pub(crate) fn for_observation(self) -> Self {
        match self {
            Self::Conflict => Self::Overloaded,
            other => other,
        }
    }
}

impl From<sqlx::Error> for CommandError {
    fn from(error: sqlx::Error) -> Self {
        LogError::from(error).into()
    }
}

impl From<AppendError> for CommandError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict => Self::Conflict,
            AppendError::Overloaded => Self::Overloaded,
            AppendError::Unavailable | AppendError::Unknown => Self::Unavailable(Box::new(error)),
        }
    }
}

impl From<LogError> for CommandError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(cause) => Self::Unavailable(cause),
            LogError::Undecodable { .. } | LogError::Broken(_) => Self::Broken(error),
        }
    }
}
