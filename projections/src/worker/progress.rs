//! How far a worker is to go, and how it gets on.

/// When a projection stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When it is told to.
    Stopped,
    /// When the log holds nothing more, or less than a batch that came meanwhile.
    CaughtUp,
    /// When all up to a global position has been applied, and nothing beyond.
    Reached(i64),
}

impl Until {
    pub(super) fn is_reached(self, position: i64) -> bool {
        matches!(self, Self::Reached(end) if position >= end)
    }
}

/// How a projection gets on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerProgress {
    /// Where its checkpoint is.
    pub position: i64,
    /// How far it has read; what is between is being folded.
    pub read: i64,
    /// Events passed since it began here.
    pub events: u64,
    /// Events that are being folded.
    pub folding: u64,
    /// Rows or entries written for them.
    pub rows: u64,
    /// What it fails at now.
    pub error: Option<String>,
}
