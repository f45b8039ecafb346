//! The statistics equal a slow count of the log: all observations of a session sorted by
//! time, and its active time minute by minute.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{NaiveDate, TimeDelta};
use domain::calendar::reading_hour;
use domain::event::EndReason;
use domain::{Interval, SessionEvent, SessionId, Timestamp, ZoneName};
use eventlog::StoredEvent;
use projections::daily_stats::{self, AllReadersDay, ReaderDay, ReaderHour};
use projections::zones::Zones;
use sqlx::PgPool;
use uuid::Uuid;

/// A long session has more active time than this, in milliseconds.
const LONG_MS: i64 = 600_000;

/// The facts about a session that the log contains.
#[derive(Default)]
struct Facts {
    reader: Uuid,
    zone: ZoneName,
    start_position: i64,
    intervals: Vec<Interval>,
    /// In the order of the log.
    observed: Vec<(Timestamp, i64)>,
    /// The reader's end, and its position if it has one.
    end: Option<(Timestamp, Option<i64>)>,
    is_ended: bool,
}

impl Facts {
    fn add(&mut self, event: &SessionEvent) {
        self.reader = event.reader_id().uuid();
        match event {
            SessionEvent::SessionStarted(event) => {
                self.zone = event.time_zone.clone();
                self.start_position = event.position.steps().into();
                self.observe(event.started_at, event.position);
                self.is_ended = event.end_reason.is_some();
            }
            SessionEvent::PositionUpdated(event) => {
                self.intervals.extend(&event.intervals);
                self.observe(event.occurred_at, event.position);
                self.is_ended = event.ended_at.is_some();
            }
            SessionEvent::SessionEnded(event) => {
                if event.intervals_complete {
                    self.intervals.clear();
                }
                self.intervals.extend(&event.intervals);
                if event.reason == EndReason::Finished {
                    let position = event.position.steps().into();
                    let own = event.position_at.is_none().then_some(position);
                    self.end = Some((event.ended_at, own));
                }
                self.is_ended = true;
            }
            SessionEvent::SessionErased(_) => {}
        }
    }

    fn observe(&mut self, at: Timestamp, position: domain::Position) {
        self.observed.push((at, position.steps().into()));
    }

    /// The rows of the session by day.
    fn days(&self, zones: &Zones) -> BTreeMap<NaiveDate, Row> {
        let zone = zones.get(self.zone.as_str());
        let mut days: BTreeMap<NaiveDate, Row> = BTreeMap::new();
        for interval in &self.intervals {
            let mut at = interval.from;
            while at < interval.to() {
                // Dates and hours change at whole minutes.
                let into_minute = at.timestamp_millis().rem_euclid(60_000);
                let next = at + TimeDelta::milliseconds(60_000 - into_minute);
                let next = next.min(interval.to());
                let (day, hour) = reading_hour(at, &zone);
                let row = days.entry(day).or_default();
                row.parts.push((hour, at, next));
                row.hours.insert(hour);
                at = next;
            }
        }
        let mut points: Vec<(Timestamp, Option<i64>)> = self
            .observed
            .iter()
            .filter(|(at, _)| self.end.is_none_or(|(end, _)| *at <= end))
            .map(|(at, position)| (*at, Some(*position)))
            .collect();
        // A stable sort: of equal times, the one that arrived later counts.
        points.sort_by_key(|(at, _)| *at);
        let first = points.first().and_then(|(_, position)| *position);
        points.extend(self.end);
        for (at, position) in points {
            let (day, hour) = reading_hour(at, &zone);
            let row = days.entry(day).or_default();
            row.last = Some((at, hour));
            row.position = position.or(row.position);
        }
        let mut before = first.unwrap_or(self.start_position);
        for row in days.values_mut() {
            row.hours.extend(row.last.map(|(_, hour)| hour));
            let position = row.position.unwrap_or(before);
            row.progress = position - before;
            before = position;
        }
        if let Some(mut last) = days.last_entry() {
            last.get_mut().is_ended = self.is_ended;
        }
        days
    }
}

/// A session on one day.
#[derive(Clone, Debug, Default)]
struct Row {
    /// Parts of the active time, each in one hour. They may overlap.
    parts: Vec<(u32, Timestamp, Timestamp)>,
    hours: BTreeSet<u32>,
    /// The last observation or the end, with its hour.
    last: Option<(Timestamp, u32)>,
    position: Option<i64>,
    progress: i64,
    is_ended: bool,
}

/// Counts what is not counted yet.
#[derive(Default)]
struct Counted(BTreeMap<Timestamp, Timestamp>);

impl Counted {
    /// Returns the milliseconds of an interval that were not counted before.
    fn add(&mut self, from: Timestamp, to: Timestamp) -> i64 {
        let mut added = TimeDelta::zero();
        let (mut at, mut known) = (from, Vec::new());
        for (start, end) in &self.0 {
            if *end > at && *start < to {
                known.push((at, (*start).max(at)));
                at = *end;
            }
        }
        known.push((at, to.max(at)));
        for (start, end) in known {
            if start < end {
                added += end - start;
                self.0.insert(start, end);
            }
        }
        added.num_milliseconds()
    }
}

