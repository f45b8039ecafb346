//! The rows that a worker has changed in memory and not written yet (decision 0026). Pure:
//! reads no clock and does no I/O.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use domain::ReaderId;

/// The rows that a commit takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Urgent rows, and rows whose window has ended.
    Due,
    All,
}

/// An event of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folded {
    pub(super) reader_id: ReaderId,
    pub(super) global_position: i64,
    /// The global position of the event before it in the log.
    pub(super) previous: i64,
    pub(super) at: Instant,
    /// Whether its row must be written with the next commit.
    pub(super) is_urgent: bool,
}

/// Rows in memory.
#[derive(Debug)]
pub(super) struct Window<K, C> {
    length: Duration,
    rows: HashMap<K, Row<C>>,
    /// The rows in the order of their first events. An entry is stale if its row has been
    /// taken since.
    order: VecDeque<(i64, K)>,
    /// The urgent rows in the order in which they became urgent. An entry is stale if its row
    /// has been taken since.
    urgent: VecDeque<K>,
    weight: usize,
}

#[derive(Debug)]
struct Row<C> {
    /// `None` only during a fold.
    change: Option<C>,
    weight: usize,
    reader_id: ReaderId,
    /// The global position of the first event that is not written.
    first: i64,
    /// The global position of the event before it in the log.
    previous: i64,
    since: Instant,
    is_urgent: bool,
}

impl<C> Row<C> {
    fn new(first: Folded) -> Self {
        Self {
            change: None,
            weight: 0,
            reader_id: first.reader_id,
            first: first.global_position,
            previous: first.previous,
            since: first.at,
            is_urgent: false,
        }
    }
}

impl<K: Copy + Ord + Hash, C> Window<K, C> {
    /// Rows are due `length` after their first event.
    pub(super) fn new(length: Duration) -> Self {
        Self {
            length,
            rows: HashMap::new(),
            order: VecDeque::new(),
            urgent: VecDeque::new(),
            weight: 0,
        }
    }

