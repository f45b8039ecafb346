//! Errors of the event log, grouped by the caller's next action.

use std::error::Error;

use crate::sqlstate::SqlState;
use crate::upcast::DecodeError;

/// Reading the log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Postgres is unreachable or did not respond in time. Retry later.
    #[error("the event log is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The log contains an event that this build cannot decode. A retry fails
    /// again.
    #[error("event {sequence} of session {session_id} cannot be decoded")]
    Undecodable {
        session_id: String,
        sequence: i64,
        #[source]
        source: DecodeError,
    },
    /// The query does not fit the database, for example because a table is missing, or
    /// the role lacks a right. A retry fails again.
    #[error("the query does not fit the schema of the event log")]
    Broken(#[source] sqlx::Error),
}

impl From<sqlx::Error> for LogError {
    fn from(error: sqlx::Error) -> Self {
        if is_transient(&error) {
            Self::Unavailable(Box::new(error))
        } else {
            Self::Broken(error)
        }
    }
}

/// Whether the same query may succeed later.
fn is_transient(error: &sqlx::Error) -> bool {
    if let Some(state) = SqlState::from_error(error) {
        return !matches!(
            state,
            SqlState::InvalidData | SqlState::InvalidStatement | SqlState::NotPermitted
        );
    }
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
    )
}

/// Appending events failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AppendError {
    /// Another command was appended first. Nothing was written. Load the new
    /// events and decide again.
    #[error("the session or the reader's active-session claim has changed")]
    Conflict,
    /// The queue of waiting commands is full. Nothing was written.
    #[error("too many commands are waiting to be appended")]
    Overloaded,
    /// Postgres is unreachable, or refused the append. Nothing was written.
    #[error("the event log is unavailable")]
    Unavailable,
    /// The connection broke while Postgres may have committed the events.
    #[error("the connection broke: the events may have been written")]
    Unknown,
}

impl AppendError {
    /// A short name, for traces.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
        }
    }
}

/// An error with its causes, outermost first, separated by colons. Leaves out a
/// cause whose message the text already contains.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{message}")]
    struct Outer {
        message: &'static str,
        source: io::Error,
    }

    #[test]
    fn error_chain_appends_each_new_cause() {
        let outer = |message| Outer {
            message,
            source: io::Error::other(LogError::Broken(sqlx::Error::PoolClosed)),
        };
        assert_eq!(
            error_chain(&outer("query failed")),
            "query failed: the query does not fit the schema of the event log: \
             attempted to acquire a connection on a closed pool"
        );
        let repeated = "failed: the query does not fit the schema of the event log";
        assert_eq!(
            error_chain(&outer(repeated)),
            format!("{repeated}: attempted to acquire a connection on a closed pool")
        );
    }

    #[test]
    fn only_transient_errors_are_unavailable() {
        let from = LogError::from;
        assert!(matches!(
            from(sqlx::Error::PoolTimedOut),
            LogError::Unavailable(_)
        ));
        assert!(matches!(
            from(sqlx::Error::RowNotFound),
            LogError::Broken(_)
        ));
    }
}
