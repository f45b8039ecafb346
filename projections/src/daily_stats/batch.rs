//! The effect of events on the statistics of a session. It contains instants only: which
//! days they are on depends on the rules of time zones, which a fold does not know.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use domain::calendar::{reading_day, split_by_day};
use domain::event::EndReason;
use domain::{Interval, Position, ReaderId, SessionEvent, SessionId, Timestamp, ZoneName};
use eventlog::RecordedEvent;
use jiff::tz::TimeZone;

use super::session_days::{End, EndPosition, Observed};
use crate::zones::Zones;

/// This many points and intervals weigh as much as a usual change.
const PARTS_PER_WEIGHT: usize = 16;

/// The effect of events on the rows of one session.
#[derive(Debug, PartialEq, Eq)]
pub enum StatsChange {
    Session(SessionStatsChange),
    Erased,
}

/// The effect of events on the days of one session.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionStatsChange {
    reader_id: ReaderId,
    time_zone: ZoneName,
    /// `None` if no event of the change contains it.
    start_position: Option<Position>,
    active: Vec<Interval>,
    /// Whether `active` replaces the active time of earlier events.
    replaces_active: bool,
    /// In the order of the log.
    points: Vec<Point>,
    /// Whether the session has ended after the change, finally or provisionally.
    is_ended: bool,
    /// The global position of the last event.
    complete_to: i64,
}

#[derive(Debug, PartialEq, Eq)]
enum Point {
    Observation {
        at: Timestamp,
        position: Position,
    },
    /// The reader's end. It replaces an earlier end. Boxed, because a session has thousands
    /// of observations and few ends.
    End(Box<ReaderEnd>),
}

#[derive(Debug, PartialEq, Eq)]
struct ReaderEnd {
    at: Timestamp,
    position: EndPosition,
}

impl StatsChange {
    /// Adds an event.
    pub(super) fn add(&mut self, event: &RecordedEvent) {
        if let SessionEvent::SessionErased(_) = event.event {
            *self = Self::Erased;
        } else if let Self::Session(change) = self {
            change.add(&event.event);
            change.complete_to = event.global_position;
        }
    }

    /// The memory, in units of a usual change.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Session(change) => {
                1 + (change.points.len() + change.active.len()) / PARTS_PER_WEIGHT
            }
            Self::Erased => 1,
        }
    }
}

impl SessionStatsChange {
    pub(super) fn new(reader_id: ReaderId) -> Self {
        Self {
            reader_id,
            time_zone: ZoneName::UTC,
            start_position: None,
            active: Vec::new(),
            replaces_active: false,
            points: Vec::new(),
            is_ended: false,
            complete_to: 0,
        }
    }

    fn add(&mut self, event: &SessionEvent) {
        match event {
            SessionEvent::SessionStarted(event) => {
                self.time_zone = event.time_zone.clone();
                self.start_position = Some(event.position);
                self.points.push(Point::Observation {
                    at: event.started_at,
                    position: event.position,
                });
                self.is_ended = event.end_reason.is_some();
            }
            SessionEvent::PositionUpdated(event) => {
                self.time_zone = event.time_zone.clone();
                self.start_position = event.start_position.or(self.start_position);
                self.add_active(&event.intervals);
                self.points.push(Point::Observation {
                    at: event.occurred_at,
                    position: event.position,
                });
                self.is_ended = event.ended_at.is_some();
            }
            SessionEvent::SessionEnded(event) => {
                self.time_zone = event.time_zone.clone();
                self.start_position = Some(event.start_position);
                if event.intervals_complete {
                    self.active.clear();
                    self.replaces_active = true;
                }
                self.add_active(&event.intervals);
                // The service's own end is no observation.
                if event.reason == EndReason::Finished {
                    let position = event.position;
                    let position = match event.position_at {
                        Some(at) => EndPosition::Observed(Observed { at, position }),
                        None => EndPosition::Own(position),
                    };
                    let at = event.ended_at;
                    self.points
                        .push(Point::End(Box::new(ReaderEnd { at, position })));
                }
                self.is_ended = true;
            }
            SessionEvent::SessionErased(_) => {}
        }
    }

    /// Adds intervals. Most follow the previous one without a gap, and become one with it.
    fn add_active(&mut self, intervals: &[Interval]) {
        for interval in intervals {
            match self.active.last_mut() {
                Some(last) if last.to() == interval.from => last.ms += interval.ms,
                _ => self.active.push(*interval),
            }
        }
    }
}

/// Changes by the days of their sessions.
#[derive(Debug)]
pub(super) struct TouchedDays {
    pub(super) changes: BTreeMap<SessionId, DaysChange>,
    pub(super) erased: BTreeSet<SessionId>,
}