    /// Changes a row by `fold`, which leaves `None` if there is nothing to write.
    pub(super) fn fold(
        &mut self,
        key: K,
        event: Folded,
        weigh: impl FnOnce(&C) -> usize,
        fold: impl FnOnce(&mut Option<C>),
    ) {
        let mut entry = match self.rows.entry(key) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                self.order.push_back((event.global_position, key));
                entry.insert_entry(Row::new(event))
            }
        };
        let row = entry.get_mut();
        fold(&mut row.change);
        self.weight -= row.weight;
        let Some(change) = &row.change else {
            entry.remove();
            return;
        };
        row.weight = weigh(change);
        self.weight += row.weight;
        if event.is_urgent && !row.is_urgent {
            row.is_urgent = true;
            self.urgent.push_back(key);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn contains(&self, key: K) -> bool {
        self.rows.contains_key(&key)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.rows.len()
    }

    /// The sum of the weights of all changes.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn has_urgent(&mut self) -> bool {
        while let Some(key) = self.urgent.front()
            && !self.rows.get(key).is_some_and(|row| row.is_urgent)
        {
            self.urgent.pop_front();
        }
        !self.urgent.is_empty()
    }

    /// Makes the rows of readers urgent. Returns whether there are any.
    pub(super) fn expedite(&mut self, readers: &BTreeSet<ReaderId>) -> bool {
        let mut found = false;
        for (key, row) in &mut self.rows {
            if readers.contains(&row.reader_id) {
                found = true;
                if !row.is_urgent {
                    row.is_urgent = true;
                    self.urgent.push_back(*key);
                }
            }
        }
        found
    }

    /// When the window of the oldest row ends; `None` without rows.
    pub(super) fn ends_at(&mut self) -> Option<Instant> {
        let length = self.length;
        self.oldest().map(|row| row.since + length)
    }

    /// The global position of the last event before the first one whose row is not written.
    /// `None` without rows.
    pub(super) fn complete_to(&mut self) -> Option<i64> {
        self.oldest().map(|row| row.previous)
    }

    fn oldest(&mut self) -> Option<&Row<C>> {
        while let Some((first, key)) = self.order.front() {
            if self.rows.get(key).is_some_and(|row| row.first == *first) {
                break;
            }
            self.order.pop_front();
        }
        let (_, key) = self.order.front()?;
        self.rows.get(key)
    }

    /// Removes at most `max` rows. With [`Take::Due`] these are urgent rows and then the oldest,
    /// with [`Take::All`] the oldest. Returns them in the order of their keys.
    pub(super) fn take(&mut self, take: Take, now: Instant, max: usize) -> Vec<(K, C)> {
        let mut taken = Vec::new();
        while take == Take::Due
            && taken.len() < max
            && self.has_urgent()
            && let Some(key) = self.urgent.pop_front()
        {
            taken.extend(self.remove(key));
        }
        while taken.len() < max
            && let Some(ends_at) = self.ends_at()
            && (take == Take::All || ends_at <= now)
            && let Some((_, key)) = self.order.pop_front()
        {
            taken.extend(self.remove(key));
        }
        taken.sort_unstable_by_key(|(key, _)| *key);
        taken
    }

    /// `None` if the row had nothing to write any more.
    fn remove(&mut self, key: K) -> Option<(K, C)> {
        let row = self.rows.remove(&key)?;
        self.weight -= row.weight;
        Some((key, row.change?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn reader(n: u128) -> ReaderId {
        uuid::Uuid::from_u128(n).into()
    }

    /// A window whose events are at consecutive global positions, one per second. The
    /// change of a row contains their global positions, and the reader has its key.
    struct Log {
        window: Window<u8, Vec<i64>>,
        began: Instant,
        head: i64,
    }

    impl Log {
        fn new() -> Self {
            Self {
                window: Window::new(LENGTH),
                began: Instant::now(),
                head: 0,
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.began + Duration::from_secs(seconds)
        }

        fn event(&mut self, key: u8, is_urgent: bool) {
            let previous = self.head;
            self.head += 1;
            let event = Folded {
                reader_id: reader(key.into()),
                global_position: self.head,
                previous,
                at: self.at(previous.unsigned_abs()),
                is_urgent,
            };
            self.window.fold(key, event, Vec::len, |change| {
                change.get_or_insert_default().push(event.global_position);
            });
        }

        fn updates<const N: usize>(keys: [u8; N]) -> Self {
            let mut log = Self::new();
            for key in keys {
                log.event(key, false);
            }
            log
        }

        fn take(&mut self, take: Take, seconds: u64) -> Vec<(u8, Vec<i64>)> {
            let now = self.at(seconds);
            self.window.take(take, now, usize::MAX)
        }
    }

    #[test]
    fn events_of_a_row_are_one_change_that_is_due_after_the_window() {
        let mut log = Log::updates([1, 1, 2, 1]);
        assert_eq!(log.take(Take::Due, 9), []);
        assert_eq!(log.window.ends_at(), Some(log.at(10)));
        assert_eq!(log.take(Take::Due, 10), [(1, vec![1, 2, 4])]);
        assert_eq!(log.window.ends_at(), Some(log.at(12)));
        assert_eq!(log.take(Take::Due, 12), [(2, vec![3])]);
        assert!(log.window.is_empty());
        assert_eq!(log.window.ends_at(), None);
    }

    #[test]
    fn complete_part_of_the_log_ends_before_the_first_event_in_memory() {
        let mut log = Log::updates([1, 2, 1, 3]);
        assert_eq!(log.window.complete_to(), Some(0));
        log.take(Take::Due, 10);
        assert_eq!(log.window.complete_to(), Some(1));
        log.event(1, false);
        log.take(Take::Due, 11);
        assert_eq!(log.window.complete_to(), Some(3));
        log.take(Take::Due, 13);
        assert_eq!(log.window.complete_to(), Some(4));
        log.take(Take::All, 13);
        assert_eq!(log.window.complete_to(), None);
    }

    #[test]
    fn urgent_rows_are_written_before_earlier_ones() {
        let mut log = Log::updates([1, 2]);
        log.event(3, true);
        log.event(2, true);
        assert!(log.window.has_urgent());
        assert_eq!(log.take(Take::Due, 4), [(2, vec![2, 4]), (3, vec![3])]);
        assert!(!log.window.has_urgent());
        assert_eq!(log.window.complete_to(), Some(0));
    }

    #[test]
    fn all_rows_are_taken_oldest_first_and_returned_by_key() {
        let mut log = Log::updates([3, 2, 1]);
        let now = log.at(3);
        assert_eq!(
            log.window.take(Take::All, now, 2),
            [(2, vec![2]), (3, vec![1])]
        );
        assert_eq!(log.window.take(Take::All, now, 2), [(1, vec![3])]);
    }

    #[test]
    fn checkpoint_advances_although_rows_become_urgent_faster_than_they_are_written() {
        let mut log = Log::new();
        for key in 0..4 {
            log.event(key, true);
        }
        let now = log.at(0);
        for (take, next) in [
            (Take::Due, 4),
            (Take::All, 5),
            (Take::Due, 6),
            (Take::All, 7),
        ] {
            let before = log.window.complete_to();
            assert_eq!(log.window.take(take, now, 1).len(), 1);
            assert!(log.window.complete_to() > before, "{take:?}");
            log.event(next, true);
        }
        assert_eq!(log.window.take(Take::Due, now, usize::MAX).len(), 4);
        assert!(!log.window.has_urgent());
    }

    #[test]
    fn rows_of_a_reader_become_urgent() {
        let mut log = Log::updates([1, 2, 1]);
        assert!(!log.window.expedite(&BTreeSet::from([reader(9)])));
        assert!(log.window.expedite(&BTreeSet::from([reader(1)])));
        assert_eq!(log.take(Take::Due, 3), [(1, vec![1, 3])]);
        assert_eq!(log.window.complete_to(), Some(1));
    }

    #[test]
    fn change_that_vanishes_delays_nothing() {
        let mut log = Log::updates([1, 2]);
        let event = Folded {
            reader_id: reader(1),
            global_position: 3,
            previous: 2,
            at: log.at(2),
            is_urgent: true,
        };
        log.window.fold(1, event, Vec::len, |change| *change = None);
        assert_eq!(log.window.complete_to(), Some(1));
        assert_eq!(log.window.len(), 1);
        log.event(1, false);
        assert_eq!(log.take(Take::All, 3), [(1, vec![3]), (2, vec![2])]);
    }

    #[test]
    fn weight_is_that_of_the_changes_in_memory() {
        let mut log = Log::updates([1, 2, 1]);
        assert_eq!((log.window.len(), log.window.weight()), (2, 3));
        log.take(Take::Due, 10);
        assert_eq!(log.window.weight(), 1);
        log.take(Take::All, 10);
        assert_eq!(log.window.weight(), 0);
    }
}
