//! A reader's day from the rows of its sessions, with the hours of the day.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use domain::calendar::{reading_hour, split_by_hour};
use domain::{Interval, Intervals, Timestamp};

use super::ReaderDay;
use crate::zones::Zones;

/// A reader's statistics of one hour of a reading day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderHour {
    /// 0 to 23, in the time zones of the sessions.
    pub hour: i16,
    /// Sessions with reading in the hour.
    pub sessions: i64,
    pub active_ms: i64,
}

/// A session's row of a reading day.
pub(super) struct SessionOnDay {
    pub(super) session_id: String,
    pub(super) day: NaiveDate,
    pub(super) time_zone: String,
    pub(super) progress: i64,
    /// The session's last observation or end on the day.
    pub(super) last_at: Option<Timestamp>,
    pub(super) active: Intervals,
}

/// The day of a reader with these rows, and its hours. The active times of the hours add
/// up to that of the day.
pub(super) fn day_with_hours(
    day: NaiveDate,
    rows: &[SessionOnDay],
    zones: &Zones,
) -> (ReaderDay, Vec<ReaderHour>) {
    let mut hours: BTreeMap<i16, ReaderHour> = BTreeMap::new();
    let mut counted = Intervals::default();
    for row in rows {
        let zone = zones.get(&row.time_zone);
        let mut touched = BTreeSet::new();
        for interval in row.active.iter() {
            for ((_, hour), from, to) in split_by_hour(interval.from, interval.ms, &zone) {
                touched.insert(hour);
                // An instant that another session contains too counts once, even if that
                // session's time zone gives it another hour.
                let part = Interval::between(from, to);
                let added = part.map_or(0, |part| counted.missing_from(part).total_ms());
                entry(&mut hours, hour).active_ms += added;
            }
        }
        counted.add(row.active.iter());
        if let Some(last_at) = row.last_at {
            touched.insert(reading_hour(last_at, &zone).1);
        }
        for hour in touched {
            entry(&mut hours, hour).sessions += 1;
        }
    }
    let sessions = i64::try_from(rows.len()).expect("a reader has few sessions a day");
    let day = ReaderDay {
        day,
        sessions,
        active_ms: counted.total_ms(),
        progress: rows.iter().map(|row| row.progress).sum(),
        time_zone: latest_zone(rows).to_owned(),
    };
    (day, hours.into_values().collect())
}

fn entry(hours: &mut BTreeMap<i16, ReaderHour>, hour: u32) -> &mut ReaderHour {
    let hour = i16::try_from(hour).expect("an hour is below 24");
    hours.entry(hour).or_insert(ReaderHour {
        hour,
        sessions: 0,
        active_ms: 0,
    })
}

/// The time zone of the session that was active last. UTC without rows.
pub(super) fn latest_zone(rows: &[SessionOnDay]) -> &str {
    let latest = rows.iter().max_by_key(|row| (row.last_at, &row.session_id));
    latest.map_or("UTC", |row| row.time_zone.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    const HOUR: i64 = 3_600;

    /// A session with active time from and up to these seconds after midnight UTC.
    fn session(id: &str, time_zone: &str, active: &[(i64, i64)], last_at: i64) -> SessionOnDay {
        let intervals = active
            .iter()
            .filter_map(|(from, to)| Interval::between(at(*from), at(*to)));
        SessionOnDay {
            session_id: id.to_owned(),
            day: at(0).date_naive(),
            time_zone: time_zone.to_owned(),
            progress: 10,
            last_at: Some(at(last_at)),
            active: Intervals::union(intervals),
        }
    }

    /// The hours as hour, sessions and active seconds.
    fn hours(rows: &[SessionOnDay]) -> (ReaderDay, Vec<(i16, i64, i64)>) {
        let (day, hours) = day_with_hours(at(0).date_naive(), rows, &Zones::built_in());
        let sum: i64 = hours.iter().map(|hour| hour.active_ms).sum();
        assert_eq!(sum, day.active_ms, "the hours add up to the day");
        let hours = hours.iter();
        let hours = hours.map(|hour| (hour.hour, hour.sessions, hour.active_ms / 1_000));
        (day, hours.collect())
    }

    #[test]
    fn session_counts_in_each_hour_with_active_time_or_its_last_activity() {
        let active = [(2 * HOUR - 90, 2 * HOUR + 180)];
        let (day, hours) = hours(&[session("a", "UTC", &active, 5 * HOUR)]);
        assert_eq!(hours, [(1, 1, 90), (2, 1, 180), (5, 1, 0)]);
        assert_eq!(
            (day.sessions, day.active_ms, day.progress),
            (1, 270_000, 10)
        );
    }

    #[test]
    fn overlapping_instants_count_once_in_whatever_zones() {
        let (day, found) = hours(&[
            session("a", "UTC", &[(HOUR, HOUR + 100)], HOUR + 100),
            session("b", "UTC", &[(HOUR + 60, HOUR + 160)], HOUR + 160),
            session("c", "+02:00", &[(HOUR + 100, HOUR + 200)], HOUR + 150),
        ]);
        assert_eq!(found, [(1, 2, 160), (3, 1, 40)]);
        assert_eq!(
            (day.sessions, day.active_ms, day.progress),
            (3, 200_000, 30)
        );
        assert_eq!(day.time_zone, "UTC");
    }
}
