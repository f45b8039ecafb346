//! Daily statistics: each reader's reading by day and hour, and the sums of all
//! readers by day. Written and read here.
//!
//! Days and hours are those of the reader's time zone (see [`domain::calendar`]).
//! A session that crosses midnight counts on both days, with the active time of
//! each. Hours work the same way.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{NaiveDate, TimeDelta};
use chrono_tz::Tz;
use domain::calendar::{reading_day, reading_hour, split_by_hour};
use domain::event::EndReason;
use domain::{ReaderId, SessionEvent, Timestamp};
use eventlog::RecordedEvent;
use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use sqlx::PgPool;
use uuid::Uuid;

use crate::commit::TableCommit;
use crate::dead_letters::DeadLetterChanges;
use crate::projection::TableProjection;
use crate::{BatchRange, Checkpoint, CommitError, Projection, checkpoint};

mod columns;
mod queries;
mod retention;

use columns::{DayColumns, HourColumns};
pub use queries::{AllReadersDay, ReaderDay, ReaderHour, all_readers_days, days, days_with_hours};
pub use retention::delete_days_before;

pub struct DailyStats {
    pool: PgPool,
}

impl TableProjection for DailyStats {
    const TABLES: &'static [&'static str] = &["reader_days", "reader_hours", "days"];

    fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

/// A session with more active time than this is a long session.
const LONG_SESSION_MS: i64 = 10 * 60 * 1_000;

/// The amounts that a batch adds to a reader's day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayDelta {
    /// Sessions whose first observation on the day is in the batch.
    pub sessions: i64,
    pub active_ms: i64,
    /// Net progress, in ten-thousandths of a percent of a book.
    pub progress: i64,
    /// Sessions that exceeded ten minutes of active time on the day.
    pub long_sessions: i64,
    /// Sessions that ended on the day.
    pub ended_sessions: i64,
    /// The time zone of the day's last event.
    pub zone: Tz,
    /// The global position of that event. An older event, applied later, must not
    /// replace the zone.
    pub zone_position: i64,
}

/// The amounts that a batch adds to one hour of a reader's day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HourDelta {
    /// Sessions whose first observation in the hour is in the batch.
    pub sessions: i64,
    pub active_ms: i64,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct StatsBatch {
    pub days: BTreeMap<(ReaderId, NaiveDate), DayDelta>,
    /// The key contains the hour, 0 to 23.
    pub hours: BTreeMap<(ReaderId, NaiveDate, u32), HourDelta>,
    /// Readers whose stored days and hours are deleted before the batch is added.
    pub erased: BTreeSet<ReaderId>,
}

/// The reading that one event reports.
struct Activity {
    global_position: i64,
    reader_id: ReaderId,
    zone: Tz,
    /// The time of the previous observation. Its day and hour already count the
    /// session. `None` for a start.
    previous_at: Option<Timestamp>,
    /// Active time since the previous observation, in milliseconds.
    credited_ms: i64,
    /// Active time of the session, including `credited_ms`.
    active_ms: i64,
    /// The time of the reader's observation. `None` if the reader did not cause
    /// the event.
    seen_at: Option<Timestamp>,
    /// Net progress since the previous observation, in ten-thousandths of a
    /// percent of a book.
    progress: i64,
    ended: bool,
}

impl Activity {
    /// Returns `None` if the event reports no reading.
    fn from_event(event: &RecordedEvent) -> Option<Self> {
        let global_position = event.global_position;
        match &event.event {
            SessionEvent::SessionStarted(event) => Some(Self {
                global_position,
                reader_id: event.reader_id,
                zone: event.time_zone,
                previous_at: None,
                credited_ms: 0,
                active_ms: 0,
                seen_at: Some(event.started_at),
                progress: 0,
                ended: false,
            }),
            // A late observation adds no reading time.
            SessionEvent::PositionUpdated(event) if !event.applied => None,
            SessionEvent::PositionUpdated(event) => Some(Self {
                global_position,
                reader_id: event.reader_id,
                zone: event.time_zone,
                previous_at: Some(event.previous_at),
                credited_ms: event.credited_ms,
                active_ms: event.active_ms,
                seen_at: Some(event.occurred_at),
                progress: i64::from(event.position.steps() - event.previous_position.steps()),
                ended: false,
            }),
            SessionEvent::SessionErased(_) => None,
            SessionEvent::SessionEnded(event) => Some(Self {
                global_position,
                reader_id: event.reader_id,
                zone: event.time_zone,
                previous_at: Some(event.previous_at),
                credited_ms: event.credited_ms,
                active_ms: event.active_ms,
                // Superseded and idle sessions end without an observation.
                seen_at: (event.reason == EndReason::Finished).then_some(event.ended_at),
                progress: i64::from(event.position.steps() - event.previous_position.steps()),
                ended: true,
            }),
        }
    }

