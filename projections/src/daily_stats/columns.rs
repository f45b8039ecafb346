//! Rows as columns, since `unnest` takes an array per column.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use domain::{Position, SessionId, Timestamp};
use uuid::Uuid;

use super::batch::TouchedDays;
use super::merge::DaySums;
use super::multirange::Multirange;
use super::session_days::{EndPosition, SessionDay};

#[derive(Default)]
pub(super) struct WrittenColumns<'a> {
    pub(super) session_ids: Vec<String>,
    pub(super) days: Vec<NaiveDate>,
    pub(super) reader_ids: Vec<Uuid>,
    pub(super) time_zones: Vec<&'a str>,
    pub(super) active: Vec<Multirange<'a>>,
    pub(super) last_at: Vec<Option<Timestamp>>,
    pub(super) positions: Vec<Option<i32>>,
    pub(super) ended_at: Vec<Option<Timestamp>>,
    pub(super) end_positions: Vec<Option<i32>>,
    pub(super) end_position_at: Vec<Option<Timestamp>>,
    pub(super) start_positions: Vec<Option<i32>>,
    pub(super) progress: Vec<i64>,
    pub(super) ended: Vec<bool>,
    pub(super) after_end: Vec<bool>,
    pub(super) complete_to: Vec<i64>,
}

impl<'a> WrittenColumns<'a> {
    /// The columns of rows that `touched` has changed.
    pub(super) fn new(
        rows: &'a BTreeMap<(SessionId, NaiveDate), SessionDay>,
        touched: &TouchedDays,
    ) -> Self {
        let mut columns = Self::default();
        for ((session_id, day), row) in rows {
            let change = touched.changes.get(session_id);
            columns
                .complete_to
                .push(change.map_or(0, |change| change.complete_to));
            columns.session_ids.push(session_id.to_string());
            columns.days.push(*day);
            columns.reader_ids.push(row.reader_id.uuid());
            columns.time_zones.push(row.time_zone.as_str());
            columns.active.push(Multirange(&row.active));
            columns.last_at.push(row.observed.map(|last| last.at));
            let position = row.observed.map(|last| last.position.steps());
            columns.positions.push(position);
            columns.ended_at.push(row.end.map(|end| end.at));
            let end_position = row.end.and_then(|end| end.position);
            columns
                .end_positions
                .push(end_position.map(|position| position.position().steps()));
            columns.end_position_at.push(match end_position {
                Some(EndPosition::Observed(last)) => Some(last.at),
                Some(EndPosition::Own(_)) | None => None,
            });
            columns
                .start_positions
                .push(row.start_position.map(Position::steps));
            columns.progress.push(row.progress);
            columns.ended.push(row.is_ended);
            columns.after_end.push(row.is_after_end);
        }
        columns
    }
}

#[derive(Default)]
pub(super) struct RemovedColumns {
    pub(super) session_ids: Vec<String>,
    pub(super) days: Vec<NaiveDate>,
}

impl RemovedColumns {
    pub(super) fn new(keys: &[(SessionId, NaiveDate)]) -> Self {
        let mut columns = Self::default();
        for (session_id, day) in keys {
            columns.session_ids.push(session_id.to_string());
            columns.days.push(*day);
        }
        columns
    }
}

/// Differences of the sums of all readers.
#[derive(Default)]
pub(super) struct DifferenceColumns {
    pub(super) days: Vec<NaiveDate>,
    pub(super) readers: Vec<i64>,
    pub(super) sessions: Vec<i64>,
    pub(super) active_ms: Vec<i64>,
    pub(super) progress: Vec<i64>,
    pub(super) long_sessions: Vec<i64>,
    pub(super) ended_sessions: Vec<i64>,
}

impl DifferenceColumns {
    pub(super) fn new(differences: &BTreeMap<NaiveDate, DaySums>) -> Self {
        let mut columns = Self::default();
        for (day, difference) in differences {
            columns.days.push(*day);
            columns.readers.push(difference.readers);
            columns.sessions.push(difference.sessions);
            columns.active_ms.push(difference.active_ms);
            columns.progress.push(difference.progress);
            columns.long_sessions.push(difference.long_sessions);
            columns.ended_sessions.push(difference.ended_sessions);
        }
        columns
    }
}
