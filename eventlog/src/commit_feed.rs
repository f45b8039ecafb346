//! What this process commits, told as it happens. Nothing here has to be reliable:
//! who hears nothing, or not all of it, reads the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::outgoing::OutgoingEvent;

/// Events kept for a relay that is busy, the latest; before them it reads the log.
const KEPT: usize = 8_192;

/// How long they are kept: an erasure may write over them in the log.
const FRESH: Duration = Duration::from_secs(1);

/// Events, and when they were told.
type Kept = Mutex<VecDeque<(Instant, OutgoingEvent)>>;

/// Tells of commits.
#[derive(Debug)]
pub struct CommitFeed {
    head: watch::Sender<i64>,
    events: Weak<Kept>,
}

/// Hears of commits; where this process relays, also what they were.
#[derive(Debug)]
pub struct CommitSubscription {
    /// The global position of the last event.
    pub head: watch::Receiver<i64>,
    events: Arc<Kept>,
}

/// Both ends.
#[must_use]
pub fn channel() -> (CommitFeed, CommitSubscription) {
    let (head, last) = watch::channel(0);
    let kept = Arc::default();
    let commits = CommitFeed {
        head,
        events: Arc::downgrade(&kept),
    };
    let hearing = CommitSubscription {
        head: last,
        events: kept,
    };
    (commits, hearing)
}

fn lock(events: &Kept) -> MutexGuard<'_, VecDeque<(Instant, OutgoingEvent)>> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CommitFeed {
    /// Tells of a batch, in order. `events` is not asked for them when nobody
    /// would hear.
    pub(crate) fn tell(&self, last: i64, events: impl FnOnce() -> Vec<OutgoingEvent>) {
        if let Some(kept) = self.events.upgrade() {
            let events = events();
            let now = Instant::now();
            let mut kept = lock(&kept);
            if kept.len() + events.len() > KEPT {
                kept.clear();
            }
            kept.extend(events.into_iter().take(KEPT).map(|event| (now, event)));
        }
        // After them: who is woken by this finds them.
        self.head.send_replace(last);
    }
}

impl CommitSubscription {
    /// What was committed here right after a position, a moment before `now`: no
    /// other event of the log stands between. Nothing when that is not known.
    pub fn after(&self, position: i64, limit: usize, now: Instant) -> Vec<OutgoingEvent> {
        let mut events = lock(&self.events);
        let is_over = |(told, event): &(Instant, OutgoingEvent)| {
            event.global_position <= position || now.duration_since(*told) > FRESH
        };
        while events.front().is_some_and(is_over) {
            events.pop_front();
        }
        // Positions are drawn one by one and never again, so there is nothing
        // between two that follow each other.
        let follow = (position + 1..).zip(&*events).take(limit);
        let run = follow.take_while(|(next, (_, event))| event.global_position == *next);
        let run = run.count();
        events.drain(..run).map(|(_, event)| event).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(commits: &CommitFeed, positions: &[i64]) {
        let events = positions.iter().copied().map(OutgoingEvent::example);
        let last = *positions.last().expect("there is one");
        commits.tell(last, || events.collect());
    }

    fn after(heard: &CommitSubscription, position: i64, limit: usize) -> Vec<i64> {
        let events = heard.after(position, limit, Instant::now());
        events.iter().map(|event| event.global_position).collect()
    }

    #[test]
    fn only_what_follows_without_a_hole_is_handed_out() {
        let (commits, heard) = channel();
        tell(&commits, &[4, 5]);
        tell(&commits, &[6, 9]);
        assert_eq!(*heard.head.borrow(), 9);
        assert_eq!(after(&heard, 2, 10), [0; 0], "somebody else wrote 3");
        assert_eq!(after(&heard, 3, 2), [4, 5]);
        assert_eq!(after(&heard, 5, 10), [6]);
        assert_eq!(after(&heard, 6, 10), [0; 0]);
        assert_eq!(after(&heard, 8, 10), [9]);
    }

    #[test]
    fn a_relay_that_is_behind_hears_of_the_last_events_and_is_told_the_end_all_the_same() {
        let (commits, heard) = channel();
        let most = i64::try_from(KEPT).unwrap();
        for position in 1..=most + 2 {
            tell(&commits, &[position]);
        }
        assert_eq!(*heard.head.borrow(), most + 2);
        assert_eq!(after(&heard, 0, 10), [0; 0]);
        assert_eq!(after(&heard, most, 10), [most + 1, most + 2]);
        let batch: Vec<i64> = (most + 3..2 * most + 13).collect();
        tell(&commits, &batch);
        assert_eq!(after(&heard, most + 2, usize::MAX).len(), KEPT);
    }

    #[test]
    fn what_may_have_been_erased_since_is_not_handed_out() {
        let (commits, heard) = channel();
        tell(&commits, &[4]);
        let told = Instant::now();
        assert!(heard.after(3, 10, told + 2 * FRESH).is_empty());
        assert!(heard.after(3, 10, told).is_empty(), "it is gone");
    }

    #[test]
    fn without_a_relay_nobody_asks_what_was_committed() {
        let (commits, CommitSubscription { head, .. }) = channel();
        commits.tell(7, || panic!("nobody hears of them"));
        assert_eq!(*head.borrow(), 7);
    }
}
