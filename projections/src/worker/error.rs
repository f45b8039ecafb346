//! Why a worker restarts or gives up.

use eventlog::LogError;
use thiserror::Error;

use crate::CommitError;
use crate::dead_letters;

/// Why a worker restarts from its checkpoint.
#[derive(Debug, Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    TooManyDeadLetters(#[from] TooManyDeadLetters),
}

/// This many failures do not come from single bad events. Usually the process runs an
/// older build that cannot decode the events of a newer one.
#[derive(Debug, Error)]
#[error(
    "more than {} events cannot be applied; check that this process does not run an older build \
     than the others",
    dead_letters::MAX_DEAD_LETTERS
)]
pub struct TooManyDeadLetters;

impl From<sqlx::Error> for RunError {
    fn from(error: sqlx::Error) -> Self {
        Self::Commit(error.into())
    }
}
