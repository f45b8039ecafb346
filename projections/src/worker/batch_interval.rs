//! How long a worker that keeps up gathers before it makes a step.

use std::time::{Duration, Instant};

use crate::Projection;

/// How many times as long as its last step took a worker gathers for the next:
/// so writing takes a sixth of its time at most. Steps that are cheap stay
/// frequent; where many readers read or the store is slow, more events of a
/// session become one row.
const GATHERED: u32 = 5;

/// When a worker looks for events, and when it makes a step.
pub(super) struct Pace {
    least: Duration,
    most: Duration,
    look: Instant,
    step: Instant,
}

impl Pace {
    pub(super) fn of<P: Projection>() -> Self {
        let now = Instant::now();
        Self {
            least: P::PACE,
            most: P::MAX_PACE,
            look: now,
            step: now,
        }
    }

    /// How long to rest before the next look at what has come.
    pub(super) fn rest(&self) -> Duration {
        self.look.saturating_duration_since(Instant::now())
    }

    /// After a look that found something.
    pub(super) fn looked(&mut self) {
        self.look = Instant::now() + self.least;
    }

    /// Whether the time for a step has come.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.step
    }

    /// After a step that took so long.
    pub(super) fn stepped(&mut self, took: Duration) {
        let now = Instant::now();
        self.look = now + self.least;
        self.step = now + self.gathering(took);
    }

    fn gathering(&self, took: Duration) -> Duration {
        (took * GATHERED).clamp(self.least, self.most)
    }

    /// Who is behind does not rest.
    pub(super) fn hurry(&mut self) {
        let now = Instant::now();
        self.look = now;
        self.step = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::History;

    #[test]
    fn dear_steps_are_seldom_and_within_bounds() {
        let pace = Pace::of::<History>();
        let after = |millis| pace.gathering(Duration::from_millis(millis));
        assert_eq!(after(1), History::PACE);
        assert_eq!(after(20), Duration::from_millis(100));
        assert_eq!(after(10_000), History::MAX_PACE);
    }

    #[test]
    fn who_is_behind_does_not_rest() {
        let mut pace = Pace::of::<History>();
        let stepped = Instant::now();
        pace.stepped(Duration::from_secs(1));
        assert!(pace.look >= stepped + History::PACE);
        assert!(pace.step >= stepped + History::MAX_PACE);
        pace.hurry();
        assert!(pace.is_due() && pace.rest() == Duration::ZERO);
    }
}
