//! Recent changes of active sessions in this process.
//!
//! A projection is usually some milliseconds behind the log. A query uses the
//! global position recorded here as its minimum. So it never returns an active
//! session that this process has just replaced or ended. Changes made by other
//! processes are not recorded.

use std::time::{Duration, Instant};

use domain::ReaderId;
use quick_cache::sync::Cache;

/// How long a change is recent. Far longer than a healthy projection is behind.
const MAX_AGE: Duration = Duration::from_secs(10);

/// The number of readers with a recorded change. Beyond it, old ones are evicted.
const MAX_READERS: usize = 100_000;

pub(crate) struct RecentChanges(Cache<ReaderId, RecentChange>);

#[derive(Clone, Copy)]
struct RecentChange {
    global_position: i64,
    committed_at: Instant,
}

impl Default for RecentChanges {
    fn default() -> Self {
        Self(Cache::new(MAX_READERS))
    }
}

impl RecentChanges {
    /// Records that the reader's active session changed at a global position.
    pub(crate) fn record(&self, reader_id: ReaderId, global_position: i64) {
        let committed_at = Instant::now();
        let change = RecentChange {
            global_position,
            committed_at,
        };
        self.0.insert(reader_id, change);
    }

    /// Forgets all changes.
    pub(crate) fn clear(&self) {
        self.0.clear();
    }

    /// The global position of the reader's last change; `None` if there was none
    /// recently.
    pub(crate) fn global_position_of(&self, reader_id: ReaderId) -> Option<i64> {
        let change = self.0.get(&reader_id)?;
        (change.committed_at.elapsed() < MAX_AGE).then_some(change.global_position)
    }
}
