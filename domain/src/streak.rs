//! Streaks: how many days in a row somebody has read.

use chrono::NaiveDate;

/// Consecutive reading days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// Days up to today, or up to yesterday: a day is not lost before it is
    /// over.
    pub current: u32,
    /// The most days ever.
    pub longest: u32,
}

impl Streak {
    /// The streaks in reading days, newest first, each once. Days after today
    /// (a reader who flew west) count as today does.
    #[must_use]
    pub fn of(newest_first: impl IntoIterator<Item = NaiveDate>, today: NaiveDate) -> Self {
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

    /// Days ago, newest first, and the current and the longest streak.
    #[rstest]
    #[case::never(&[], 0, 0)]
    #[case::today(&[0], 1, 1)]
    #[case::yesterday_keeps_it_alive(&[1, 2, 3], 3, 3)]
    #[case::the_day_before_does_not(&[2, 3], 0, 2)]
    #[case::a_gap_ends_it(&[0, 1, 3, 4, 5], 2, 3)]
    #[case::long_ago(&[3], 0, 1)]
    #[case::tomorrow_of_one_who_flew_west(&[-1, 0, 1], 3, 3)]
    fn days_in_a_row(#[case] ago: &[i64], #[case] current: u32, #[case] longest: u32) {
        let today = NaiveDate::from_ymd_opt(2026, 3, 1).unwrap();
        let days = ago.iter().map(|ago| today - chrono::TimeDelta::days(*ago));
        assert_eq!(Streak::of(days, today), Streak { current, longest });
    }
}
