//! The rows of one session, and how a change is merged into them.
//!
//! The result depends only on the events, in the order of the log, and not on the batches
//! in which they are merged. Merging a change again does not change the rows.

use chrono::NaiveDate;
use domain::{Intervals, Position, ReaderId, Timestamp, ZoneName};

use super::batch::DaysChange;

/// The rows of one session by day. Nearly every session has one, so they are a sorted
/// list: a tree would allocate a node for eleven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionDays {
    rows: Vec<(NaiveDate, SessionDay)>,
    /// The global position of the last event that changed a row. Later events may have
    /// changed nothing.
    pub(super) complete_to: i64,
}

/// A row: one session on one reading day of its time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionDay {
    pub(super) reader_id: ReaderId,
    pub(super) time_zone: ZoneName,
    /// The active time on the day.
    pub(super) active: Intervals,
    /// The last observation of the day, even if it is after the reader's end.
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
    /// Whether the reader's end is on an earlier day. The row then counts nowhere, until a
    /// correction moves the end.
    pub(super) is_after_end: bool,
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
    /// The position at the end; `None` if it is that of the day before.
    pub(super) position: Option<EndPosition>,
}

/// The position at the reader's end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndPosition {
    /// The end has a position of its own.
    Own(Position),
    /// The latest observation up to the end. A later one can follow.
    Observed(Observed),
}

impl Observed {
    /// The later observation. It is the one that arrived later if both times are equal.
    pub(super) fn later(self, arrived_later: Self) -> Self {
        if arrived_later.at >= self.at {
            arrived_later
        } else {
            self
        }
    }
}

impl EndPosition {
    pub(super) fn position(self) -> Position {
        match self {
            Self::Own(position) | Self::Observed(Observed { position, .. }) => position,
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
            is_after_end: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.active.is_empty() && self.observed.is_none() && self.end.is_none()
    }

    /// The last position of the day that counts; `None` if it is that of the day before.
    pub(super) fn position(&self) -> Option<Position> {
        match self.end {
            Some(end) => end.position.map(EndPosition::position),
            None => self.observed.map(|observed| observed.position),
        }
    }

    fn observe(&mut self, new: Observed) {
        let observed = self.observed.map_or(new, |old| old.later(new));
        self.observed = Some(observed);
        if let Some(end) = &mut self.end
            && new.at <= end.at
        {
            end.position = match end.position {
                Some(EndPosition::Own(position)) => Some(EndPosition::Own(position)),
                Some(EndPosition::Observed(old)) => Some(EndPosition::Observed(old.later(new))),
                None => Some(EndPosition::Observed(new)),
            };
        }
    }
}

impl SessionDays {
    pub(super) const fn new() -> Self {
        Self {
            rows: Vec::new(),
            complete_to: 0,
        }
    }

    pub(super) fn get(&self, day: NaiveDate) -> Option<&SessionDay> {
        let index = self.find(day).ok()?;
        Some(&self.rows[index].1)
    }

    pub(super) fn insert(&mut self, day: NaiveDate, row: SessionDay) {
        match self.find(day) {
            Ok(index) => self.rows[index].1 = row,
            Err(index) => self.rows.insert(index, (day, row)),
        }
    }

    /// The row of a day. An empty one is added if there is none.
    fn row(&mut self, day: NaiveDate, change: &DaysChange) -> &mut SessionDay {
        let index = self.find(day).unwrap_or_else(|index| {
            self.rows.insert(index, (day, SessionDay::new(change)));
            index
        });
        &mut self.rows[index].1
    }

    #[cfg(test)]
    pub(super) fn remove(&mut self, day: NaiveDate) -> Option<SessionDay> {
        let index = self.find(day).ok()?;
        Some(self.rows.remove(index).1)
    }

    fn find(&self, day: NaiveDate) -> Result<usize, usize> {
        self.rows.binary_search_by_key(&day, |(day, _)| *day)
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, (NaiveDate, SessionDay)> {
        self.rows.iter()
    }

    pub(super) fn days(&self) -> impl Iterator<Item = NaiveDate> + '_ {
        self.rows.iter().map(|(day, _)| *day)
    }

    fn rows(&self) -> impl Iterator<Item = &SessionDay> {
        self.rows.iter().map(|(_, row)| row)
    }

    fn rows_mut(&mut self) -> impl Iterator<Item = &mut SessionDay> {
        self.rows.iter_mut().map(|(_, row)| row)
    }
}

impl IntoIterator for SessionDays {
    type Item = (NaiveDate, SessionDay);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.into_iter()
    }
}

impl<'a> IntoIterator for &'a SessionDays {
    type Item = &'a (NaiveDate, SessionDay);
    type IntoIter = std::slice::Iter<'a, (NaiveDate, SessionDay)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Merges a change into all rows of its session.
pub(super) fn apply(rows: &mut SessionDays, change: &DaysChange) {
    let stored_start = rows.rows().find_map(|row| row.start_position);
    let start_position = change.start_position.or(stored_start);
    let removed = stored_start.and_then(|start| position_of_removed_days(rows, start));
    let mut position = removed.or(start_position.map(steps));
    if change.replaces_active {
        for row in rows.rows_mut() {
            row.active = Intervals::default();
        }
    }
    for (day, parts) in &change.active {
        rows.row(*day, change).active.add(parts.iter().copied());
    }
    for segment in &change.segments {
        for (day, observed) in &segment.observed {
            rows.row(*day, change).observe(*observed);
        }
        if let Some((day, end)) = segment.end {
            for row in rows.rows_mut() {
                row.end = None;
            }
            rows.row(day, change).end = Some(end);
        }
    }
    rows.rows.retain(|(_, row)| !row.is_empty());

    let end_day = rows.iter().find_map(|(day, row)| row.end.and(Some(*day)));
    let counts = |day: NaiveDate| end_day.is_none_or(|end_day| day <= end_day);
    let last_day = rows.days().filter(|day| counts(*day)).last();
    for (day, row) in &mut rows.rows {
        row.start_position = start_position;
        row.is_after_end = !counts(*day);
        row.is_ended = change.is_ended && Some(*day) == last_day;
        row.progress = 0;
        if row.is_after_end {
            continue;
        }
        if let Some(now) = row.position().map(steps) {
            row.progress = position.map_or(0, |before| now - before);
            position = Some(now);
        }
    }
}

/// The position before the first of the stored rows, in ten-thousandths of a percent, if
/// retention has removed earlier rows. `None` if it is the start position.
fn position_of_removed_days(rows: &SessionDays, start_position: Position) -> Option<i64> {
    let mut counted = rows.rows().filter(|row| !row.is_after_end);
    let before = counted.find_map(|row| Some(steps(row.position()?) - row.progress))?;
    (before != steps(start_position)).then_some(before)
}

fn steps(position: Position) -> i64 {
    position.steps().into()
}
