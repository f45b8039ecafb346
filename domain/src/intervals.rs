//! Sets of time intervals. Active reading time is the length of such a set, so that
//! overlapping observations count once and their order has no effect.

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// An interval of active reading time.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct Interval {
    /// The start of the interval.
    pub from: Timestamp,
    /// The length of the interval in milliseconds, more than 0.
    pub ms: i64,
}

impl Interval {
    /// The interval from `from` up to `to`, which it does not contain; `None` if it
    /// is empty.
    #[must_use]
    pub fn between(from: Timestamp, to: Timestamp) -> Option<Self> {
        let ms = (to - from).num_milliseconds();
        (ms > 0).then_some(Self { from, ms })
    }

    /// The end of the interval, which it does not contain.
    #[must_use]
    pub fn to(self) -> Timestamp {
        self.from + TimeDelta::milliseconds(self.ms)
    }
}

/// A set of instants, as disjoint intervals in chronological order that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals(Vec<Interval>);

impl Intervals {
    /// The union of the intervals, which may overlap and be in any order.
    #[must_use]
    pub fn union(intervals: impl IntoIterator<Item = Interval>) -> Self {
        let mut sorted: Vec<Interval> = intervals.into_iter().filter(|i| i.ms > 0).collect();
        sorted.sort_unstable();
        let mut union: Vec<Interval> = Vec::with_capacity(sorted.len());
        for next in sorted {
            match union.last_mut() {
                Some(last) if next.from <= last.to() => {
                    let to = last.to().max(next.to());
                    last.ms = (to - last.from).num_milliseconds();
                }
                _ => union.push(next),
            }
        }
        Self(union)
    }

    /// Adds intervals to the set.
    pub fn add(&mut self, intervals: impl IntoIterator<Item = Interval>) {
        let mut all = std::mem::take(&mut self.0);
        all.extend(intervals);
        *self = Self::union(all);
    }

    /// The total length in milliseconds.
    #[must_use]
    pub fn total_ms(&self) -> i64 {
        self.0.iter().map(|interval| interval.ms).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Interval> + '_ {
        self.0.iter().copied()
    }

    #[must_use]
    pub fn into_vec(self) -> Vec<Interval> {
        self.0
    }

    /// The parts of the interval that are not in the set.
    #[must_use]
    pub fn missing_from(&self, interval: Interval) -> Self {
        let mut missing = Vec::new();
        let mut from = interval.from;
        for present in self.iter() {
            if present.to() <= from {
                continue;
            }
            if present.from >= interval.to() {
                break;
            }
            missing.extend(Interval::between(from, present.from));
            from = from.max(present.to());
        }
        missing.extend(Interval::between(from, interval.to()));
        Self(missing)
    }

    /// The set with a total length of `ms`, within `bounds`: its earliest parts, or
    /// the whole set and the earliest gaps in it. Shorter if `bounds` is.
    #[must_use]
    pub fn resized(&self, ms: i64, bounds: Option<Interval>) -> Self {
        let gaps = bounds.map_or_else(Self::default, |bounds| self.missing_from(bounds));
        let mut left = ms;
        let mut taken = Vec::new();
        for interval in self.iter().chain(gaps.iter()) {
            if left <= 0 {
                break;
            }
            let ms = interval.ms.min(left);
            taken.push(Interval { ms, ..interval });
            left -= ms;
        }
        Self::union(taken)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        DateTime::from_timestamp_millis(1_790_000_000_000 + ms).unwrap()
    }

    fn interval((from, ms): (i64, i64)) -> Interval {
        Interval { from: at(from), ms }
    }

    fn set(intervals: &[(i64, i64)]) -> Intervals {
        Intervals::union(intervals.iter().copied().map(interval))
    }

    /// Every millisecond of a set, within the range of the tests.
    fn instants(set: &Intervals) -> Vec<i64> {
        let contains = |ms: &i64| set.iter().any(|i| i.from <= at(*ms) && at(*ms) < i.to());
        (-10..120).filter(contains).collect()
    }

    #[test]
    fn touching_and_overlapping_intervals_become_one() {
        assert_eq!(
            set(&[(10, 5), (15, 5), (0, 2), (18, 10)]),
            set(&[(0, 2), (10, 18)])
        );
        assert_eq!(set(&[(0, 0), (3, -1)]), Intervals::default());
    }

    #[test]
    fn resized_set_takes_the_earliest_parts_and_then_the_earliest_gaps() {
        let two = set(&[(10, 10), (30, 10)]);
        let bounds = Some(interval((0, 50)));
        assert_eq!(two.resized(15, bounds), set(&[(10, 10), (30, 5)]));
        assert_eq!(two.resized(25, bounds), set(&[(0, 5), (10, 10), (30, 10)]));
        assert_eq!(two.resized(99, bounds), set(&[(0, 50)]));
        assert_eq!(two.resized(0, bounds), Intervals::default());
        assert_eq!(two.resized(99, None), two);
    }

    fn pairs() -> impl Strategy<Value = Vec<(i64, i64)>> {
        vec((0..90_i64, 0..15_i64), 0..12)
    }

    proptest! {
        #[test]
        fn union_contains_each_instant_once_in_any_order(pairs in pairs().prop_shuffle()) {
            let set = set(&pairs);
            let expected: Vec<i64> = (-10..120)
                .filter(|ms| pairs.iter().any(|(from, length)| (*from..from + length).contains(ms)))
                .collect();
            prop_assert_eq!(instants(&set), expected.clone());
            prop_assert_eq!(set.total_ms(), i64::try_from(expected.len()).unwrap());
            let vec = set.clone().into_vec();
            prop_assert!(vec.windows(2).all(|pair| pair[0].to() < pair[1].from));
            prop_assert_eq!(Intervals::union(vec), set);
        }

        #[test]
        fn missing_parts_complete_the_interval(pairs in pairs(), other in (0..90_i64, 1..30_i64)) {
            let set = set(&pairs);
            let other = interval(other);
            let missing = set.missing_from(other);
            prop_assert!(instants(&missing).iter().all(|ms| !instants(&set).contains(ms)));
            let mut all = set.clone();
            all.add(missing.iter());
            let mut expected = set;
            expected.add([other]);
            prop_assert_eq!(all, expected);
        }
    }
}
