//! Daily statistics: what each reader read on each reading day and in each of
//! its hours, and what all readers did. Written and read here.
//!
//! A day is the reader's own (see [`domain::calendar`]); a session that goes
//! over midnight counts on both days, with the active time of each, and so it
//! is with hours.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{NaiveDate, TimeDelta};
use chrono_tz::Tz;
use domain::calendar::{reading_day, reading_hour, split_by_hour};
use domain::event::EndReason;
use domain::{ReaderId, SessionEvent, Timestamp};
use eventlog::Recorded;
use eventlog::deadline::with_deadline;
use sqlx::PgPool;
use uuid::Uuid;

use crate::dead_letters::{DeadLetterChanges, TableCommit};
use crate::projection::{DEADLINE, TableProjection};
use crate::{Checkpoint, CommitError, Projection, Step, checkpoint};

mod columns;
mod queries;
mod retention;

pub use queries::{Day, DayOfAll, Hour, days, days_of_all, days_with_hours};
pub use retention::roll;

/// The projection.
pub struct DailyStats {
    pool: PgPool,
}

impl TableProjection for DailyStats {
    const TABLES: &'static [&'static str] = &["reader_days", "reader_hours", "days"];

    fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

/// A long session has more active time than this, in milliseconds.
const LONG_MS: i64 = 10 * 60 * 1_000;

/// What a batch adds to a reader's day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// Sessions that were first seen on the day.
    pub sessions: i64,
    /// Active time, in milliseconds.
    pub active_ms: i64,
    /// Net progress, in ten-thousandths of a percent of a book.
    pub progress: i64,
    /// Sessions that came to more than ten minutes of active time on the day.
    pub long_sessions: i64,
    /// Sessions that ended on the day.
    pub ended_sessions: i64,
    /// The time zone that the day is of.
    pub zone: Tz,
    /// The global position of the event that told it.
    pub zone_position: i64,
}

/// What a batch adds to one of a day's hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddedHour {
    /// Sessions that were first seen in the hour.
    pub sessions: i64,
    /// Active time, in milliseconds.
    pub active_ms: i64,
}

/// What a batch adds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// By reader and day.
    pub days: BTreeMap<(ReaderId, NaiveDate), Added>,
    /// By reader, day and hour.
    pub hours: BTreeMap<(ReaderId, NaiveDate, u32), AddedHour>,
    /// Readers whose days leave, all there were before.
    pub erased: BTreeSet<ReaderId>,
}

/// What an event says of a session's time.
struct Span {
    /// The event's global position.
    position: i64,
    reader_id: ReaderId,
    zone: Tz,
    /// When the session was seen before; that day and hour count it already.
    /// `None` at its start.
    from: Option<Timestamp>,
    /// Active time from then on, in milliseconds.
    credited_ms: i64,
    /// Active time of the session with it, in milliseconds.
    active_ms: i64,
    /// When the reader was seen now.
    seen: Option<Timestamp>,
    /// Net progress since, in ten-thousandths of a percent of a book.
    progress: i64,
    /// Whether the session ended with it.
    ended: bool,
}

impl Span {
    fn of(event: &Recorded) -> Option<Self> {
        let position = event.global_position;
        match &event.event {
            SessionEvent::SessionStarted(event) => Some(Self {
                position,
                reader_id: event.reader_id,
                zone: event.time_zone,
                from: None,
                credited_ms: 0,
                active_ms: 0,
                seen: Some(event.started_at),
                progress: 0,
                ended: false,
            }),
            // A late observation tells nothing of when somebody read.
            SessionEvent::PositionUpdated(event) if !event.applied => None,
            SessionEvent::PositionUpdated(event) => Some(Self {
                position,
                reader_id: event.reader_id,
                zone: event.time_zone,
                from: Some(event.previous_at),
                credited_ms: event.credited_ms,
                active_ms: event.active_ms,
                seen: Some(event.occurred_at),
                progress: i64::from(event.position.steps() - event.previous_position.steps()),
                ended: false,
            }),
            SessionEvent::SessionErased(_) => None,
            SessionEvent::SessionEnded(event) => Some(Self {
                position,
                reader_id: event.reader_id,
                zone: event.time_zone,
                from: Some(event.previous_at),
                credited_ms: event.credited_ms,
                active_ms: event.active_ms,
                // Only a reader who ends a session is seen ending it.
                seen: (event.reason == EndReason::Finished).then_some(event.ended_at),
                progress: i64::from(event.position.steps() - event.previous_position.steps()),
                ended: true,
            }),
        }
    }

