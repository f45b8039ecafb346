//! What can go wrong with the log, by what the caller does next.

use domain::SessionError;
use thiserror::Error;

use crate::upcast::DecodeError;

/// The log could not be read.
#[derive(Debug, Error)]
pub enum LogError {
    /// Postgres did not answer, or not in time; try again later.
    #[error("the event log is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An event in the log cannot be understood; trying again does not help.
    #[error("event {sequence} of session {session_id} cannot be decoded")]
    Undecodable {
        /// Whose event it is.
        session_id: String,
        /// Which one.
        sequence: i64,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// Postgres understood the question otherwise than it was meant; trying
    /// again does not help.
    #[error("the event log is not as this build knows it")]
    Broken(#[source] sqlx::Error),
}

impl From<sqlx::Error> for LogError {
    fn from(error: sqlx::Error) -> Self {
        if may_pass(&error) {
            Self::Unavailable(Box::new(error))
        } else {
            Self::Broken(error)
        }
    }
}

/// Whether the same question may be answered later.
fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        // Wrong data (22), a wrong statement or a missing table or right (42).
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            !code.starts_with("22") && !code.starts_with("42")
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Events could not be appended.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    /// Somebody else wrote first. Nothing was appended: load what is new and
    /// decide again.
    #[error("the session or the reader's claim has changed")]
    Conflict,
    /// As many commands wait as may wait. Nothing was appended.
    #[error("too many commands are waiting")]
    Overloaded,
    /// Postgres refused or did not answer before anything was written.
    #[error("the event log is unavailable")]
    Unavailable,
    /// The connection broke at a moment when the events may have been written.
    #[error("it is not known whether the events were written")]
    Unknown,
}

/// A command came to nothing.
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
