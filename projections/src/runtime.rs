//! Runs a projection: source, fold, commit. Live and replay are the same code;
//! they differ in when they stop.

use std::time::Duration;

use eventlog::LogError;
use eventlog::tail::Reader;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{CommitError, Projection, Step};

/// Events folded into one commit. Many events of one session become one row
/// write, so a larger batch is cheaper; this bounds its memory and the time
/// that others wait for its locks.
const MAX_BATCH: usize = 4_096;

/// The pauses after failures in a row: a store that is away is not hammered,
/// one that is back is noticed within seconds.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// When a projection stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When it is told to.
    Stopped,
    /// When the log holds nothing more.
    CaughtUp,
}

/// Why a projection starts over from its checkpoint.
#[derive(Debug, Error)]
enum RunError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Applies the log to a projection. Failures are logged and met by starting
/// over from the checkpoint, so a step whose outcome is unknown is not made
/// twice. `position` follows the checkpoint.
pub async fn run<P: Projection>(
    mut projection: P,
    mut reader: Reader,
    until: Until,
    position: watch::Sender<i64>,
    shutdown: CancellationToken,
) {
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let before = *position.borrow();
        match apply(&mut projection, &mut reader, until, &position, &shutdown).await {
            Ok(()) => return,
            // Another worker was faster; what it did need not be done.
            Err(RunError::Commit(CommitError::Moved)) => failures = 0,
            Err(error) => {
                if *position.borrow() > before {
                    failures = 0;
                }
                if let RunError::Log(LogError::Undecodable { .. }) = error {
                    tracing::error!(
                        projection = P::NAME,
                        error = &error as &dyn std::error::Error,
                        "the projection is stopped by an event that this build does not know"
                    );
                } else {
                    tracing::warn!(
                        projection = P::NAME,
                        error = &error as &dyn std::error::Error,
                        "the projection starts over from its checkpoint"
                    );
                }
                let pause = PAUSES[failures.min(PAUSES.len() - 1)];
                failures += 1;
                let _ = tokio::time::timeout(pause, shutdown.cancelled()).await;
            }
        }
    }
}

async fn apply<P: Projection>(
    projection: &mut P,
    reader: &mut Reader,
    until: Until,
    position: &watch::Sender<i64>,
    shutdown: &CancellationToken,
) -> Result<(), RunError> {
    let mut from = projection.checkpoint().await?;
    loop {
        position.send_replace(from);
        // Only waiting is cut short; a commit is never torn.
        let events = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            events = reader.next_or_quiet(from, MAX_BATCH) => events?,
        };
        let Some(events) = events else {
            match until {
                Until::Stopped => continue,
                Until::CaughtUp => return Ok(()),
            }
        };
        let mut batch = P::Batch::default();
        for event in &events {
            P::fold(&mut batch, event);
        }
        let to = events.last().map_or(from, |event| event.global_position);
        projection.commit(batch, Step { from, to }).await?;
        from = to;
    }
}
