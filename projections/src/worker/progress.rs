//! When a worker stops, and how far it is.

use tokio::sync::watch;

/// The stop condition of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When it is stopped: a live worker.
    Stopped,
    /// When a read returns the end of the log. Events that are appended after that read
    /// are not applied.
    CaughtUp,
    /// When all events up to a global position are applied, and none after it.
    Reached(i64),
}

impl Until {
    pub(super) fn is_live(self) -> bool {
        self == Self::Stopped
    }

    pub(super) fn is_reached(self, global_position: i64) -> bool {
        matches!(self, Self::Reached(end) if global_position >= end)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerProgress {
    /// The global position of the checkpoint; 0 before the worker has read it.
    pub checkpoint: i64,
    /// The global position of the last folded event.
    pub read: i64,
    /// Events that the worker has committed.
    pub events: u64,
    /// Events that are folded and not committed yet.
    pub folding: u64,
    /// Rows or cache entries that the worker has written.
    pub rows: u64,
    /// The last error; `None` after the next success.
    pub error: Option<String>,
}

/// Converts each new value of `from` and sends it to `to`. Never returns, so that a
/// `select!` with the operation ends when the operation does.
pub async fn forward<T: Clone, U>(
    mut from: watch::Receiver<T>,
    to: &watch::Sender<U>,
    convert: impl Fn(T) -> U,
) -> ! {
    while from.changed().await.is_ok() {
        let now = from.borrow_and_update().clone();
        to.send_replace(convert(now));
    }
    std::future::pending().await
}