    /// When the session came to more than ten minutes of active time, if it did
    /// with this.
    fn long_from(&self) -> Option<Timestamp> {
        let before = self.active_ms - self.credited_ms;
        (before <= LONG_MS && self.active_ms > LONG_MS)
            .then(|| {
                self.from
                    .map(|from| from + TimeDelta::milliseconds(LONG_MS - before))
            })
            .flatten()
    }
}

impl Stats {
    fn day(&mut self, span: &Span, day: NaiveDate) -> &mut Added {
        let added = self.days.entry((span.reader_id, day)).or_insert(Added {
            sessions: 0,
            active_ms: 0,
            progress: 0,
            long_sessions: 0,
            ended_sessions: 0,
            zone: span.zone,
            zone_position: span.position,
        });
        added.zone = span.zone;
        added.zone_position = span.position;
        added
    }

    fn hour(&mut self, span: &Span, (day, hour): (NaiveDate, u32)) -> &mut AddedHour {
        self.hours.entry((span.reader_id, day, hour)).or_default()
    }

    fn add(&mut self, span: &Span) {
        let mut touched = BTreeSet::new();
        if let Some(from) = span.from {
            for (hour, active_ms) in split_by_hour(from, span.credited_ms, span.zone) {
                self.day(span, hour.0).active_ms += active_ms;
                self.hour(span, hour).active_ms += active_ms;
                touched.insert(hour);
            }
        }
        if let Some(seen) = span.seen {
            let hour = reading_hour(seen, span.zone);
            self.day(span, hour.0).progress += span.progress;
            touched.insert(hour);
        }
        if let Some(long) = span.long_from() {
            self.day(span, reading_day(long, span.zone)).long_sessions += 1;
        }
        if span.ended {
            // On the day on which it counts last, whoever ended it and when.
            let last = touched.last().map(|(day, _)| *day);
            let seen = span.from.map(|from| reading_day(from, span.zone));
            if let Some(day) = last.or(seen) {
                self.day(span, day).ended_sessions += 1;
            }
        }
        let counted = span.from.map(|from| reading_hour(from, span.zone));
        let mut counted_day = counted.map(|(day, _)| day);
        for hour in touched {
            if Some(hour) != counted {
                self.hour(span, hour).sessions += 1;
            }
            if Some(hour.0) != counted_day {
                self.day(span, hour.0).sessions += 1;
                counted_day = Some(hour.0);
            }
        }
    }
}

impl Stats {
    /// Days do not tell sessions apart, and need not: a reader's sessions are
    /// erased all at once, so that all days of before leave with the last.
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

    type Batch = Stats;

    fn fold(stats: &mut Stats, event: &Recorded) {
        if let SessionEvent::SessionErased(event) = &event.event {
            stats.erase(event.reader_id);
        }
        if let Some(span) = Span::of(event) {
            stats.add(&span);
        }
    }

    fn rows(stats: &Stats) -> usize {
        stats.days.len() + stats.hours.len() + stats.erased.len()
    }

    async fn checkpoint(&mut self) -> Result<Checkpoint, CommitError> {
        Ok(with_deadline(DEADLINE, checkpoint::begin(&self.pool, Self::NAME)).await?)
    }

    async fn commit(
        &mut self,
        stats: Stats,
        step: Step,
        letters: &DeadLetterChanges,
    ) -> Result<(), CommitError> {
        with_deadline(DEADLINE, self.make(&stats, step, letters)).await
    }
}

impl DailyStats {
    async fn make(&self, stats: &Stats, step: Step, letters: &DeadLetterChanges) -> Result<(), CommitError> {
        let days = columns::DayColumns::of(stats);
        let hours = columns::HourColumns::of(stats);
        let erased: Vec<Uuid> = stats.erased.iter().map(|reader| reader.uuid()).collect();
        let mut table_step = TableCommit::begin(&self.pool, letters, !erased.is_empty()).await?;
        if !erased.is_empty() {
            sqlx::query_file!("src/daily_stats/erase.sql", &erased)
                .execute(table_step.connection())
                .await?;
        }
        let moved = sqlx::query_file_scalar!(
            "src/daily_stats/commit.sql",
            Self::NAME,
            step.from.global_position,
            step.to,
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
            step.from.replays,
        )
        .fetch_one(table_step.connection())
        .await?;
        table_step.end(moved, letters, Self::NAME).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, folded, reader};
    use rstest::rstest;

