//! What this process commits, told as it happens. Nothing here has to be reliable:
//! who hears nothing, or not all of it, reads the log.

use std::collections::VecDeque;

use tokio::sync::{mpsc, watch};

use crate::cloud_event::Outgoing;

/// Batches kept for a relay that is busy; with more it reads the log.
const KEPT_BATCHES: usize = 32;

/// Events kept by it for the same reason.
const KEPT_EVENTS: usize = 8_192;

/// Tells of commits.
#[derive(Debug)]
pub struct Commits {
    head: watch::Sender<i64>,
    batches: mpsc::Sender<Vec<Outgoing>>,
}

/// Hears of commits; where this process relays, also what they were.
#[derive(Debug)]
pub struct Heard {
    /// The global position of the last event.
    pub head: watch::Receiver<i64>,
    batches: mpsc::Receiver<Vec<Outgoing>>,
    events: VecDeque<Outgoing>,
}

/// Both ends.
#[must_use]
pub fn channel() -> (Commits, Heard) {
    let (head, last) = watch::channel(0);
    let (batches, next) = mpsc::channel(KEPT_BATCHES);
    let commits = Commits { head, batches };
    let hearing = Heard {
        head: last,
        batches: next,
        events: VecDeque::new(),
    };
    (commits, hearing)
}

impl Commits {
    /// Tells of a batch, in order. `events` is not asked for them when nobody
    /// would hear.
    pub(crate) fn tell(&self, last: i64, events: impl FnOnce() -> Vec<Outgoing>) {
        if let Ok(place) = self.batches.try_reserve() {
            place.send(events());
        }
        // After them: who is woken by this finds them.
        self.head.send_replace(last);
    }
}

impl Heard {
    /// What was committed here right after a position: no other event of the log
    /// stands between. Nothing when that is not known.
    pub(crate) fn after(&mut self, position: i64, limit: usize) -> Vec<Outgoing> {
        while let Ok(batch) = self.batches.try_recv() {
            if self.events.len() > KEPT_EVENTS {
                self.events.clear();
            }
            self.events.extend(batch);
        }
        let old = |event: &Outgoing| event.global_position <= position;
        while self.events.front().is_some_and(old) {
            self.events.pop_front();
        }
        // Positions are drawn one by one and never again, so there is nothing
        // between two that follow each other.
        let follow = (position + 1..).zip(&self.events).take(limit);
        let run = follow.take_while(|(next, event)| event.global_position == *next);
        let run = run.count();
        self.events.drain(..run).collect()
    }

    /// Forgets what was heard; for who cannot use it now.
    pub(crate) fn forget(&mut self) {
        while self.batches.try_recv().is_ok() {}
        self.events.clear();
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
        let (commits, mut heard) = channel();
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
    fn a_relay_that_is_behind_hears_less_and_is_told_the_end_all_the_same() {
        let (commits, mut heard) = channel();
        for position in 1..=100 {
            tell(&commits, &[position]);
        }
        assert_eq!(*heard.head.borrow(), 100);
        assert_eq!(heard.after(0, 1_000).len(), KEPT_BATCHES);
        heard.forget();
        assert!(heard.after(40, 10).is_empty());
    }
}
