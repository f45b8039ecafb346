//! Decides when a worker writes rows. Pure: reads no clock and does no I/O.

use std::time::Duration;

use super::Until;
use super::window::Take;

/// The most changes in a commit of all rows, in units of [`crate::Projection::weight`].
const MAX_BATCH_WEIGHT: usize = 65_536;

/// The most changes in the window. With more sessions than this, the oldest rows are written
/// before their window ends. A change takes some 300 to 600 bytes.
const MAX_WINDOW_WEIGHT: usize = 262_144;

/// How long a worker that is behind folds before it writes what is due. Bounds what is folded
/// again after a crash. Each commit of a replay writes the same rows again, so a shorter time
/// makes a replay slower.
const MAX_AGE: Duration = Duration::from_secs(5);

/// The state of a worker after a read, and the result of the read.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent conditions, of which each step names those that it needs"
)]
pub(super) struct WorkerState {
    /// The global position of the last folded event.
    pub to: i64,
    /// Events since the last commit.
    pub events: usize,
    /// The most events in a commit that takes all rows.
    pub max_events: usize,
    /// The weight of the rows in memory.
    pub weight: usize,
    /// The time since the first event after the last commit.
    pub age: Duration,
    /// The read returned the end of the log.
    pub caught_up: bool,
    /// The read returned no events.
    pub is_quiet: bool,
    /// No event has arrived for a while: [`super::SILENCE`].
    pub is_silent: bool,
    /// The batch interval has passed.
    pub is_due: bool,
    /// A query waits for urgent rows.
    pub is_requested: bool,
    /// Rows must be written at once, or the checkpoint can move without any.
    pub has_urgent: bool,
    /// Rows are in memory.
    pub has_rows: bool,
    /// The window of a row has ended, and the last commit is long enough ago.
    pub is_window_over: bool,
    /// Every commit takes all rows, as in a replay.
    pub is_window_closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Read the next events.
    Read,
    /// Collect more events until the next poll.
    Collect,
    /// Commit, and then wait for the batch interval.
    Commit(Take),
    /// Commit, and then read on at once: the worker is behind.
    CommitFull(Take),
}

impl WorkerState {
    pub(super) fn next_step(self, until: Until) -> Step {
        if self.is_window_closed {
            self.next_step_without_window(until)
        } else {
            self.next_step_with_window()
        }
    }

    fn next_step_without_window(self, until: Until) -> Step {
        if self.events == 0 && !self.has_rows {
            return Step::Read;
        }
        let is_full = self.events >= self.max_events
            || self.weight >= MAX_BATCH_WEIGHT
            || self.age >= MAX_AGE;
        // A quiet log ends the batch early: there is nothing to collect. A replay never
        // waits, because it stops at the end of the log.
        let is_due = self.is_due || self.is_quiet || !until.is_live();
        if is_full {
            Step::CommitFull(Take::All)
        } else if (self.caught_up && is_due) || until.is_reached(self.to) {
            Step::Commit(Take::All)
        } else if self.caught_up {
            Step::Collect
        } else {
            Step::Read
        }
    }

