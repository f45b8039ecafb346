//! Read your writes: a query with `min_position` waits until its response includes
//! the events up to that global position.

use std::time::Duration;

use commands::CommandService;
use domain::ReaderId;
use projections::checkpoint::CheckpointWaiter;

use crate::problem::Problem;

/// How long a query waits. A projection with more lag has a problem, and clients
/// should see it.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Validates the parameter.
pub fn min_position(min_position: Option<i64>) -> Result<Option<i64>, Problem> {
    match min_position {
        Some(..0) => Err(Problem::invalid("min_position", "must not be negative")),
        min_position => Ok(min_position),
    }
}

/// Waits until the rows of a reader contain the log up to `min_position`.
///
/// # Errors
/// [`ProblemCode::ReadModelBehind`](crate::problem::ProblemCode) on a timeout.
pub async fn wait_for_rows(
    projection: &CheckpointWaiter,
    reader_id: ReaderId,
    min_position: Option<i64>,
) -> Result<(), Problem> {
    match self::min_position(min_position)? {
        Some(min_position)
            if !projection
                .wait_for(reader_id, min_position, WAIT_TIMEOUT)
                .await? =>
        {
            Err(Problem::read_model_behind())
        }
        _ => Ok(()),
    }
}

/// Checks `min_position` for a query that reads the log itself. Every global
/// position that a command returned is in the log already, so there is nothing to wait
/// for.
///
/// # Errors
/// [`ProblemCode::ReadModelBehind`](crate::problem::ProblemCode) if the log ends
/// before `min_position`.
pub async fn check_log(
    commands: &CommandService,
    min_position: Option<i64>,
) -> Result<(), Problem> {
    match self::min_position(min_position)? {
        Some(min_position) if commands.head().await? < min_position => {
            Err(Problem::read_model_behind())
        }
        _ => Ok(()),
    }
}
