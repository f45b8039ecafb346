//! Batches merged into rows in memory, as commits merge them in Postgres.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use chrono::NaiveDate;
use domain::event::EndReason;
use domain::{SessionId, Standing};
use eventlog::RecordedEvent;
use rstest::rstest;

use super::DailyStats;
use super::batch::{StatsChange, TouchedDays};
use super::merge::{DaySums, Merged, StoredDays, merge};
use super::session_days::SessionDay;
use crate::fold_all;
use crate::testing::{Story, at, reader, session};
use crate::zones::Zones;

mod properties;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const BERLIN: &str = "Europe/Berlin";
const KATHMANDU: &str = "Asia/Kathmandu";

/// The tables of the projection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tables {
    session_days: StoredDays,
    days: BTreeMap<NaiveDate, DaySums>,
}

impl Tables {
    /// The tables after one batch.
    fn of(events: &[RecordedEvent]) -> Self {
        let mut tables = Self::default();
        tables.commit(events);
        tables
    }

    /// Merges a batch, and returns the number of changed rows.
    fn commit(&mut self, events: &[RecordedEvent]) -> usize {
        self.commit_changes(&fold_all::<DailyStats>(events))
    }

    fn commit_changes(&mut self, rows: &[(SessionId, StatsChange)]) -> usize {
        let touched = TouchedDays::new(rows, &Zones::built_in());
        let merged = merge(&touched, &self.read(&touched));
        let changed = merged.written.len() + merged.removed.len() + merged.days.len();
        self.write(merged, &touched);
        assert_eq!(self.days, self.sums(), "the days of all readers");
        changed
    }

    /// The tables without the positions up to which rows are complete. They depend on which
    /// events were committed together.
    fn content(mut self) -> Self {
        for days in self.session_days.values_mut() {
            days.complete_to = 0;
        }
        self
    }

    /// The rows that `stored.sql` returns.
    fn read(&self, touched: &TouchedDays) -> StoredDays {
        let rows = || {
            let sessions = self.session_days.iter();
            sessions.flat_map(|(id, days)| days.iter().map(move |(day, row)| (*id, *day, row)))
        };
        let mut pairs = touched.reader_days();
        for session_id in touched.ended_or_erased() {
            let own = rows().filter(|(id, ..)| *id == session_id);
            pairs.extend(own.map(|(_, day, row)| (row.reader_id, day)));
        }
        let mut read = StoredDays::new();
        for (id, day, row) in rows() {
            let is_touched = touched.changes.contains_key(&id) || touched.erased.contains(&id);
            if is_touched || pairs.contains(&(row.reader_id, day)) {
                let days = read.entry(id).or_default();
                days.insert(day, row.clone());
                days.complete_to = self.session_days[&id].complete_to;
            }
        }
        read
    }

    fn write(&mut self, merged: Merged, touched: &TouchedDays) {
        for (id, day) in merged.removed {
            let Entry::Occupied(mut days) = self.session_days.entry(id) else {
                panic!("no rows of {id}");
            };
            days.get_mut().remove(day).expect("the row is stored");
            if days.get().iter().next().is_none() {
                days.remove();
            }
        }
        for ((id, day), row) in merged.written {
            let days = self.session_days.entry(id).or_default();
            days.insert(day, row);
            days.complete_to = touched.changes[&id].complete_to;
        }
        for (day, difference) in merged.days {
            let sums = self.days.entry(day).or_default();
            sums.add_difference(DaySums::default(), difference);
            if sums.readers == 0 {
                assert_eq!(*sums, DaySums::default());
                self.days.remove(&day);
            }
        }
    }

    /// The sums of all rows by day. All rows are of the same reader.
    fn sums(&self) -> BTreeMap<NaiveDate, DaySums> {
        let mut days: BTreeMap<NaiveDate, Vec<&SessionDay>> = BTreeMap::new();
        let rows = self.session_days.values().flatten();
        for (day, row) in rows.filter(|(_, row)| !row.is_after_end) {
            days.entry(*day).or_default().push(row);
        }
        let sums = days.into_iter();
        sums.map(|(day, rows)| (day, DaySums::of_reader(rows)))
            .collect()
    }
}

/// The day of March 2026.
fn nth(day: NaiveDate) -> i64 {
    (day - at(0).date_naive()).num_days() + 1
}