    const HOUR: i64 = 3_600;

    /// Each case: a session, and (day of March, sessions, active seconds,
    /// progress in percent) of each day it counts on.
    #[rstest]
    #[case::one_day(
        Story::starts(1, Tz::UTC, HOUR).seen(HOUR + 60, 2).seen(HOUR + 90, 3),
        &[(1, 1, 90, 3)]
    )]
    #[case::over_midnight(
        Story::starts(1, Tz::UTC, 24 * HOUR - 90).seen(24 * HOUR + 30, 2).seen(24 * HOUR + 60, 3),
        &[(1, 1, 90, 0), (2, 1, 60, 3)]
    )]
    #[case::midnight_is_the_readers_own(
        Story::starts(1, Tz::Asia__Kathmandu, 18 * HOUR + 900 - 30).seen(18 * HOUR + 900 + 30, 1),
        &[(1, 1, 30, 0), (2, 1, 30, 1)]
    )]
    #[case::a_late_observation_adds_nothing(
        Story::starts(1, Tz::UTC, HOUR).seen(HOUR + 60, 2).seen_late(HOUR + 30, 50),
        &[(1, 1, 60, 2)]
    )]
    #[case::left_open_overnight_and_ended_by_the_reader(
        Story::starts(1, Tz::UTC, 20 * HOUR).ends(32 * HOUR, EndReason::Finished),
        &[(1, 1, 120, 0), (2, 1, 0, 0)]
    )]
    #[case::left_open_overnight_and_superseded(
        Story::starts(1, Tz::UTC, 20 * HOUR).ends(32 * HOUR, EndReason::Superseded),
        &[(1, 1, 120, 0)]
    )]
    #[case::reading_back_is_negative_progress(
        Story::starts(1, Tz::UTC, HOUR).seen(HOUR + 10, 50).seen(HOUR + 20, 20).seen(25 * HOUR, 10),
        &[(1, 1, 140, 20), (2, 1, 0, -10)]
    )]
    fn events_add_up_by_day(#[case] story: Story, #[case] expected: &[(i64, i64, i64, i64)]) {
        let stats = folded::<DailyStats>(&story.events());
        let days: Vec<_> = stats
            .days
            .into_iter()
            .map(|((of, day), added)| {
                assert_eq!(of, reader());
                let first = NaiveDate::from_ymd_opt(2026, 3, 1).unwrap();
                let nth = (day - first).num_days() + 1;
                (nth, added.sessions, added.active_ms, added.progress)
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
    fn a_session_counts_in_each_hour_in_which_it_is_seen() {
        let story = Story::starts(1, Tz::UTC, 2 * HOUR - 90)
            .seen(2 * HOUR + 30, 2)
            .seen(2 * HOUR + 60, 3)
            .seen(5 * HOUR, 4);
        let stats = folded::<DailyStats>(&story.events());
        let hours: Vec<_> = stats
            .hours
            .into_iter()
            .map(|((_, _, hour), added)| (hour, added.sessions, added.active_ms / 1_000))
            .collect();
        assert_eq!(hours, [(1, 1, 90), (2, 1, 30 + 30 + 120), (5, 1, 0)]);
    }
    #[test]
    fn what_came_before_an_erasure_leaves_the_batch() {
        let mut events = Story::starts(1, Tz::UTC, HOUR)
            .seen(HOUR + 60, 2)
            .erased(2 * HOUR)
            .events();
        let next = Story::starts(2, Tz::UTC, 3 * HOUR).seen(3 * HOUR + 30, 1);
        let alone = folded::<DailyStats>(&next.clone().events());
        events.extend(next.events());
        let stats = folded::<DailyStats>(&events);
        assert!(stats.erased.iter().eq([&reader()]));
        assert_eq!((stats.days, stats.hours), (alone.days, alone.hours));
    }
}
