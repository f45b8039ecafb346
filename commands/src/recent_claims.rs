//! Recent changes of active sessions in this process.
//!
//! A projection is usually some milliseconds behind the log. A query uses the
//! position recorded here as its minimum, so that it never returns an active
//! session that this process has just replaced or ended. Changes made by other
//! processes are not recorded.

use std::time::{Duration, Instant};

use domain::ReaderId;
use quick_cache::sync::Cache;

/// How long a change is recent. Far longer than a healthy projection is behind.
const MAX_AGE: Duration = Duration::from_secs(10);

/// The number of readers with a recorded change. Beyond it, old ones are evicted.
const MAX_READERS: usize = 100_000;

pub(crate) struct RecentClaims(Cache<ReaderId, RecentClaim>);

#[derive(Clone, Copy)]
struct RecentClaim {
    global_position: i64,
    committed_at: Instant,
}

impl Default for RecentClaims {
    fn default() -> Self {
        Self(Cache::new(MAX_READERS))
    }
}

impl RecentClaims {
    /// Records that the reader's active session changed at a global position.
    pub(crate) fn record(&self, reader_id: ReaderId, global_position: i64) {
        let committed_at = Instant::now();
        let claim = RecentClaim {
            global_position,
            committed_at,
        };
        self.0.insert(reader_id, claim);
    }

    /// The global position of the reader's last change; `None` if there was none
    /// recently.
    pub(crate) fn position_of(&self, reader_id: ReaderId) -> Option<i64> {
        let claim = self.0.get(&reader_id)?;
        (claim.committed_at.elapsed() < MAX_AGE).then_some(claim.global_position)
    }
}
