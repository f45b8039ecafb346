//! Signals that stop the process.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Receives Ctrl-C and SIGTERM from now on; the returned future waits for one.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let receive = |kind| signal(kind).context("cannot install a signal handler");
    let mut terminate = receive(SignalKind::terminate())?;
    let mut interrupt = receive(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