    /// The time at which the session exceeded ten minutes of active time. `None`
    /// if it did so in another event, or not at all.
    fn became_long_at(&self) -> Option<Timestamp> {
        let before = self.active_ms - self.credited_ms;
        if before > LONG_SESSION_MS || self.active_ms <= LONG_SESSION_MS {
            return None;
        }
        Some(self.previous_at? + TimeDelta::milliseconds(LONG_SESSION_MS - before))
    }
}

impl StatsBatch {
    fn day(&mut self, activity: &Activity, day: NaiveDate) -> &mut DayDelta {
        let key = (activity.reader_id, day);
        let delta = self.days.entry(key).or_insert(DayDelta {
            sessions: 0,
            active_ms: 0,
            progress: 0,
            long_sessions: 0,
            ended_sessions: 0,
            zone: activity.zone,
            zone_position: activity.global_position,
        });
        delta.zone = activity.zone;
        delta.zone_position = activity.global_position;
        delta
    }

    fn hour(&mut self, activity: &Activity, (day, hour): (NaiveDate, u32)) -> &mut HourDelta {
        let key = (activity.reader_id, day, hour);
        self.hours.entry(key).or_default()
    }

    fn add(&mut self, activity: &Activity) {
        let mut touched_hours = BTreeSet::new();
        if let Some(from) = activity.previous_at {
            for (hour, active_ms) in split_by_hour(from, activity.credited_ms, activity.zone) {
                self.day(activity, hour.0).active_ms += active_ms;
                self.hour(activity, hour).active_ms += active_ms;
                touched_hours.insert(hour);
            }
        }
        if let Some(seen_at) = activity.seen_at {
            let hour = reading_hour(seen_at, activity.zone);
            self.day(activity, hour.0).progress += activity.progress;
            touched_hours.insert(hour);
        }
        if let Some(long_at) = activity.became_long_at() {
            let day = reading_day(long_at, activity.zone);
            self.day(activity, day).long_sessions += 1;
        }
        let counted_hour = activity
            .previous_at
            .map(|at| reading_hour(at, activity.zone));
        let counted_day = counted_hour.map(|(day, _)| day);
        if activity.ended {
            // The session ends on the last day on which it counts. The end of a
            // superseded or idle session may come much later.
            let last_day = touched_hours.last().map(|(day, _)| *day);
            if let Some(day) = last_day.or(counted_day) {
                self.day(activity, day).ended_sessions += 1;
            }
        }
        let mut last_counted_day = counted_day;
        for hour in touched_hours {
            if Some(hour) != counted_hour {
                self.hour(activity, hour).sessions += 1;
            }
            if Some(hour.0) != last_counted_day {
                self.day(activity, hour.0).sessions += 1;
                last_counted_day = Some(hour.0);
            }
        }
    }

    /// Removes all days and hours of a reader. They cannot be removed by session,
    /// but all sessions of a reader are erased together.
    fn erase(&mut self, reader_id: ReaderId) {
        let (first, last) = (NaiveDate::MIN, NaiveDate::MAX);
        let days = self.days.range((reader_id, first)..=(reader_id, last));
        for key in days.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.days.remove(&key);
        }
        let hours = (reader_id, first, 0)..=(reader_id, last, u32::MAX);
        let hours = self.hours.range(hours);
        for key in hours.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.hours.remove(&key);
        }
        self.erased.insert(reader_id);
    }
}

impl Projection for DailyStats {
    const NAME: &'static str = "daily_stats";

    type Batch = StatsBatch;

    fn fold(batch: &mut StatsBatch, event: &RecordedEvent) {
        if let SessionEvent::SessionErased(event) = &event.event {
            batch.erase(event.reader_id);
        }
        if let Some(activity) = Activity::from_event(event) {
            batch.add(&activity);
        }
    }

    fn rows(batch: &StatsBatch) -> usize {
        batch.days.len() + batch.hours.len() + batch.erased.len()
    }

    async fn checkpoint(&mut self) -> Result<Checkpoint, CommitError> {
        let checkpoint = checkpoint::read_or_create(&self.pool, Self::NAME);
        Ok(with_deadline(STATEMENT_DEADLINE, checkpoint).await?)
    }

    async fn commit(
        &mut self,
        batch: StatsBatch,
        range: BatchRange,
        dead_letters: &DeadLetterChanges,
    ) -> Result<(), CommitError> {
        with_deadline(STATEMENT_DEADLINE, self.write(&batch, range, dead_letters)).await
    }
}