/// Each case is a session, and its rows: the day of March, active seconds, progress in
/// percent, and whether the session ended on that day.
#[rstest]
#[case::one_day(
    Story::starts(1, "UTC", HOUR).seen(HOUR + 60, 2).seen(HOUR + 90, 3),
    &[(1, 90, 3, false)]
)]
#[case::crosses_midnight(
    Story::starts(1, "UTC", DAY - 90).seen(DAY + 30, 2).seen(DAY + 60, 3),
    &[(1, 90, 0, false), (2, 60, 3, false)]
)]
#[case::midnight_of_the_reader(
    Story::starts(1, KATHMANDU, 18 * HOUR + 900 - 30).seen(18 * HOUR + 900 + 30, 1),
    &[(1, 30, 0, false), (2, 30, 1, false)]
)]
#[case::late_observation_counts_on_its_own_day(
    Story::starts(1, "UTC", HOUR).seen(DAY + HOUR, 9).seen_late(2 * HOUR, 5),
    &[(1, 120 + 120, 5, false), (2, 0, 4, false)]
)]
#[case::late_observation_does_not_change_the_last_position_of_its_day(
    Story::starts(1, "UTC", HOUR).seen(2 * HOUR, 9).seen_late(HOUR + 30, 50),
    &[(1, 150, 9, false)]
)]
#[case::observation_before_the_start(
    Story::starts(1, "UTC", DAY + HOUR).seen(DAY + HOUR + 60, 8).seen_late(DAY - 10, 2),
    &[(1, 10, 0, false), (2, 110 + 60, 6, false)]
)]
#[case::active_time_without_an_observation(
    Story::starts(1, "UTC", DAY - 60).seen(2 * DAY, 3),
    &[(1, 60, 0, false), (2, 60, 0, false), (3, 0, 3, false)]
)]
#[case::open_overnight_then_ended(
    Story::starts(1, "UTC", 20 * HOUR).ends(32 * HOUR),
    &[(1, 120, 0, false), (2, 0, 0, true)]
)]
#[case::open_overnight_then_superseded(
    Story::starts(1, "UTC", 20 * HOUR).deactivates(EndReason::Superseded),
    &[(1, 0, 0, true)]
)]
#[case::not_active_from_its_start_on(
    Story::starts_as(Standing::Superseded, 1, "UTC", HOUR),
    &[(1, 0, 0, true)]
)]
#[case::provisional_end_moves_with_later_observations(
    Story::starts(1, "UTC", 20 * HOUR)
        .deactivates(EndReason::Idle)
        .seen_as(Standing::Superseded, DAY + HOUR, 7),
    &[(1, 120, 0, false), (2, 0, 7, true)]
)]
#[case::provisional_end_is_undone(
    Story::starts(1, "UTC", 20 * HOUR).deactivates(EndReason::Idle).resumes(21 * HOUR, 7),
    &[(1, 120, 7, false)]
)]
#[case::late_observation_after_an_end_without_a_position(
    Story::starts(1, "UTC", 20 * HOUR).ends(DAY + HOUR).seen_as(Standing::Active, 21 * HOUR, 4),
    &[(1, 240, 4, false), (2, 0, 0, true)]
)]
#[case::late_observation_after_an_end_with_a_position(
    Story::starts(1, "UTC", 20 * HOUR).ends_at(21 * HOUR, 6).seen_late(21 * HOUR, 4),
    &[(1, 120, 6, true)]
)]
#[case::end_before_later_observations(
    Story::starts(1, "UTC", HOUR).seen(2 * HOUR, 5).seen(DAY + HOUR, 9).ends(3 * HOUR),
    &[(1, 120 + 120, 5, true)]
)]
#[case::end_before_later_observations_of_the_same_day(
    Story::starts(1, "UTC", HOUR).seen(2 * HOUR, 5).seen(4 * HOUR, 9).ends(3 * HOUR),
    &[(1, 120 + 120, 5, true)]
)]
#[case::end_is_corrected_to_the_next_day(
    Story::starts(1, "UTC", HOUR)
        .seen(2 * HOUR, 5)
        .ends_at(3 * HOUR, 6)
        .corrected(Some(DAY + HOUR), None, None),
    &[(1, 240, 5, false), (2, 0, 1, true)]
)]
#[case::end_is_corrected_to_the_day_before(
    Story::starts(1, "UTC", DAY - HOUR)
        .seen(DAY - 60, 5)
        .ends_at(DAY + HOUR, 6)
        .corrected(Some(DAY - 30), None, None),
    &[(1, 120 + 30, 6, true)]
)]
#[case::correction_restores_observations_after_an_early_end(
    Story::starts(1, "UTC", HOUR)
        .seen(2 * HOUR, 5)
        .seen(DAY + HOUR, 7)
        .seen(2 * DAY + HOUR, 9)
        .ends(3 * HOUR)
        .corrected(Some(2 * DAY + 2 * HOUR), None, None),
    &[(1, 240, 5, false), (2, 120, 2, false), (3, 120, 2, true)]
)]
#[case::position_and_then_end_are_corrected(
    Story::starts(1, "UTC", HOUR)
        .seen(2 * HOUR, 5)
        .ends(3 * HOUR)
        .corrected(None, Some(8), None)
        .corrected(Some(DAY + HOUR), None, None),
    &[(1, 240, 5, false), (2, 0, 3, true)]
)]
#[case::active_time_is_corrected(
    Story::starts(1, "UTC", HOUR)
        .seen(2 * HOUR, 5)
        .ends_at(3 * HOUR, 6)
        .corrected(None, Some(8), Some(30)),
    &[(1, 30, 8, true)]
)]
#[case::reading_back_is_negative_progress(
    Story::starts(1, "UTC", HOUR).seen(HOUR + 10, 50).seen(HOUR + 20, 20).seen(25 * HOUR, 10),
    &[(1, 140, 20, false), (2, 0, -10, false)]
)]
fn session_becomes_one_row_per_day(
    #[case] story: Story,
    #[case] expected: &[(i64, i64, i64, bool)],
) {
    let tables = Tables::of(&story.events());
    let rows = tables.session_days.get(&session(1)).into_iter().flatten();
    let rows: Vec<(i64, i64, i64, bool)> = rows
        .filter(|(_, row)| !row.is_after_end)
        .map(|(day, row)| {
            assert_eq!(row.reader_id, reader());
            assert!(row.start_position.is_some());
            let seconds = row.active.total_ms() / 1_000;
            (nth(*day), seconds, row.progress / 10_000, row.is_ended)
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn time_of_overlapping_sessions_counts_once() {
    let mut events = Story::starts(1, "UTC", HOUR)
        .seen(HOUR + 100, 2)
        .ends(HOUR + 200)
        .events();
    events.extend(
        Story::starts(2, "UTC", HOUR + 50)
            .seen(HOUR + 150, 3)
            .events(),
    );
    let tables = Tables::of(&events);
    let sums = DaySums {
        readers: 1,
        sessions: 2,
        active_ms: 200_000,
        progress: 50_000,
        long_sessions: 0,
        ended_sessions: 1,
    };
    assert_eq!(tables.days, BTreeMap::from([(at(0).date_naive(), sums)]));
}

#[test]
fn session_is_long_after_ten_minutes_of_one_day() {
    let long_sessions = |story: Story| -> Vec<i64> {
        let tables = Tables::of(&story.events());
        tables.days.values().map(|day| day.long_sessions).collect()
    };
    // 18:15 UTC is midnight in Kathmandu.
    let midnight = 18 * HOUR + 900;
    let every_minute = |story: Story, from: i64, minutes: i64| {
        (1..=minutes).fold(story, |story, n| story.seen(from + 60 * n, 1))
    };
    let story = |zone, minutes| {
        let from = midnight - 60 * minutes / 2;
        every_minute(Story::starts(1, zone, from), from, minutes)
    };
    assert_eq!(long_sessions(story("UTC", 10)), [0]);
    assert_eq!(long_sessions(story("UTC", 12)), [1]);
    assert_eq!(long_sessions(story(KATHMANDU, 12)), [0, 0]);
    assert_eq!(long_sessions(story(KATHMANDU, 22)), [1, 1]);
}

#[test]
fn erasure_removes_the_rows_of_its_session_only() {
    let story = Story::starts(1, "UTC", DAY - 30).seen(DAY + 60, 2);
    let mut events = story.clone().events();
    let other = Story::starts(2, "UTC", DAY + 3 * HOUR).seen(DAY + 3 * HOUR + 30, 1);
    let only_other = Tables::of(&other.clone().events());
    events.extend(other.events());
    let mut tables = Tables::of(&events);
    assert_eq!(tables.days.len(), 2);

    let erased = story.erased(2 * DAY).events();
    tables.commit(&erased[2..]);
    assert_eq!(tables, only_other);
    // Also with the events before it in the same batch.
    events.push(erased[2].clone());
    assert_eq!(Tables::of(&events), only_other);
    assert_eq!(tables.commit(&erased), 0);
}

#[test]
fn progress_without_the_start_counts_from_the_first_known_position() {
    let events = Story::starts(1, "UTC", HOUR)
        .seen(2 * HOUR, 30)
        .seen(DAY + HOUR, 40)
        .seen_late(3 * HOUR, 35)
        .ends(DAY + 2 * HOUR)
        .events();
    let progress = |tables: &Tables| -> Vec<i64> {
        let days = tables.days.values();
        days.map(|day| day.progress / 10_000).collect()
    };
    // The start was skipped.
    let mut tables = Tables::of(&events[1..2]);
    tables.commit(&events[2..4]);
    assert_eq!(progress(&tables), [0, 5]);
    // The end contains the start position.
    tables.commit(&events[4..]);
    assert_eq!(progress(&tables), [35, 5]);
}

#[test]
fn progress_of_the_remaining_days_does_not_change_after_retention() {
    let events = Story::starts(1, "UTC", HOUR)
        .seen(2 * HOUR, 30)
        .seen(DAY + HOUR, 40)
        .seen_late(DAY + 10, 34)
        .ends_at(DAY + 2 * HOUR, 50)
        .events();
    let mut tables = Tables::of(&events[..3]);
    let first = at(0).date_naive();
    tables
        .session_days
        .get_mut(&session(1))
        .unwrap()
        .remove(first);
    tables.days.remove(&first);
    for (event, progress) in [(3, 10), (4, 20)] {
        tables.commit(&events[event..=event]);
        let day = tables.days.values().next().unwrap();
        assert_eq!(day.progress, progress * 10_000);
    }
}
