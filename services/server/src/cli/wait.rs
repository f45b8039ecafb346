//! Waiting: for an operation that Ctrl-C may stop, and for a change in the
//! database.

use std::fmt;
use std::time::{Duration, Instant};

use projections::OperationError;
use tokio_util::sync::CancellationToken;

use crate::app;

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Ctrl-C or SIGTERM stopped the command in order. The text states what was
/// done. The exit code is [`Interrupted::EXIT_CODE`].
#[derive(Debug)]
pub struct Interrupted(pub String);

impl Interrupted {
    /// The exit code of a shell for a process that SIGINT has ended.
    pub const EXIT_CODE: u8 = 130;
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Whether an operation ended because its token was cancelled.
pub fn is_stopped(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(OperationError::Stopped))
}

/// Runs an operation and cancels its token at Ctrl-C or SIGTERM, so that it
/// stops in order. At a second signal it returns without waiting.
pub async fn until_stopped<T>(
    operation: impl AsyncFnOnce(&CancellationToken) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let stop = CancellationToken::new();
    let first = app::stop_signal()?;
    let mut operation = std::pin::pin!(operation(&stop));
    tokio::select! {
        result = &mut operation => return result,
        () = first => stop.cancel(),
    }
    let second = app::stop_signal()?;
    tokio::select! {
        result = &mut operation => result,
        () = second => anyhow::bail!("stopped at the second signal, before the operation ended"),
    }
}

/// Calls `check` until it returns a value. Returns `None` after the timeout.
pub async fn poll<T>(
    timeout: Duration,
    mut check: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let started = Instant::now();
    loop {
        if let Some(value) = check().await? {
            return Ok(Some(value));
        }
        if started.elapsed() >= timeout {
            return Ok(None);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
