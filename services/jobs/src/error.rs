//! The error of a run, grouped by the caller's next action.

use eventlog::LogError;
use projections::OperationError;
use projections::cache::CacheError;
use thiserror::Error;

/// A run of a job did not finish. Its committed work is kept.
#[derive(Debug, Error)]
pub enum JobError {
    /// The caller stopped the run, or another process may hold the lease. The
    /// caller does nothing; the job stays due, and the next run continues.
    #[error("stopped; the next run continues")]
    Stopped,

    // The caller reports the error. The job is due again within a minute.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Operation(OperationError),
    #[error("Redis did not confirm that erased sessions are removed")]
    Cache(#[source] CacheError),
    /// Not one idle session could be ended. Contains their number.
    #[error("{0} idle sessions could not be ended")]
    SessionsNotEnded(u64),
}

impl From<OperationError> for JobError {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Stopped => Self::Stopped,
            error => Self::Operation(error),
        }
    }
}
