//! Merges changes into the stored rows, and finds what differs.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use domain::{Intervals, ReaderId, SessionId};

use super::batch::TouchedDays;
use super::session_days::{SessionDay, SessionDays, apply};

/// A session with more active time than this on a day is a long session.
const LONG_SESSION_MS: i64 = 10 * 60 * 1_000;

/// Stored rows by session.
pub(super) type StoredDays = BTreeMap<SessionId, SessionDays>;

/// The key of a row.
type Key = (SessionId, NaiveDate);

/// The differences between the stored rows and the merged ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// New and changed rows.
    pub(super) written: BTreeMap<Key, SessionDay>,
    pub(super) removed: Vec<Key>,
    /// Differences of the sums of all readers.
    pub(super) days: BTreeMap<NaiveDate, DaySums>,
}

/// The sums of one or of all readers for one reading day, or a difference of sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DaySums {
    /// Readers with sessions on the day.
    pub(super) readers: i64,
    /// Sessions with reading on the day.
    pub(super) sessions: i64,
    pub(super) active_ms: i64,
    /// Net progress, in ten-thousandths of a percent of a book.
    pub(super) progress: i64,
    /// Sessions with more than ten minutes of active time on the day.
    pub(super) long_sessions: i64,
    /// Sessions that ended on the day.
    pub(super) ended_sessions: i64,
}

impl DaySums {
    /// The sums of one reader's rows of one day.
    pub(super) fn of_reader<'a>(rows: impl IntoIterator<Item = &'a SessionDay>) -> Self {
        let mut sums = Self::default();
        let mut counted: Vec<&SessionDay> = Vec::new();
        for row in rows {
            if row.is_after_end {
                continue;
            }
            counted.push(row);
            sums.readers = 1;
            sums.sessions += 1;
            sums.progress += row.progress;
            sums.long_sessions += i64::from(row.active.total_ms() > LONG_SESSION_MS);
            sums.ended_sessions += i64::from(row.is_ended);
        }
        sums.active_ms = match counted[..] {
            [row] => row.active.total_ms(),
            _ => Intervals::union(counted.iter().flat_map(|row| row.active.iter())).total_ms(),
        };
        sums
    }

    pub(super) fn add_difference(&mut self, before: Self, after: Self) {
        self.readers += after.readers - before.readers;
        self.sessions += after.sessions - before.sessions;
        self.active_ms += after.active_ms - before.active_ms;
        self.progress += after.progress - before.progress;
        self.long_sessions += after.long_sessions - before.long_sessions;
        self.ended_sessions += after.ended_sessions - before.ended_sessions;
    }
}

/// Merges changes into the stored rows.
pub(super) fn merge(touched: &TouchedDays, stored: &StoredDays) -> Merged {
    let mut merged = Merged::default();
    let none = SessionDays::new();
    let before_of = |session_id| stored.get(session_id).unwrap_or(&none);
    for (session_id, change) in &touched.changes {
        let before = before_of(session_id);
        // A worker that restarts folds events again that the rows contain already.
        if change.complete_to <= before.complete_to {
            continue;
        }
        let mut after = before.clone();
        apply(&mut after, change);
        let gone = before.days().filter(|day| after.get(*day).is_none());
        merged.removed.extend(gone.map(|day| (*session_id, day)));
        let changed = after
            .into_iter()
            .filter(|(day, row)| before.get(*day) != Some(row));
        let changed = changed.map(|(day, row)| ((*session_id, day), row));
        merged.written.extend(changed);
    }
    for session_id in &touched.erased {
        let gone = before_of(session_id).days();
        merged.removed.extend(gone.map(|day| (*session_id, day)));
    }
    merged.removed.sort_unstable();
    merged.days = day_differences(&merged, stored);
    merged
}

/// The rows of one reader and day before and after a batch. Rows may be missing that are
/// equal on both sides, if no row is new or removed and no active time changes: they then
/// do not affect the difference.
#[derive(Default)]
struct ReaderDayRows<'a> {
    before: Vec<&'a SessionDay>,
    after: Vec<&'a SessionDay>,
}

fn day_differences(merged: &Merged, stored: &StoredDays) -> BTreeMap<NaiveDate, DaySums> {
    let mut pairs: BTreeMap<(ReaderId, NaiveDate), ReaderDayRows<'_>> = BTreeMap::new();
    for ((_, day), row) in &merged.written {
        let rows = pairs.entry((row.reader_id, *day)).or_default();
        rows.after.push(row);
    }
    for (session_id, day) in &merged.removed {
        if let Some(row) = stored[session_id].get(*day) {
            pairs.entry((row.reader_id, *day)).or_default();
        }
    }
    for (session_id, days) in stored {
        for (day, row) in days {
            let Some(rows) = pairs.get_mut(&(row.reader_id, *day)) else {
                continue;
            };
            rows.before.push(row);
            let key = (*session_id, *day);
            let is_unchanged =
                !merged.written.contains_key(&key) && merged.removed.binary_search(&key).is_err();
            if is_unchanged {
                rows.after.push(row);
            }
        }
    }
    let mut days: BTreeMap<NaiveDate, DaySums> = BTreeMap::new();
    for ((_, day), rows) in pairs {
        let before = DaySums::of_reader(rows.before);
        let after = DaySums::of_reader(rows.after);
        days.entry(day).or_default().add_difference(before, after);
    }
    days.retain(|_, difference| *difference != DaySums::default());
    days
}
