//! What this process commits, told as it happens. Nothing here has to be reliable:
//! who hears nothing, or not all of it, reads the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use crate::cloud_event::Outgoing;

/// Events kept for a relay that is busy, the latest; before them it reads the log.
const KEPT: usize = 8_192;

type Kept = Mutex<VecDeque<Outgoing>>;

/// Tells of commits.
#[derive(Debug)]
pub struct Commits {
    head: watch::Sender<i64>,
    events: Weak<Kept>,
}

/// Hears of commits; where this process relays, also what they were.
#[derive(Debug)]
pub struct Heard {
    /// The global position of the last event.
    pub head: watch::Receiver<i64>,
    events: Arc<Kept>,
}

/// Both ends.
#[must_use]
pub fn channel() -> (Commits, Heard) {
    let (head, last) = watch::channel(0);
    let kept = Arc::default();
    let commits = Commits {
        head,
        events: Arc::downgrade(&kept),
    };
    let hearing = Heard {
        head: last,
        events: kept,
    };
    (commits, hearing)
}

fn lock(events: &Kept) -> MutexGuard<'_, VecDeque<Outgoing>> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Commits {
    /// Tells of a batch, in order. `events` is not asked for them when nobody
    /// would hear.
    pub(crate) fn tell(&self, last: i64, events: impl FnOnce() -> Vec<Outgoing>) {
        if let Some(kept) = self.events.upgrade() {
            let events = events();
            let mut kept = lock(&kept);
            if kept.len() + events.len() > KEPT {
                kept.clear();
            }
            kept.extend(events.into_iter().take(KEPT));
        }
        // After them: who is woken by this finds them.
        self.head.send_replace(last);
    }
}

impl Heard {
    /// What was committed here right after a position: no other event of the log
    /// stands between. Nothing when that is not known.
    pub(crate) fn after(&self, position: i64, limit: usize) -> Vec<Outgoing> {
        let mut events = lock(&self.events);
        let old = |event: &Outgoing| event.global_position <= position;
        while events.front().is_some_and(old) {
            events.pop_front();
        }
        // Positions are drawn one by one and never again, so there is nothing
        // between two that follow each other.
        let follow = (position + 1..).zip(&*events).take(limit);
        let run = follow.take_while(|(next, event)| event.global_position == *next);
        let run = run.count();
        events.drain(..run).collect()
    }

    /// Forgets what was heard; for who cannot use it now.
    pub(crate) fn forget(&self) {
        lock(&self.events).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(commits: &Commits, positions: &[i64]) {
        let events = positions.iter().copied().map(Outgoing::example);
        let last = *positions.last().expect("there is one");
        commits.tell(last, || events.collect());
    }

    fn positions(events: &[Outgoing]) -> Vec<i64> {
        events.iter().map(|event| event.global_position).collect()
    }

    #[test]
    fn only_what_follows_without_a_hole_is_handed_out() {
        let (commits, heard) = channel();
        tell(&commits, &[4, 5]);
        tell(&commits, &[6, 9]);
        assert_eq!(*heard.head.borrow(), 9);
        assert!(heard.after(2, 10).is_empty(), "somebody else wrote 3");
        assert_eq!(positions(&heard.after(3, 2)), [4, 5]);
        assert_eq!(positions(&heard.after(5, 10)), [6]);
        assert!(heard.after(6, 10).is_empty());
        assert_eq!(positions(&heard.after(8, 10)), [9]);
    }

    #[test]
    fn a_relay_that_is_behind_hears_of_the_last_events_and_is_told_the_end_all_the_same() {
        let (commits, heard) = channel();
        let most = i64::try_from(KEPT).unwrap();
        for position in 1..=most + 2 {
            tell(&commits, &[position]);
        }
        assert_eq!(*heard.head.borrow(), most + 2);
        assert!(heard.after(0, 10).is_empty());
        assert_eq!(positions(&heard.after(most, 10)), [most + 1, most + 2]);
        let batch: Vec<i64> = (most + 3..2 * most + 13).collect();
        tell(&commits, &batch);
        assert_eq!(heard.after(most + 2, usize::MAX).len(), KEPT);
        tell(&commits, &[9_999_999]);
        heard.forget();
        assert!(heard.after(9_999_998, 10).is_empty());
    }

    #[test]
    fn without_a_relay_nobody_asks_what_was_committed() {
        let (commits, Heard { head, .. }) = channel();
        commits.tell(7, || panic!("nobody hears of them"));
        assert_eq!(*head.borrow(), 7);
    }
}
