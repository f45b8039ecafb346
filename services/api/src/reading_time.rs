//! Reading time in whole minutes and whole seconds, rounded so that all
//! statistics of the same time have the same total:
//!
//! - The time of a day is rounded down.
//! - The times of a day's hours are rounded so that they add up to the day's.
//! - All other times are sums of these.

use std::iter::Sum;
use std::ops::{AddAssign, Sub};

/// An active reading time. `minutes` and `seconds` are two roundings of the same
/// time: neither is the remainder of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadingTime {
    pub minutes: i64,
    pub seconds: i64,
}

impl ReadingTime {
    /// The time of a day of `active_ms` milliseconds.
    #[must_use]
    pub const fn from_day(active_ms: i64) -> Self {
        Self {
            minutes: active_ms / 60_000,
            seconds: active_ms / 1_000,
        }
    }

    /// The times of a day's hours, in their order, for the milliseconds of each.
    /// An hour's time is the day's rounded time up to its end, minus that up to its
    /// start (cumulative rounding).
    pub fn from_hours(active_ms: impl IntoIterator<Item = i64>) -> impl Iterator<Item = Self> {
        active_ms.into_iter().scan(0, |day_ms, hour_ms| {
            let before = Self::from_day(*day_ms);
            *day_ms += hour_ms;
            Some(Self::from_day(*day_ms) - before)
        })
    }
}

impl Sub for ReadingTime {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            minutes: self.minutes - other.minutes,
            seconds: self.seconds - other.seconds,
        }
    }
}

impl AddAssign for ReadingTime {
    fn add_assign(&mut self, other: Self) {
        self.minutes += other.minutes;
        self.seconds += other.seconds;
    }
}

impl Sum for ReadingTime {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::default(), |mut sum, time| {
            sum += time;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn time(minutes: i64, seconds: i64) -> ReadingTime {
        ReadingTime { minutes, seconds }
    }

    #[rstest]
    #[case(0, 0, 0)]
    #[case(999, 0, 0)]
    #[case(59_999, 0, 59)]
    #[case(60_000, 1, 60)]
    #[case(3_599_999, 59, 3_599)]
    fn time_of_a_day_is_rounded_down(#[case] ms: i64, #[case] minutes: i64, #[case] seconds: i64) {
        assert_eq!(ReadingTime::from_day(ms), time(minutes, seconds));
    }

    #[test]
    fn twelve_hours_of_59_seconds_are_eleven_minutes() {
        let hours: Vec<_> = ReadingTime::from_hours([59_000; 12]).collect();
        assert_eq!(hours[..3], [time(0, 59), time(1, 59), time(1, 59)]);
        assert_eq!(hours.into_iter().sum::<ReadingTime>(), time(11, 708));
        assert_eq!(ReadingTime::from_day(12 * 59_000), time(11, 708));
    }

    #[rstest]
    #[case(&[])]
    #[case(&[0])]
    #[case(&[1, 59_998, 1, 0, 3_600_000])]
    #[case(&[59_999, 59_999, 59_999])]
    #[case(&[500, 500, 60_000, 119_999, 1])]
    fn hours_add_up_to_their_day(#[case] hours: &[i64]) {
        let sum: ReadingTime = ReadingTime::from_hours(hours.iter().copied()).sum();
        assert_eq!(sum, ReadingTime::from_day(hours.iter().sum()));
        for (time, ms) in ReadingTime::from_hours(hours.iter().copied()).zip(hours) {
            // The rounding moves an hour's time by less than a unit.
            assert!(
                (time.minutes * 60_000 - ms).abs() < 60_000,
                "{time:?} of {ms}"
            );
            assert!(
                (time.seconds * 1_000 - ms).abs() < 1_000,
                "{time:?} of {ms}"
            );
        }
    }
}