    fn next_step_with_window(self) -> Step {
        if self.weight >= MAX_WINDOW_WEIGHT {
            return Step::CommitFull(Take::All);
        }
        if !self.caught_up {
            let is_late = self.has_urgent && self.age >= MAX_AGE;
            return if is_late || self.is_window_over || self.is_requested {
                Step::CommitFull(Take::Due)
            } else {
                Step::Read
            };
        }
        if self.has_urgent {
            return if self.is_due || self.is_quiet || self.is_requested {
                Step::Commit(Take::Due)
            } else {
                Step::Collect
            };
        }
        if self.has_rows && self.is_silent {
            Step::Commit(Take::All)
        } else if self.is_window_over {
            Step::Commit(Take::Due)
        } else if self.has_rows {
            Step::Collect
        } else {
            Step::Read
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// A live worker without a window after ten events. It has more to read, and the batch
    /// interval has not passed.
    const READING: WorkerState = WorkerState {
        to: 10,
        events: 10,
        max_events: 100,
        weight: 1,
        age: Duration::ZERO,
        caught_up: false,
        is_quiet: false,
        is_silent: false,
        is_due: false,
        is_requested: false,
        has_urgent: true,
        has_rows: true,
        is_window_over: false,
        is_window_closed: true,
    };

    /// The same after a read that returned the last events.
    const CAUGHT_UP: WorkerState = WorkerState {
        caught_up: true,
        ..READING
    };

    /// The same after a read that returned nothing.
    const QUIET: WorkerState = WorkerState {
        is_quiet: true,
        ..CAUGHT_UP
    };

    const DUE: WorkerState = WorkerState {
        is_due: true,
        ..CAUGHT_UP
    };

    const EMPTY: WorkerState = WorkerState {
        events: 0,
        weight: 0,
        is_due: true,
        has_urgent: false,
        has_rows: false,
        ..QUIET
    };

    #[rstest]
    #[case::empty(EMPTY, Step::Read)]
    #[case::more_to_read(READING, Step::Read)]
    #[case::more_to_read_and_due(WorkerState { is_due: true, ..READING }, Step::Read)]
    #[case::caught_up_before_the_interval(CAUGHT_UP, Step::Collect)]
    #[case::caught_up_and_due(DUE, Step::Commit(Take::All))]
    #[case::caught_up_and_quiet(QUIET, Step::Commit(Take::All))]
    #[case::rows_of_an_open_window(WorkerState { events: 0, ..DUE }, Step::Commit(Take::All))]
    #[case::full_of_events(WorkerState { events: 100, ..READING }, Step::CommitFull(Take::All))]
    #[case::full_of_rows(WorkerState { weight: MAX_BATCH_WEIGHT, ..READING }, Step::CommitFull(Take::All))]
    #[case::old(WorkerState { age: MAX_AGE, ..READING }, Step::CommitFull(Take::All))]
    #[case::full_before_the_interval(WorkerState { events: 100, ..CAUGHT_UP }, Step::CommitFull(Take::All))]
    #[case::full_and_due(WorkerState { events: 100, ..DUE }, Step::CommitFull(Take::All))]
    #[case::empty_and_old(WorkerState { age: MAX_AGE, ..EMPTY }, Step::Read)]
    fn live_worker_without_a_window_commits_when_due_quiet_or_full(
        #[case] state: WorkerState,
        #[case] expected: Step,
    ) {
        assert_eq!(state.next_step(Until::Stopped), expected);
    }

    /// A live worker whose rows can wait.
    const WAITING: WorkerState = WorkerState {
        has_urgent: false,
        is_window_closed: false,
        ..DUE
    };

    const URGENT: WorkerState = WorkerState {
        has_urgent: true,
        ..WAITING
    };

    const BEHIND: WorkerState = WorkerState {
        caught_up: false,
        ..URGENT
    };

    #[rstest]
    #[case::empty(WorkerState { is_window_closed: false, ..EMPTY }, Step::Read)]
    #[case::rows_wait(WAITING, Step::Collect)]
    #[case::rows_wait_after_many_events(WorkerState { events: 1_000, ..WAITING }, Step::Collect)]
    #[case::rows_wait_in_a_quiet_log(WorkerState { is_quiet: true, ..WAITING }, Step::Collect)]
    #[case::window_over(WorkerState { is_window_over: true, ..WAITING }, Step::Commit(Take::Due))]
    #[case::silent(WorkerState { is_silent: true, ..WAITING }, Step::Commit(Take::All))]
    #[case::silent_without_rows(
        WorkerState { is_silent: true, has_rows: false, ..WAITING },
        Step::Read
    )]
    #[case::urgent_and_due(URGENT, Step::Commit(Take::Due))]
    #[case::urgent_and_quiet(
        WorkerState { is_due: false, is_quiet: true, ..URGENT },
        Step::Commit(Take::Due)
    )]
    #[case::urgent_before_the_interval(WorkerState { is_due: false, ..URGENT }, Step::Collect)]
    #[case::requested_before_the_interval(
        WorkerState { is_due: false, is_requested: true, ..URGENT },
        Step::Commit(Take::Due)
    )]
    #[case::behind_and_requested(
        WorkerState { is_requested: true, ..BEHIND },
        Step::CommitFull(Take::Due)
    )]
    #[case::behind(BEHIND, Step::Read)]
    #[case::behind_for_long(WorkerState { age: MAX_AGE, ..BEHIND }, Step::CommitFull(Take::Due))]
    #[case::behind_without_urgent_rows(
        WorkerState { age: MAX_AGE, has_urgent: false, ..BEHIND },
        Step::Read
    )]
    #[case::behind_and_window_over(
        WorkerState { is_window_over: true, has_urgent: false, ..BEHIND },
        Step::CommitFull(Take::Due)
    )]
    #[case::full(WorkerState { weight: MAX_WINDOW_WEIGHT, ..BEHIND }, Step::CommitFull(Take::All))]
    fn live_worker_with_a_window_writes_urgent_and_due_rows(
        #[case] state: WorkerState,
        #[case] expected: Step,
    ) {
        assert_eq!(state.next_step(Until::Stopped), expected);
    }

    #[test]
    fn window_of_200_000_sessions_is_not_full() {
        let state = WorkerState {
            weight: 200_000,
            ..WAITING
        };
        assert_eq!(state.next_step(Until::Stopped), Step::Collect);
    }

    #[rstest]
    #[case::empty(EMPTY, Step::Read)]
    #[case::more_to_read(READING, Step::Read)]
    #[case::caught_up(CAUGHT_UP, Step::Commit(Take::All))]
    #[case::quiet(QUIET, Step::Commit(Take::All))]
    #[case::full(WorkerState { events: 100, ..READING }, Step::CommitFull(Take::All))]
    fn replay_commits_at_the_end_of_the_log_or_when_full(
        #[case] state: WorkerState,
        #[case] expected: Step,
    ) {
        assert_eq!(state.next_step(Until::CaughtUp), expected);
    }

    #[rstest]
    #[case::empty(EMPTY, 10, Step::Read)]
    #[case::before_the_end(READING, 11, Step::Read)]
    #[case::at_the_end(READING, 10, Step::Commit(Take::All))]
    #[case::at_the_end_and_full(
        WorkerState { events: 100, ..READING },
        10,
        Step::CommitFull(Take::All)
    )]
    #[case::end_of_the_log(CAUGHT_UP, 11, Step::Commit(Take::All))]
    fn bounded_worker_commits_at_its_end(
        #[case] state: WorkerState,
        #[case] end: i64,
        #[case] expected: Step,
    ) {
        assert_eq!(state.next_step(Until::Reached(end)), expected);
    }
}
