//! A batch as columns, since `unnest` takes an array per column.

use chrono::NaiveDate;
use uuid::Uuid;

use super::StatsBatch;

#[derive(Default)]
pub(super) struct DayColumns {
    pub(super) readers: Vec<Uuid>,
    pub(super) days: Vec<NaiveDate>,
    pub(super) sessions: Vec<i64>,
    pub(super) active_ms: Vec<i64>,
    pub(super) progress: Vec<i64>,
    pub(super) zones: Vec<&'static str>,
    pub(super) zone_positions: Vec<i64>,
    pub(super) long_sessions: Vec<i64>,
    pub(super) ended_sessions: Vec<i64>,
}

#[derive(Default)]
pub(super) struct HourColumns {
    pub(super) readers: Vec<Uuid>,
    pub(super) days: Vec<NaiveDate>,
    pub(super) hours: Vec<i16>,
    pub(super) sessions: Vec<i64>,
    pub(super) active_ms: Vec<i64>,
}

impl DayColumns {
    pub(super) fn new(batch: &StatsBatch) -> Self {
        let mut columns = Self::default();
        for ((reader_id, day), delta) in &batch.days {
            columns.readers.push(reader_id.uuid());
            columns.days.push(*day);
            columns.sessions.push(delta.sessions);
            columns.active_ms.push(delta.active_ms);
            columns.progress.push(delta.progress);
            columns.zones.push(delta.zone.name());
            columns.zone_positions.push(delta.zone_position);
            columns.long_sessions.push(delta.long_sessions);
            columns.ended_sessions.push(delta.ended_sessions);
        }
        columns
    }
}

impl HourColumns {
    pub(super) fn new(batch: &StatsBatch) -> Self {
        let mut columns = Self::default();
        for ((reader_id, day, hour), delta) in &batch.hours {
            columns.readers.push(reader_id.uuid());
            columns.days.push(*day);
            columns
                .hours
                .push(i16::try_from(*hour).expect("an hour is below 24"));
            columns.sessions.push(delta.sessions);
            columns.active_ms.push(delta.active_ms);
        }
        columns
    }
}
