//! In-process notifications of commits, with the committed events.
//!
//! The feed is an optimisation: the relay reads from it what this process has just
//! committed, without a query. It is neither durable nor complete. A subscriber
//! that misses events reads the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::outgoing::OutgoingEvent;

/// Events buffered for a busy relay. If more arrive, the buffer is cleared and the
/// relay reads the log.
const MAX_BUFFERED: usize = 8_192;

/// How long an event stays in the buffer. An erasure may overwrite the event in
/// the log, and the relay must not publish the old content long after that.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Events with the times of their publication.
type Buffer = Mutex<VecDeque<(Instant, OutgoingEvent)>>;

/// The publishing end; the appending task owns it.
#[derive(Debug)]
pub struct CommitFeed {
    last_committed: watch::Sender<i64>,
    /// Dead if this process does not relay: then events are not buffered.
    buffer: Weak<Buffer>,
}

/// The receiving end. Keep only `last_committed` to receive no events.
#[derive(Debug)]
pub struct CommitSubscription {
    /// The global position of the last event that this process committed; 0 before
    /// the first.
    pub last_committed: watch::Receiver<i64>,
    buffer: Arc<Buffer>,
}

#[must_use]
pub fn channel() -> (CommitFeed, CommitSubscription) {
    let (sender, receiver) = watch::channel(0);
    let buffer = Arc::default();
    let feed = CommitFeed {
        last_committed: sender,
        buffer: Arc::downgrade(&buffer),
    };
    let subscription = CommitSubscription {
        last_committed: receiver,
        buffer,
    };
    (feed, subscription)
}

fn lock(buffer: &Buffer) -> MutexGuard<'_, VecDeque<(Instant, OutgoingEvent)>> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CommitFeed {
    /// Publishes a committed batch, in order. `last` is the global position of its
    /// last event. Without a subscriber `events` is not called.
    pub(crate) fn publish(&self, last: i64, events: impl FnOnce() -> Vec<OutgoingEvent>) {
        if let Some(buffer) = self.buffer.upgrade() {
            let events = events();
            let now = Instant::now();
            let mut buffered = lock(&buffer);
            if buffered.len() + events.len() > MAX_BUFFERED {
                buffered.clear();
            }
            buffered.extend(
                events
                    .into_iter()
                    .take(MAX_BUFFERED)
                    .map(|event| (now, event)),
            );
        }
        // Sent after the events are buffered, so that a subscriber that wakes up finds
        // them.
        self.last_committed.send_replace(last);
    }
}

impl CommitSubscription {
    /// Takes at most `limit` events out of the buffer: those that follow
    /// `global_position` in the log without a gap. Returns none if this process did
    /// not commit the next event, or if it is older than a second at `now`.
    #[must_use]
    pub fn take_contiguous_after(
        &self,
        global_position: i64,
        limit: usize,
        now: Instant,
    ) -> Vec<OutgoingEvent> {
        let mut buffered = lock(&self.buffer);
        let is_outdated = |(published_at, event): &(Instant, OutgoingEvent)| {
            event.global_position <= global_position || now.duration_since(*published_at) > MAX_AGE
        };
        while buffered.front().is_some_and(is_outdated) {
            buffered.pop_front();
        }
        // Each global position is drawn once, so no event can appear between two
        // consecutive ones.
        let count = (global_position + 1..)
            .zip(&*buffered)
            .take(limit)
            .take_while(|(next, (_, event))| event.global_position == *next)
            .count();
        buffered.drain(..count).map(|(_, event)| event).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(feed: &CommitFeed, global_positions: &[i64]) {
        let events = global_positions.iter().copied().map(OutgoingEvent::example);
        let last = *global_positions.last().expect("there is one");
        feed.publish(last, || events.collect());
    }

    fn take(subscription: &CommitSubscription, after: i64, limit: usize) -> Vec<i64> {
        let events = subscription.take_contiguous_after(after, limit, Instant::now());
        events.iter().map(|event| event.global_position).collect()
    }

    #[test]
    fn only_events_without_a_gap_are_returned() {
        let (feed, subscription) = channel();
        publish(&feed, &[4, 5]);
        publish(&feed, &[6, 9]);
        assert_eq!(*subscription.last_committed.borrow(), 9);
        let another_process_wrote_3 = take(&subscription, 2, 10);
        assert_eq!(another_process_wrote_3, [0; 0]);
        assert_eq!(take(&subscription, 3, 2), [4, 5]);
        assert_eq!(take(&subscription, 5, 10), [6]);
        assert_eq!(take(&subscription, 6, 10), [0; 0]);
        assert_eq!(take(&subscription, 8, 10), [9]);
    }

    #[test]
    fn full_buffer_is_cleared_and_keeps_the_newest_events() {
        let (feed, subscription) = channel();
        let most = i64::try_from(MAX_BUFFERED).unwrap();
        for global_position in 1..=most + 2 {
            publish(&feed, &[global_position]);
        }
        assert_eq!(*subscription.last_committed.borrow(), most + 2);
        assert_eq!(take(&subscription, 0, 10), [0; 0]);
        assert_eq!(take(&subscription, most, 10), [most + 1, most + 2]);
        let batch: Vec<i64> = (most + 3..2 * most + 13).collect();
        publish(&feed, &batch);
        assert_eq!(
            take(&subscription, most + 2, usize::MAX).len(),
            MAX_BUFFERED
        );
    }

    #[test]
    fn old_events_are_dropped_because_an_erasure_may_have_overwritten_them() {
        let (feed, subscription) = channel();
        publish(&feed, &[4]);
        let now = Instant::now();
        let take = |at| subscription.take_contiguous_after(3, 10, at);
        assert!(take(now + 2 * MAX_AGE).is_empty());
        assert!(take(now).is_empty(), "the event was dropped");
    }

    #[test]
    fn without_a_relay_only_the_global_position_is_published() {
        let (feed, CommitSubscription { last_committed, .. }) = channel();
        feed.publish(7, || panic!("no subscriber needs the events"));
        assert_eq!(*last_committed.borrow(), 7);
    }
}
