//! A batch of statistics as columns: Postgres takes arrays.

use chrono::NaiveDate;
use uuid::Uuid;

use super::Stats;

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
    pub(super) fn of(stats: &Stats) -> Self {
        let mut columns = Self::default();
        for ((reader_id, day), added) in &stats.days {
            columns.readers.push(reader_id.uuid());
            columns.days.push(*day);
            columns.sessions.push(added.sessions);
            columns.active_ms.push(added.active_ms);
            columns.progress.push(added.progress);
            columns.zones.push(added.zone.name());
            columns.zone_positions.push(added.zone_position);
            columns.long_sessions.push(added.long_sessions);
            columns.ended_sessions.push(added.ended_sessions);
        }
        columns
    }
}

impl HourColumns {
    pub(super) fn of(stats: &Stats) -> Self {
        let mut columns = Self::default();
        for ((reader_id, day, hour), added) in &stats.hours {
            columns.readers.push(reader_id.uuid());
            columns.days.push(*day);
            columns
                .hours
                .push(i16::try_from(*hour).expect("an hour is below 24"));
            columns.sessions.push(added.sessions);
            columns.active_ms.push(added.active_ms);
        }
        columns
    }
}
