//! Streaks: numbers of consecutive reading days.

use chrono::NaiveDate;

/// A reader's streaks, in days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// The streak that ends today or yesterday: a day without reading breaks a
    /// streak only once that day has ended.
    pub current: u32,
    /// The longest streak among all given days.
    pub longest: u32,
}

impl Streak {
    /// Computes the streaks from reading days, newest first and without
    /// duplicates. A day after `today` keeps the streak alive as `today` does:
    /// after travelling west, a reader may have read on a later local date.
    #[must_use]
    pub fn from_reading_days(
        newest_first: impl IntoIterator<Item = NaiveDate>,
        today: NaiveDate,
    ) -> Self {
        let mut streak = Self::default();
        let mut run = 0;
        let mut alive = true;
        let mut later: Option<NaiveDate> = None;
        for day in newest_first {
            let follows = later.is_some_and(|later| day.succ_opt() == Some(later));
            if later.is_none() {
                alive = day.succ_opt() >= Some(today);
            } else if !follows {
                alive = false;
            }
            run = if follows { run + 1 } else { 1 };
            if alive {
                streak.current = run;
            }
            streak.longest = streak.longest.max(run);
            later = Some(day);
        }
        streak
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Reading days as days before today, newest first.
    #[rstest]
    #[case::no_days(&[], 0, 0)]
    #[case::today(&[0], 1, 1)]
    #[case::yesterday_keeps_it_alive(&[1, 2, 3], 3, 3)]
    #[case::two_days_ago_does_not(&[2, 3], 0, 2)]
    #[case::a_gap_breaks_it(&[0, 1, 3, 4, 5], 2, 3)]
    #[case::long_ago(&[3], 0, 1)]
    #[case::tomorrow_after_travelling_west(&[-1, 0, 1], 3, 3)]
    fn streaks_count_consecutive_days(
        #[case] days_ago: &[i64],
        #[case] current: u32,
        #[case] longest: u32,
    ) {
        let today = NaiveDate::from_ymd_opt(2026, 3, 1).unwrap();
        let days = days_ago
            .iter()
            .map(|days_ago| today - chrono::TimeDelta::days(*days_ago));
        assert_eq!(
            Streak::from_reading_days(days, today),
            Streak { current, longest }
        );
    }
}
