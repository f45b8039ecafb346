//! Signals that stop the process.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Handles Ctrl-C and SIGTERM from this call on. The future completes at the
/// first of them.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let receive = |kind| signal(kind).context("installing a signal handler failed");
    let mut terminate = receive(SignalKind::terminate())?;
    let mut interrupt = receive(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
