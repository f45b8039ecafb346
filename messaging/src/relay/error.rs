//! Why a relay cannot publish.

use eventlog::LogError;
use thiserror::Error;

use crate::stream::StreamError;

/// Why the relay restarts from the end of the stream.
#[derive(Debug, Error)]
pub enum RelayError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("NATS did not accept or acknowledge an event")]
    Publish(#[source] async_nats::Error),
    /// The stream has changed: another relay leads, or did.
    #[error(
        "an event was stored with stream sequence {actual} instead of {expected} \
             (duplicate: {duplicate}); another relay may be publishing"
    )]
    UnexpectedSequence {
        expected: u64,
        actual: u64,
        duplicate: bool,
    },
    /// The stream has changed while the relay was idle.
    #[error(
        "the stream ends with stream sequence {actual} instead of {expected}; another relay may \
             be publishing"
    )]
    StreamChanged { expected: u64, actual: u64 },
    /// The log was restored from an older copy. A relay that continued would
    /// publish other events with the same global positions.
    #[error(
        "the stream ends with event {id} at global position {global_position}, which is not in \
             the log: the log has lost its end; restore the log, or delete the stream to publish \
             the whole log again"
    )]
    LogLostItsEnd { id: String, global_position: i64 },
    /// An empty stream does not contain the relay's cursor, and no usable copy of it is
    /// saved. A relay that started at the beginning of the log would send all events to
    /// consumers that have received them before.
    #[error(
        "the stream {stream} is empty after {stream_sequence} messages, and the stream \
             {cursor_stream} does not contain its end; delete the stream {stream} to publish the \
             whole log again"
    )]
    StreamLostItsEnd {
        stream: String,
        cursor_stream: String,
        stream_sequence: u64,
    },
}

impl RelayError {
    /// A short name, for traces.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Log(_) => "log",
            Self::Stream(_) => "stream",
            Self::Publish(_) => "not_acknowledged",
            Self::UnexpectedSequence { .. } | Self::StreamChanged { .. } => "stream_changed",
            Self::LogLostItsEnd { .. } => "log_lost_its_end",
            Self::StreamLostItsEnd { .. } => "stream_lost_its_end",
        }
    }

    /// Whether only an operator can fix it.
    pub(super) fn needs_operator(&self) -> bool {
        matches!(
            self,
            Self::LogLostItsEnd { .. }
                | Self::StreamLostItsEnd { .. }
                | Self::Stream(StreamError::Different { .. } | StreamError::NoSpace { .. })
                | Self::Log(LogError::Undecodable { .. } | LogError::Broken(_))
        )
    }
}

impl From<sqlx::Error> for RelayError {
    fn from(error: sqlx::Error) -> Self {
        Self::Log(error.into())
    }
}
