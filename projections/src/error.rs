//! The error of the operations on projections: replay, verification, warm-up
//! and retention. The variants are grouped by the caller's next action.

use thiserror::Error;

use crate::CommitError;
use crate::cache::CacheError;
use crate::worker::TooManyDeadLetters;

/// An operation on a projection did not finish. Committed work is kept.
#[derive(Debug, Error)]
pub enum OperationError {
    /// The caller stopped it. The caller does nothing, or starts it again later.
    #[error("stopped by request; start it again to continue")]
    Stopped,
    /// The caller waits for the other operation. Contains the projection.
    #[error("a replay or verification of {0} is running elsewhere; wait until it has finished")]
    AlreadyRunning(&'static str),

    // An operator must act first.
    /// The settings of a server are invalid.
    #[error("a connection cannot be set up; check the settings")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Views refer to tables by identity, so after the swap they would still
    /// read the retired tables. Contains the names of the views.
    #[error(
        "views read the tables of the projection and would keep the retired ones: {0}; drop the \
         views and create them again after the replay"
    )]
    Views(String),
    /// An operator discarded an event after this replay had applied it.
    #[error("an event that the replay has applied was discarded; start again with --restart")]
    Discarded,
    #[error(transparent)]
    TooManyDeadLetters(#[from] TooManyDeadLetters),
    /// Other transactions never released the live tables for long enough.
    #[error(
        "other transactions hold the live tables all the time; end long transactions and retry"
    )]
    Busy,
    /// No worker completes the rows that are ahead of the checkpoint.
    #[error(
        "rows of {0} are ahead of its checkpoint, and no worker completes the others; start a \
         process with the role `projections`, resume the projection if it is paused, and retry"
    )]
    Ahead(&'static str),

    // The caller tries again later.
    #[error("Postgres failed; retry when it is available")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Log(#[from] eventlog::LogError),
    /// Redis refused the entries as too old, or it was emptied during the
    /// operation.
    #[error("Redis is too slow or was emptied during the operation; retry")]
    CacheTooSlow,
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The checkpoint of the cache could not be created.
    #[error(transparent)]
    Checkpoint(#[from] CommitError),
}
