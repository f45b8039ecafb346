//! What can go wrong with the log, by what the caller does next.

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