/// A change of one session by its days.
#[derive(Debug)]
pub(super) struct DaysChange {
    pub(super) reader_id: ReaderId,
    pub(super) time_zone: ZoneName,
    pub(super) start_position: Option<Position>,
    /// A day can occur more than once.
    pub(super) active: Vec<(NaiveDate, Vec<Interval>)>,
    pub(super) replaces_active: bool,
    /// In the order of the log. All but the last one have an end.
    pub(super) segments: Vec<Segment>,
    pub(super) is_ended: bool,
    /// The global position of the last event.
    pub(super) complete_to: i64,
}

/// Observations, and then an end.
#[derive(Debug, Default)]
pub(super) struct Segment {
    /// The last observation of each day. A day can occur more than once.
    pub(super) observed: Vec<(NaiveDate, Observed)>,
    pub(super) end: Option<(NaiveDate, End)>,
}

impl TouchedDays {
    pub(super) fn new(rows: &[(SessionId, StatsChange)], zones: &Zones) -> Self {
        let mut touched = Self {
            changes: BTreeMap::new(),
            erased: BTreeSet::new(),
        };
        for (session_id, change) in rows {
            match change {
                StatsChange::Session(change) => {
                    let zone = zones.get(change.time_zone.as_str());
                    let change = DaysChange::new(change, &zone);
                    touched.changes.insert(*session_id, change);
                }
                StatsChange::Erased => {
                    touched.erased.insert(*session_id);
                }
            }
        }
        touched
    }

    /// The days of each reader on which the changes can add rows or active time.
    pub(super) fn reader_days(&self) -> BTreeSet<(ReaderId, NaiveDate)> {
        let changes = self.changes.values();
        changes
            .flat_map(|change| change.days().map(|day| (change.reader_id, day)))
            .collect()
    }

    /// The sessions of which any day can change: those that the reader ended, and erased
    /// ones.
    pub(super) fn ended_or_erased(&self) -> impl Iterator<Item = SessionId> + '_ {
        let ended = self.changes.iter().filter(|(_, change)| {
            change.replaces_active || change.segments.iter().any(|segment| segment.end.is_some())
        });
        ended
            .map(|(session_id, _)| *session_id)
            .chain(self.erased.iter().copied())
    }
}

impl DaysChange {
    fn new(change: &SessionStatsChange, zone: &TimeZone) -> Self {
        // Most follow the previous one on the same day.
        let mut active: Vec<(NaiveDate, Vec<Interval>)> = Vec::new();
        for interval in &change.active {
            for (day, from, to) in split_by_day(interval.from, interval.ms, zone) {
                let part = Interval::between(from, to);
                match active.last_mut() {
                    Some((last, parts)) if *last == day => parts.extend(part),
                    _ => active.push((day, part.into_iter().collect())),
                }
            }
        }
        let mut segments = Vec::new();
        let mut segment = Segment::default();
        for point in &change.points {
            match point {
                Point::Observation { at, position } => {
                    let observed = Observed {
                        at: *at,
                        position: *position,
                    };
                    let day = reading_day(*at, zone);
                    match segment.observed.last_mut() {
                        Some((last_day, last)) if *last_day == day => *last = last.later(observed),
                        _ => segment.observed.push((day, observed)),
                    }
                }
                Point::End(reader_end) => {
                    let ReaderEnd { at, position } = **reader_end;
                    let day = reading_day(at, zone);
                    // A position of an earlier day is in the row of that day.
                    let position = Some(position).filter(|position| match position {
                        EndPosition::Own(_) => true,
                        EndPosition::Observed(last) => reading_day(last.at, zone) == day,
                    });
                    segment.end = Some((day, End { at, position }));
                    segments.push(std::mem::take(&mut segment));
                }
            }
        }
        segments.push(segment);
        Self {
            reader_id: change.reader_id,
            time_zone: change.time_zone.clone(),
            start_position: change.start_position,
            active,
            replaces_active: change.replaces_active,
            segments,
            is_ended: change.is_ended,
            complete_to: change.complete_to,
        }
    }

    /// Days on which the change can add something. A day can occur more than once.
    fn days(&self) -> impl Iterator<Item = NaiveDate> + '_ {
        let segments = self.segments.iter().flat_map(|segment| {
            let end = segment.end.iter().map(|(day, _)| *day);
            let observed = segment.observed.iter().map(|(day, _)| *day);
            observed.chain(end)
        });
        self.active.iter().map(|(day, _)| *day).chain(segments)
    }
}
