//! `min_position`: a query that must see what a command did waits for it.

use std::time::Duration;

use commands::CommandService;
use projections::checkpoint::CheckpointWaiter;

use super::problem::Problem;

/// How long a query waits. A projection that is further behind is in trouble,
/// and its readers should know.
const PATIENCE: Duration = Duration::from_secs(5);

/// A position as it may be asked for.
///
/// # Errors
/// 422 for what is no position.
pub fn position(min_position: Option<i64>) -> Result<Option<i64>, Problem> {
    match min_position {
        Some(..0) => Err(Problem::invalid(
            "min_position",
            "a position is not negative",
        )),
        position => Ok(position),
    }
}

/// Waits until a projection has come to a position of the log.
///
/// # Errors
/// 422 for what is no position, 504 when it does not come in time, 503 when Postgres does not answer.
pub async fn reached(projection: &CheckpointWaiter, min_position: Option<i64>) -> Result<(), Problem> {
    match self::position(min_position)? {
        Some(position) if !projection.reaches(position, PATIENCE).await? => Err(Problem::not_yet()),
        _ => Ok(()),
    }
}

/// For a query that reads the log itself: there is nothing to wait for, since
/// a position that a command was told is in the log.
///
/// # Errors
/// 422 for what is no position, 504 for one that is not in the log, 503 when
/// Postgres does not answer.
pub async fn in_log(sessions: &CommandService, min_position: Option<i64>) -> Result<(), Problem> {
    match self::position(min_position)? {
        Some(position) if sessions.head().await? < position => Err(Problem::not_yet()),
        _ => Ok(()),
    }
}