impl DailyStats {
    async fn write(
        &self,
        batch: &StatsBatch,
        range: BatchRange,
        dead_letters: &DeadLetterChanges,
    ) -> Result<(), CommitError> {
        let days = DayColumns::new(batch);
        let hours = HourColumns::new(batch);
        let erased: Vec<Uuid> = batch.erased.iter().map(|reader| reader.uuid()).collect();
        let erase =
            (!erased.is_empty()).then(|| sqlx::query_file!("src/daily_stats/erase.sql", &erased));
        let mut commit = TableCommit::begin(&self.pool, Self::NAME, dead_letters, erase).await?;
        let moved = sqlx::query_file_scalar!(
            "src/daily_stats/commit.sql",
            Self::NAME,
            range.from.global_position,
            range.to,
            &days.readers,
            &days.days,
            &days.sessions,
            &days.active_ms,
            &days.progress,
            days.zones as _,
            &days.zone_positions,
            &days.long_sessions,
            &days.ended_sessions,
            &hours.readers,
            &hours.days,
            &hours.hours,
            &hours.sessions,
            &hours.active_ms,
            range.from.replays,
        )
        .fetch_one(commit.connection())
        .await?;
        commit.finish(moved).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, folded, reader};
    use rstest::rstest;

    const HOUR: i64 = 3_600;

    /// Each case is a session, and for each day on which it counts: the day of
    /// March, sessions, active seconds, and progress in percent.
    #[rstest]
    #[case::one_day(
        Story::starts(1, Tz::UTC, HOUR).seen(HOUR + 60, 2).seen(HOUR + 90, 3),
        &[(1, 1, 90, 3)]
    )]
    #[case::crosses_midnight(
        Story::starts(1, Tz::UTC, 24 * HOUR - 90).seen(24 * HOUR + 30, 2).seen(24 * HOUR + 60, 3),
        &[(1, 1, 90, 0), (2, 1, 60, 3)]
    )]
    #[case::midnight_of_the_reader(
        Story::starts(1, Tz::Asia__Kathmandu, 18 * HOUR + 900 - 30).seen(18 * HOUR + 900 + 30, 1),
        &[(1, 1, 30, 0), (2, 1, 30, 1)]
    )]
    #[case::late_observation_adds_nothing(
        Story::starts(1, Tz::UTC, HOUR).seen(HOUR + 60, 2).seen_late(HOUR + 30, 50),
        &[(1, 1, 60, 2)]
    )]
    #[case::open_overnight_then_finished(
        Story::starts(1, Tz::UTC, 20 * HOUR).ends(32 * HOUR, EndReason::Finished),
        &[(1, 1, 120, 0), (2, 1, 0, 0)]
    )]
    #[case::open_overnight_then_superseded(
        Story::starts(1, Tz::UTC, 20 * HOUR).ends(32 * HOUR, EndReason::Superseded),
        &[(1, 1, 120, 0)]
    )]
    #[case::reading_back_is_negative_progress(
        Story::starts(1, Tz::UTC, HOUR).seen(HOUR + 10, 50).seen(HOUR + 20, 20).seen(25 * HOUR, 10),
        &[(1, 1, 140, 20), (2, 1, 0, -10)]
    )]
    fn events_are_summed_by_day(#[case] story: Story, #[case] expected: &[(i64, i64, i64, i64)]) {
        let stats = folded::<DailyStats>(&story.events());
        let days: Vec<_> = stats
            .days
            .into_iter()
            .map(|((reader_id, day), delta)| {
                assert_eq!(reader_id, reader());
                let first = NaiveDate::from_ymd_opt(2026, 3, 1).unwrap();
                let nth = (day - first).num_days() + 1;
                (nth, delta.sessions, delta.active_ms, delta.progress)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(day, sessions, seconds, percent)| {
                (*day, *sessions, seconds * 1_000, percent * 10_000)
            })
            .collect();
        assert_eq!(days, expected);
    }

    #[test]
    fn session_counts_in_each_hour_with_reading() {
        let story = Story::starts(1, Tz::UTC, 2 * HOUR - 90)
            .seen(2 * HOUR + 30, 2)
            .seen(2 * HOUR + 60, 3)
            .seen(5 * HOUR, 4);
        let stats = folded::<DailyStats>(&story.events());
        let hours: Vec<_> = stats
            .hours
            .into_iter()
            .map(|((_, _, hour), delta)| (hour, delta.sessions, delta.active_ms / 1_000))
            .collect();
        assert_eq!(hours, [(1, 1, 90), (2, 1, 30 + 30 + 120), (5, 1, 0)]);
    }

    #[test]
    fn erasure_removes_earlier_events_from_the_batch() {
        let mut events = Story::starts(1, Tz::UTC, HOUR)
            .seen(HOUR + 60, 2)
            .erased(2 * HOUR)
            .events();
        let next = Story::starts(2, Tz::UTC, 3 * HOUR).seen(3 * HOUR + 30, 1);
        let only_next = folded::<DailyStats>(&next.clone().events());
        events.extend(next.events());
        let stats = folded::<DailyStats>(&events);
        assert!(stats.erased.iter().eq([&reader()]));
        assert_eq!((stats.days, stats.hours), (only_next.days, only_next.hours));
    }
}