/// The days of one reader, oldest first, from the rows of the reader's sessions.
fn count_reader(
    reader: Uuid,
    sessions: &BTreeMap<SessionId, Facts>,
    zones: &Zones,
    all: &mut BTreeMap<NaiveDate, AllReadersDay>,
) -> Vec<(ReaderDay, Vec<ReaderHour>)> {
    let mut by_day: BTreeMap<NaiveDate, Vec<Row>> = BTreeMap::new();
    let mut latest = None;
    for (id, facts) in sessions.iter().filter(|(_, facts)| facts.reader == reader) {
        for (day, row) in facts.days(zones) {
            let last = row.last.map(|(at, _)| at);
            latest = latest.max(Some((last, *id, facts.zone.clone())));
            by_day.entry(day).or_default().push(row);
        }
    }
    let time_zone = latest.map_or_else(ZoneName::default, |(_, _, zone)| zone);
    let days = by_day.into_iter().map(|(day, rows)| {
        let mut hours: BTreeMap<u32, (i64, i64)> = BTreeMap::new();
        let mut counted = Counted::default();
        let mut sums = AllReadersDay {
            day,
            readers: 1,
            sessions: 0,
            active_ms: 0,
            progress: 0,
            long_sessions: 0,
            ended_sessions: 0,
        };
        for row in &rows {
            let mut own = Counted::default();
            let mut own_ms = 0;
            for (hour, from, to) in &row.parts {
                own_ms += own.add(*from, *to);
                let added = counted.add(*from, *to);
                hours.entry(*hour).or_default().1 += added;
                sums.active_ms += added;
            }
            for hour in &row.hours {
                hours.entry(*hour).or_default().0 += 1;
            }
            sums.sessions += 1;
            sums.progress += row.progress;
            sums.long_sessions += i64::from(own_ms > LONG_MS);
            sums.ended_sessions += i64::from(row.is_ended);
        }
        let reader_day = ReaderDay {
            day,
            sessions: sums.sessions,
            active_ms: sums.active_ms,
            progress: sums.progress,
            time_zone: time_zone.to_string(),
        };
        match all.get_mut(&day) {
            Some(all) => add(all, &sums),
            None => drop(all.insert(day, sums)),
        }
        let hours = hours
            .into_iter()
            .map(|(hour, (sessions, active_ms))| ReaderHour {
                hour: i16::try_from(hour).expect("an hour is below 24"),
                sessions,
                active_ms,
            });
        (reader_day, hours.collect())
    });
    days.collect()
}

fn add(all: &mut AllReadersDay, reader: &AllReadersDay) {
    all.readers += reader.readers;
    all.sessions += reader.sessions;
    all.active_ms += reader.active_ms;
    all.progress += reader.progress;
    all.long_sessions += reader.long_sessions;
    all.ended_sessions += reader.ended_sessions;
}

/// Compares the statistics of each reader and of all readers with the log.
pub async fn statistics_match_the_log(pool: &PgPool, log: &[StoredEvent]) {
    let zones = Zones::load();
    let mut sessions: BTreeMap<SessionId, Facts> = BTreeMap::new();
    let mut erased = BTreeSet::new();
    let mut readers = BTreeSet::new();
    for stored in log {
        let recorded = stored.decode().unwrap();
        readers.insert(recorded.event.reader_id().uuid());
        if let SessionEvent::SessionErased(_) = recorded.event {
            erased.insert(recorded.session_id);
        }
        let facts = sessions.entry(recorded.session_id).or_default();
        facts.add(&recorded.event);
    }
    sessions.retain(|id, _| !erased.contains(id));

    let mut all = BTreeMap::new();
    for reader in readers {
        let mut expected = count_reader(reader, &sessions, &zones, &mut all);
        expected.reverse();
        let from = NaiveDate::default();
        let days = daily_stats::days_with_hours(pool, reader.into(), from, &zones).await;
        let days = days.unwrap();
        for (shown, expected) in days.iter().zip(&expected) {
            assert_eq!(shown, expected, "a day of {reader}");
        }
        assert_eq!(days.len(), expected.len(), "number of days of {reader}");
        let without_hours = daily_stats::days(pool, reader.into(), from).await.unwrap();
        let days: Vec<ReaderDay> = days.into_iter().map(|(day, _)| day).collect();
        assert_eq!(without_hours, days, "days of {reader}");
    }

    let shown = daily_stats::all_readers_days(pool, NaiveDate::default());
    let shown = shown.await.unwrap();
    let expected: Vec<AllReadersDay> = all.into_values().rev().collect();
    assert_eq!(shown, expected, "days of all readers");
}
