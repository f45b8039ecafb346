//! What the API must return for a [`Plan`], computed slowly: sort the observations,
//! then fold them. Nothing here uses code of the service, except the rules of time zones.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Timelike, Utc};

use super::plan::{Observation, Plan, PlannedSession};
use crate::local_time::local;

/// The setting `ACTIVE_GAP` of the tests.
const ACTIVE_GAP: TimeDelta = TimeDelta::seconds(120);

/// A period of reading: from its start, up to but not including its end.
type Interval = (DateTime<Utc>, DateTime<Utc>);

/// The values of a session that do not depend on how its observations arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub last_activity_at: DateTime<Utc>,
    /// Positions are in ten-thousandths of a percent.
    pub start_position: i64,
    pub end_position: i64,
    pub furthest_position: i64,
    pub locator: Option<String>,
    pub duration_seconds: i64,
    pub active_seconds: i64,
    pub is_active: bool,
    pub end_reason: Option<String>,
}

/// The statistics of a reader, as the API must return them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatisticsView {
    /// Newest first, with the day's progress in ten-thousandths of a percent.
    pub days: Vec<(NaiveDate, Sums, i64)>,
    /// Seven days, today first.
    pub week: Vec<(NaiveDate, Sums, i64)>,
    /// Monday first.
    pub weekdays: Vec<Sums>,
    /// By ISO weekday and hour.
    pub hours: BTreeMap<(u32, u32), Sums>,
    /// The current streak, the longest, the days with reading and those without.
    pub streak: [i64; 4],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub sessions: i64,
    pub seconds: i64,
    pub minutes: i64,
}

/// The sessions and the active session of a reader, as the API must return them.
#[derive(Clone, Debug)]
pub struct Expected {
    /// In the order of the plan.
    pub sessions: Vec<SessionView>,
    /// The index of the active session.
    pub active: Option<usize>,
    days: BTreeMap<NaiveDate, Day>,
    /// The zone of the session that was active last.
    zone: &'static str,
}

/// A reading day of all sessions.
#[derive(Clone, Debug, Default)]
struct Day {
    sessions: i64,
    progress: i64,
    active: Vec<Interval>,
    hours: BTreeMap<u32, Hour>,
}

#[derive(Clone, Debug, Default)]
struct Hour {
    sessions: i64,
    active: Vec<Interval>,
}

/// The length of the union of intervals, in milliseconds.
fn union_ms(intervals: &[Interval]) -> i64 {
    let mut sorted = intervals.to_vec();
    sorted.sort_unstable();
    let mut total = TimeDelta::zero();
    let mut counted_until = DateTime::<Utc>::MIN_UTC;
    for (from, until) in sorted {
        let from = from.max(counted_until);
        if from < until {
            total += until - from;
            counted_until = until;
        }
    }
    total.num_milliseconds()
}

/// One session after all its observations.
struct Folded {
    view: SessionView,
    /// The times of all observations that count, and of the end.
    times: Vec<DateTime<Utc>>,
    /// The positions by time. The last one wins if times are equal.
    positions: Vec<(DateTime<Utc>, i64)>,
    active: Vec<Interval>,
    /// The newest observation that is not an end.
    newest: DateTime<Utc>,
}

fn fold(session: &PlannedSession) -> Folded {
    let mut observed: Vec<Observation> = session.counted().cloned().collect();
    // A stable sort: observations of one instant stay in the order of sending.
    observed.sort_by_key(|observation| observation.at);
    let newest = observed.last().expect("a start is an observation").at;
    let start_position = observed[0].position;
    let mut times: Vec<DateTime<Utc>> = observed.iter().map(|one| one.at).collect();
    if let Some(end) = &session.end {
        times.push(end.at);
        if let Some((position, locator)) = &end.position {
            observed.push(Observation {
                at: end.at,
                position: *position,
                locator: locator.clone(),
            });
        }
    }
    let (first, last) = (times[0], *times.last().expect("not empty"));
    let active: Vec<Interval> = times
        .iter()
        .map(|at| (*at, (*at + ACTIVE_GAP).min(last)))
        .collect();
    let latest = observed.last().expect("not empty");
    let view = SessionView {
        started_at: first,
        ended_at: Some(last),
        last_activity_at: last,
        start_position,
        end_position: latest.position,
        furthest_position: observed.iter().map(|one| one.position).max().expect("one"),
        locator: latest.locator.clone(),
        duration_seconds: (last - first).num_seconds(),
        active_seconds: union_ms(&active) / 1_000,
        is_active: false,
        end_reason: session.end.as_ref().map(|_| "finished".to_owned()),
    };
    let positions = observed.iter().map(|one| (one.at, one.position)).collect();
    Folded {
        view,
        times,
        positions,
        active,
        newest,
    }
}

