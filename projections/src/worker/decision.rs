//! Decides when a worker commits its batch. Pure: reads no clock and does no I/O.

use std::time::Duration;

use super::Until;

/// The most rows or cache entries in a batch. Bounds its memory.
const MAX_BATCH_ROWS: usize = 65_536;

/// The most time for folding a batch. Bounds what is folded again after a crash. Each
/// commit of a replay writes the same rows again, so a shorter time makes a replay
/// slower.
const MAX_BATCH_AGE: Duration = Duration::from_secs(5);

/// The batch after a read, and the result of the read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folded {
    /// The global position of the last folded event.
    pub to: i64,
    pub events: usize,
    pub max_events: usize,
    pub rows: usize,
    /// The time since the batch was started.
    pub age: Duration,
    /// The read returned the end of the log.
    pub caught_up: bool,
    /// The read returned no events.
    pub is_quiet: bool,
    /// The batch interval has passed.
    pub is_due: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitDecision {
    /// Read the next events at once.
    Read,
    /// Collect more events until the next poll.
    Collect,
    /// Commit, and then wait for the batch interval.
    Commit,
    /// Commit, and then read on at once: the worker is behind.
    CommitFull,
}

impl Folded {
    pub(super) fn next_step(self, until: Until) -> CommitDecision {
        if self.events == 0 {
            return CommitDecision::Read;
        }
        let is_full = self.events >= self.max_events
            || self.rows >= MAX_BATCH_ROWS
            || self.age >= MAX_BATCH_AGE;
        // A quiet log ends the batch early: there is nothing to collect. A replay never
        // waits, because it stops at the end of the log.
        let is_due = self.is_due || self.is_quiet || !until.is_live();
        if is_full {
            CommitDecision::CommitFull
        } else if (self.caught_up && is_due) || until.is_reached(self.to) {
            CommitDecision::Commit
        } else if self.caught_up {
            CommitDecision::Collect
        } else {
            CommitDecision::Read
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Ten events in a batch. The worker has more to read, and the batch interval has not
    /// passed.
    const READING: Folded = Folded {
        to: 10,
        events: 10,
        max_events: 100,
        rows: 1,
        age: Duration::ZERO,
        caught_up: false,
        is_quiet: false,
        is_due: false,
    };

    /// The same batch after a read that returned the last events.
    const CAUGHT_UP: Folded = Folded {
        caught_up: true,
        ..READING
    };

    /// The same batch after a read that returned nothing.
    const QUIET: Folded = Folded {
        is_quiet: true,
        ..CAUGHT_UP
    };

    const DUE: Folded = Folded {
        is_due: true,
        ..CAUGHT_UP
    };

    const EMPTY: Folded = Folded {
        events: 0,
        rows: 0,
        is_due: true,
        ..QUIET
    };

    #[rstest]
    #[case::empty(EMPTY, CommitDecision::Read)]
    #[case::more_to_read(READING, CommitDecision::Read)]
    #[case::more_to_read_and_due(Folded { is_due: true, ..READING }, CommitDecision::Read)]
    #[case::caught_up_before_the_interval(CAUGHT_UP, CommitDecision::Collect)]
    #[case::caught_up_and_due(DUE, CommitDecision::Commit)]
    #[case::caught_up_and_quiet(QUIET, CommitDecision::Commit)]
    #[case::full_of_events(Folded { events: 100, ..READING }, CommitDecision::CommitFull)]
    #[case::full_of_rows(Folded { rows: MAX_BATCH_ROWS, ..READING }, CommitDecision::CommitFull)]
    #[case::old(Folded { age: MAX_BATCH_AGE, ..READING }, CommitDecision::CommitFull)]
    #[case::full_before_the_interval(Folded { events: 100, ..CAUGHT_UP }, CommitDecision::CommitFull)]
    #[case::full_and_due(Folded { events: 100, ..DUE }, CommitDecision::CommitFull)]
    #[case::empty_and_old(Folded { age: MAX_BATCH_AGE, ..EMPTY }, CommitDecision::Read)]
    fn live_worker_commits_when_due_quiet_or_full(
        #[case] folded: Folded,
        #[case] expected: CommitDecision,
    ) {
        assert_eq!(folded.next_step(Until::Stopped), expected);
    }

    #[rstest]
    #[case::empty(EMPTY, CommitDecision::Read)]
    #[case::more_to_read(READING, CommitDecision::Read)]
    #[case::caught_up(CAUGHT_UP, CommitDecision::Commit)]
    #[case::quiet(QUIET, CommitDecision::Commit)]
    #[case::full(Folded { events: 100, ..READING }, CommitDecision::CommitFull)]
    fn replay_commits_at_the_end_of_the_log_or_when_full(
        #[case] folded: Folded,
        #[case] expected: CommitDecision,
    ) {
        assert_eq!(folded.next_step(Until::CaughtUp), expected);
    }

    #[rstest]
    #[case::empty(EMPTY, 10, CommitDecision::Read)]
    #[case::before_the_end(READING, 11, CommitDecision::Read)]
    #[case::at_the_end(READING, 10, CommitDecision::Commit)]
    #[case::at_the_end_and_full(Folded { events: 100, ..READING }, 10, CommitDecision::CommitFull)]
    #[case::end_of_the_log(CAUGHT_UP, 11, CommitDecision::Commit)]
    fn bounded_worker_commits_at_its_end(
        #[case] folded: Folded,
        #[case] end: i64,
        #[case] expected: CommitDecision,
    ) {
        assert_eq!(folded.next_step(Until::Reached(end)), expected);
    }
}
