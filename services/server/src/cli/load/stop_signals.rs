//! The first and the second Ctrl-C or SIGTERM. One listener covers the whole command, so that
//! no signal is lost between the run and the requests after it.

use tokio_util::sync::CancellationToken;

use crate::app;

/// Tokens that signals cancel.
pub struct StopSignals {
    /// Ends the run in order.
    pub first: CancellationToken,
    /// Ends the command without waiting.
    pub second: CancellationToken,
}

impl StopSignals {
    /// Handles signals from this call on.
    ///
    /// # Errors
    /// If the signal handlers cannot be installed.
    pub fn listen() -> anyhow::Result<Self> {
        let signals = Self {
            first: CancellationToken::new(),
            second: CancellationToken::new(),
        };
        let (first, second) = (signals.first.clone(), signals.second.clone());
        let signal = app::stop_signal()?;
        tokio::spawn(async move {
            signal.await;
            // Handled before anything reacts to the first one.
            let signal = app::stop_signal();
            first.cancel();
            if let Ok(signal) = signal {
                signal.await;
                second.cancel();
            }
        });
        Ok(signals)
    }

    /// The token of the next signal.
    pub fn next(&self) -> &CancellationToken {
        if self.first.is_cancelled() {
            &self.second
        } else {
            &self.first
        }
    }
}
