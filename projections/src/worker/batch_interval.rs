//! The time between two commits of a live worker, adapted to what a commit costs
//! (decision 0017).

use std::time::{Duration, Instant};

use crate::Projection;

/// A worker collects events for five times as long as its last commit took, so it
/// spends at most a sixth of its time on commits. Fast commits stay frequent. If many
/// readers read or Postgres is slow, more events of a session become one row.
const COMMIT_TIME_FACTOR: u32 = 5;

/// When a worker polls for events, and when it may commit them.
pub(super) struct BatchInterval {
    min: Duration,
    max: Duration,
    poll_at: Instant,
    commit_at: Instant,
    window_at: Instant,
}

impl BatchInterval {
    /// Starts with a poll and a commit that are due at once.
    pub(super) fn new<P: Projection>() -> Self {
        let now = Instant::now();
        Self {
            min: P::MIN_BATCH_INTERVAL,
            max: P::MAX_BATCH_INTERVAL,
            poll_at: now,
            commit_at: now,
            window_at: now,
        }
    }

    /// The time until the next poll.
    pub(super) fn next_poll(&self) -> Duration {
        self.poll_at.saturating_duration_since(Instant::now())
    }

    /// Whether a commit is due.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.commit_at
    }

    /// Whether rows may be written whose window has ended. They are written together, at most
    /// once in the longest batch interval.
    pub(super) fn is_window_due(&self) -> bool {
        Instant::now() >= self.window_at
    }

    /// The time from which rows may be written whose window ends at `ends_at`.
    pub(super) fn window_over_at(&self, ends_at: Instant) -> Instant {
        ends_at.max(self.window_at)
    }

    /// Records a poll whose events are not committed yet.
    pub(super) fn polled(&mut self) {
        self.poll_at = Instant::now() + self.min;
    }

    /// Records a commit and its duration.
    pub(super) fn committed(&mut self, took: Duration) {
        let now = Instant::now();
        self.poll_at = now + self.min;
        self.commit_at = now + self.commit_interval(took);
        self.window_at = now + self.max;
    }

    /// Makes the next poll and commit due at once, for a worker that is behind.
    pub(super) fn catch_up(&mut self) {
        let now = Instant::now();
        self.poll_at = now;
        self.commit_at = now;
    }

    fn commit_interval(&self, took: Duration) -> Duration {
        (took * COMMIT_TIME_FACTOR).clamp(self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::History;

    #[test]
    fn commit_interval_follows_the_commit_time_within_bounds() {
        let interval = BatchInterval::new::<History>();
        let after = |millis| interval.commit_interval(Duration::from_millis(millis));
        assert_eq!(after(1), History::MIN_BATCH_INTERVAL);
        assert_eq!(after(20), Duration::from_millis(100));
        assert_eq!(after(10_000), History::MAX_BATCH_INTERVAL);
    }

    #[test]
    fn catching_up_makes_poll_and_commit_due_at_once() {
        let mut interval = BatchInterval::new::<History>();
        let committed_at = Instant::now();
        interval.committed(Duration::from_secs(1));
        assert!(interval.poll_at >= committed_at + History::MIN_BATCH_INTERVAL);
        assert!(interval.commit_at >= committed_at + History::MAX_BATCH_INTERVAL);
        interval.catch_up();
        assert!(interval.is_due() && interval.next_poll() == Duration::ZERO);
    }

    #[test]
    fn poll_without_a_commit_does_not_delay_the_commit() {
        let mut interval = BatchInterval::new::<History>();
        interval.polled();
        assert!(interval.is_due() && interval.next_poll() > Duration::ZERO);
    }
}
