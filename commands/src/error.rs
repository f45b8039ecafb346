//! Why a command failed, by what the caller does next.

use domain::SessionError;
use eventlog::{AppendError, LogError};
use thiserror::Error;

/// A command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The domain refuses it; no event was written.
    #[error(transparent)]
    Refused(#[from] SessionError),
    /// Others kept changing the same session; no event was written.
    #[error("the session is changed by others at the same time")]
    Conflict,
    /// Its idempotency key is in use: the command was done before, or at the
    /// same time by another process, or the key is another command's.
    #[error("a command with this idempotency key was done before")]
    Repeated,
    /// As many commands wait as may wait; no event was written.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The log cannot be reached, or the outcome is unknown; safe to repeat
    /// for observations with a time of their own.
    #[error("the event log is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is in the log cannot be understood; trying again does not help.
    #[error(transparent)]
    Broken(LogError),
}

impl CommandError {
    /// An observation fits any state, so a conflict only means that the
    /// session is very busy.
    pub(crate) fn of_an_observation(self) -> Self {
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