impl Expected {
    /// The values if no session is idle.
    ///
    /// # Panics
    /// If the plan has no session.
    #[must_use]
    pub fn from_plan(plan: &Plan) -> Self {
        let mut folded: Vec<Folded> = plan.sessions.iter().map(fold).collect();
        let newest = (0..folded.len()).max_by_key(|index| folded[*index].newest);
        let newest = newest.expect("a plan has sessions");
        let mut active = None;
        for (index, (folded, planned)) in folded.iter_mut().zip(&plan.sessions).enumerate() {
            if planned.end.is_some() {
                continue;
            }
            if index == newest {
                folded.view.is_active = true;
                folded.view.ended_at = None;
                active = Some(index);
            } else {
                folded.view.end_reason = Some("superseded".to_owned());
            }
        }
        let last = (0..folded.len()).max_by_key(|index| folded[*index].view.last_activity_at);
        let mut days = BTreeMap::new();
        for (folded, planned) in folded.iter().zip(&plan.sessions) {
            add_to_days(&mut days, folded, planned);
        }
        Self {
            sessions: folded.into_iter().map(|folded| folded.view).collect(),
            active,
            days,
            zone: plan.sessions[last.expect("a plan has sessions")].zone,
        }
    }

    /// The reader's current day.
    #[must_use]
    pub fn today(&self, now: DateTime<Utc>) -> NaiveDate {
        local(now, self.zone).date()
    }

    /// The statistics on the reader's day `today`, for the last `window` days.
    #[must_use]
    pub fn statistics(&self, today: NaiveDate, window: i64) -> StatisticsView {
        let sums: BTreeMap<NaiveDate, (Sums, i64)> = self
            .days
            .iter()
            .map(|(date, day)| (*date, (day.sums(), day.progress)))
            .collect();
        let first = today - TimeDelta::days(window - 1);
        let row = |date: NaiveDate| {
            let (sums, progress) = sums.get(&date).copied().unwrap_or_default();
            (date, sums, progress)
        };
        let mut weekdays = vec![Sums::default(); 7];
        let mut hours: BTreeMap<(u32, u32), Sums> = BTreeMap::new();
        for (date, day) in self.days.range(first..) {
            let weekday = date.weekday();
            weekdays[weekday.num_days_from_monday() as usize].add(day.sums());
            for (hour, sums) in day.hours() {
                let key = (weekday.number_from_monday(), hour);
                hours.entry(key).or_default().add(sums);
            }
        }
        StatisticsView {
            days: sums
                .range(first..)
                .rev()
                .map(|(date, _)| row(*date))
                .collect(),
            week: (0..7)
                .map(|ago| row(today - TimeDelta::days(ago)))
                .collect(),
            weekdays,
            hours,
            streak: self.streak(today, first, window),
        }
    }

    fn streak(&self, today: NaiveDate, first: NaiveDate, window: i64) -> [i64; 4] {
        let read: BTreeSet<NaiveDate> = self
            .days
            .iter()
            .filter(|(_, day)| day.ms() >= 60_000)
            .map(|(date, _)| *date)
            .collect();
        let run = |mut date: NaiveDate| {
            let mut length = 0;
            while read.contains(&date) {
                length += 1;
                date -= TimeDelta::days(1);
            }
            length
        };
        let newest = read.last().copied();
        let alive = newest.filter(|newest| *newest >= today - TimeDelta::days(1));
        let recent = i64::try_from(read.range(first..=today).count()).expect("few days");
        [
            alive.map_or(0, run),
            read.iter().map(|date| run(*date)).max().unwrap_or(0),
            recent,
            window - recent,
        ]
    }
}

/// Adds a session to the days and hours on which it was read.
fn add_to_days(days: &mut BTreeMap<NaiveDate, Day>, folded: &Folded, planned: &PlannedSession) {
    let zone = planned.zone;
    // One entry for each minute, because offsets of zones are whole minutes.
    let mut minutes: Vec<Interval> = Vec::new();
    for (from, until) in &folded.active {
        let mut at = *from;
        while at < *until {
            let into_minute = at.timestamp_millis().rem_euclid(60_000);
            let next = (at + TimeDelta::milliseconds(60_000 - into_minute)).min(*until);
            minutes.push((at, next));
            at = next;
        }
    }
    // An observation is reading even if no time follows it.
    minutes.extend(folded.times.iter().map(|at| (*at, *at)));
    let mut dates = BTreeSet::new();
    let mut hours = BTreeSet::new();
    for (from, until) in minutes {
        let local = local(from, zone);
        let (date, hour) = (local.date(), local.hour());
        let day = days.entry(date).or_default();
        day.active.push((from, until));
        let entry = day.hours.entry(hour).or_default();
        entry.active.push((from, until));
        entry.sessions += i64::from(hours.insert((date, hour)));
        day.sessions += i64::from(dates.insert(date));
    }
    let mut before = folded.view.start_position;
    for date in dates {
        let on_day = |(at, _): &&(DateTime<Utc>, i64)| local(*at, zone).date() == date;
        let last = folded.positions.iter().rev().find(on_day);
        let position = last.map_or(before, |(_, position)| *position);
        days.entry(date).or_default().progress += position - before;
        before = position;
    }
}

