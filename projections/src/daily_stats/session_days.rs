//! The rows of one session, and how a change is merged into them.
//!
//! The result depends only on the events, in the order of the log, and not on the batches
//! in which they are merged. Merging a change again does not change the rows.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use domain::{Intervals, Position, ReaderId, Timestamp, ZoneName};

use super::batch::{DaysChange, Segment};

/// The rows of one session.
pub(super) type SessionDays = BTreeMap<NaiveDate, SessionDay>;

/// A row: one session on one reading day of its time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionDay {
    pub(super) reader_id: ReaderId,
    pub(super) time_zone: ZoneName,
    /// The active time on the day.
    pub(super) active: Intervals,
    /// The last observation of the day. `None` if the session has none on the day, or if a
    /// later event has set or corrected the reader's end to a time before observations.
    pub(super) observed: Option<Observed>,
    /// The reader's end of the session, if it is on the day.
    pub(super) end: Option<End>,
    /// The position at the start of the session; `None` if the projection skipped the
    /// start.
    pub(super) start_position: Option<Position>,
    /// Net progress on the day, in ten-thousandths of a percent of a book.
    pub(super) progress: i64,
    /// Whether the session ended on the day, finally or provisionally.
    pub(super) is_ended: bool,
}

/// An observed position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) at: Timestamp,
    pub(super) position: Position,
}

/// The reader's end of a session. It is kept apart from the observations, so that a
/// correction can move it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) at: Timestamp,
    /// `None` if the latest observation determines the position.
    pub(super) position: Option<Position>,
}

impl Observed {
    /// The later one. Of two observations with the same time, the one that arrived later.
    pub(super) fn later(self, arrived_later: Self) -> Self {
        if arrived_later.at >= self.at {
            arrived_later
        } else {
            self
        }
    }
}

impl SessionDay {
    fn new(change: &DaysChange) -> Self {
        Self {
            reader_id: change.reader_id,
            time_zone: change.time_zone.clone(),
            active: Intervals::default(),
            observed: None,
            end: None,
            start_position: None,
            progress: 0,
            is_ended: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.active.is_empty() && self.observed.is_none() && self.end.is_none()
    }

    /// The last position of the day; `None` if it is that of the day before.
    pub(super) fn position(&self) -> Option<Position> {
        let at_end = self.end.and_then(|end| end.position);
        at_end.or(self.observed.map(|observed| observed.position))
    }

    fn observe(&mut self, new: Observed) {
        let observed = self.observed.map_or(new, |old| old.later(new));
        self.observed = Some(observed);
    }
}

/// Merges a change into all rows of its session.
pub(super) fn apply(rows: &mut SessionDays, change: &DaysChange) {
    let stored_start = rows.values().find_map(|row| row.start_position);
    let start_position = stored_start.or(change.start_position);
    let mut position = match stored_start {
        Some(start_position) => Some(position_before(rows, start_position)),
        None => start_position.map(steps),
    };
    if change.replaces_active {
        for row in rows.values_mut() {
            row.active = Intervals::default();
        }
    }
    for (day, parts) in &change.active {
        row(rows, *day, change).active.add(parts.iter().copied());
    }
    for segment in &change.segments {
        apply_segment(rows, segment, change);
    }
    rows.retain(|_, row| !row.is_empty());

    let last_day = rows.keys().next_back().copied();
    for (day, row) in rows {
        row.start_position = start_position;
        row.is_ended = change.is_ended && Some(*day) == last_day;
        row.progress = 0;
        if let Some(now) = row.position().map(steps) {
            row.progress = position.map_or(0, |before| now - before);
            position = Some(now);
        }
    }
}

/// The position before the first of the stored rows, in ten-thousandths of a percent. It
/// is not the start position if retention has removed earlier rows.
fn position_before(rows: &SessionDays, start_position: Position) -> i64 {
    let first = rows
        .values()
        .find_map(|row| Some(steps(row.position()?) - row.progress));
    first.unwrap_or_else(|| steps(start_position))
}

fn apply_segment(rows: &mut SessionDays, segment: &Segment, change: &DaysChange) {
    for (day, observed) in &segment.observed {
        row(rows, *day, change).observe(*observed);
    }
    let Some((end_day, end)) = segment.end else {
        return;
    };
    for (day, row) in rows.iter_mut() {
        row.end = None;
        // Only the last observation of a day is stored. If it was after the end, the one
        // before it is not known; to be independent of batches, it is removed in any case.
        if segment.cuts && *day >= end_day {
            row.observed = None;
        }
    }
    if let Some((day, latest)) = segment.latest {
        row(rows, day, change).observe(latest);
    }
    row(rows, end_day, change).end = Some(end);
}

fn row<'a>(rows: &'a mut SessionDays, day: NaiveDate, change: &DaysChange) -> &'a mut SessionDay {
    rows.entry(day).or_insert_with(|| SessionDay::new(change))
}

fn steps(position: Position) -> i64 {
    position.steps().into()
}