impl Day {
    fn ms(&self) -> i64 {
        union_ms(&self.active)
    }

    fn sums(&self) -> Sums {
        Sums {
            sessions: self.sessions,
            seconds: self.ms() / 1_000,
            minutes: self.ms() / 60_000,
        }
    }

    /// The hours of the day. They add up to the day, although each is rounded.
    fn hours(&self) -> impl Iterator<Item = (u32, Sums)> {
        let mut total = 0;
        self.hours.iter().map(move |(hour, read)| {
            let before = total;
            total += union_ms(&read.active);
            let sums = Sums {
                sessions: read.sessions,
                seconds: total / 1_000 - before / 1_000,
                minutes: total / 60_000 - before / 60_000,
            };
            (*hour, sums)
        })
    }
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.seconds += other.seconds;
        self.minutes += other.minutes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::plan::PlannedEnd;
    use uuid::Uuid;

    /// Midnight in New York, in a summer.
    fn midnight() -> DateTime<Utc> {
        "2026-07-02T04:00:00Z".parse().unwrap()
    }

    /// A session in New York, with times in seconds after midnight and positions in
    /// percent.
    fn session(observations: &[(i64, i64)], end: Option<i64>) -> PlannedSession {
        let at = |seconds| midnight() + TimeDelta::seconds(seconds);
        let mut all = observations.iter().map(|(seconds, position)| Observation {
            at: at(*seconds),
            position: position * 10_000,
            locator: None,
        });
        PlannedSession {
            book: Uuid::nil(),
            zone: "America/New_York",
            device_id: "phone",
            device_type: "mobile",
            start: all.next().unwrap(),
            observations: all.collect(),
            end: end.map(|seconds| PlannedEnd {
                at: at(seconds),
                position: None,
            }),
            after_end: Vec::new(),
        }
    }

    #[test]
    fn days_hours_and_sessions_of_a_small_plan() {
        let plan = Plan {
            sessions: vec![
                // 30 s and 120 s before midnight, 45 s after it.
                session(&[(-600, 1), (-570, 5), (-20, 9), (25, 7)], Some(45)),
                // Overlaps with the first one by 45 s.
                session(&[(0, 20), (100, 22)], None),
            ],
        };
        let expected = Expected::from_plan(&plan);
        assert_eq!(expected.active, Some(1));
        let [first, second] = &expected.sessions[..] else {
            panic!("two sessions")
        };
        assert_eq!(first.active_seconds, 30 + 120 + 45 + 20);
        assert_eq!(
            (first.end_position, first.furthest_position),
            (70_000, 90_000)
        );
        assert_eq!(first.end_reason.as_deref(), Some("finished"));
        assert_eq!(second.active_seconds, 100);
        assert_eq!(second.ended_at, None);

        let today = midnight().date_naive();
        assert_eq!(expected.today(midnight()), today);
        let statistics = expected.statistics(today, 10);
        let sums = |sessions, seconds| Sums {
            sessions,
            seconds,
            minutes: seconds / 60,
        };
        let yesterday = today - TimeDelta::days(1);
        assert_eq!(
            statistics.days,
            [
                (today, sums(2, 100), -20_000 + 20_000),
                (yesterday, sums(1, 170), 80_000),
            ]
        );
        // 2 July 2026 is a Thursday.
        let hours: Vec<_> = statistics.hours.into_iter().collect();
        assert_eq!(hours, [((3, 23), sums(1, 170)), ((4, 0), sums(2, 100))]);
        assert_eq!(statistics.streak, [2, 2, 2, 8]);
    }

    #[test]
    fn minutes_of_hours_add_up_to_the_minutes_of_the_day() {
        // 59 seconds in each of twelve hours.
        let sessions = (0..12).map(|hour| session(&[(hour * 3_600, 1)], Some(hour * 3_600 + 59)));
        let plan = Plan {
            sessions: sessions.collect(),
        };
        let today = midnight().date_naive();
        let statistics = Expected::from_plan(&plan).statistics(today, 1);
        let minutes: Vec<i64> = statistics.hours.values().map(|sums| sums.minutes).collect();
        assert_eq!(minutes, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(statistics.days[0].1.minutes, 11);
        assert_eq!(statistics.weekdays[3].seconds, 708);
    }
}
