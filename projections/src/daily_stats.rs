//! Daily statistics: what each reader read on each reading day, and what all
//! readers did. Written and read here.
//!
//! A day is the reader's own (see [`domain::calendar`]); a session that goes
//! over midnight counts on both days, with the active time of each.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use chrono_tz::Tz;
use domain::calendar::{reading_day, split_by_day};
use domain::event::EndReason;
use domain::{ReaderId, SessionEvent, Timestamp};
use eventlog::Recorded;
use sqlx::PgPool;

use crate::{CommitError, Projection, Step, checkpoint};

/// The projection.
pub struct DailyStats {
    pool: PgPool,
}

impl DailyStats {
    /// Writes by `pool`.
    #[must_use]
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

/// What a batch adds to a reader's day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Sessions that were first seen on the day.
    pub sessions: i64,
    /// Active time, in milliseconds.
    pub active_ms: i64,
    /// Net progress, in ten-thousandths of a percent of a book.
    pub progress: i64,
}

/// What a batch adds, by reader and day.
pub type Days = BTreeMap<(ReaderId, NaiveDate), Added>;

impl Projection for DailyStats {
    const NAME: &'static str = "daily_stats";

    type Batch = Days;

    fn fold(days: &mut Days, event: &Recorded) {
        match &event.event {
            SessionEvent::SessionStarted(event) => {
                let day = reading_day(event.started_at, event.time_zone);
                days.entry((event.reader_id, day)).or_default().sessions += 1;
            }
            // A late observation tells nothing of when somebody read.
            SessionEvent::PositionUpdated(event) if !event.applied => {}
            SessionEvent::PositionUpdated(event) => add(
                days,
                event.reader_id,
                event.time_zone,
                &Span {
                    from: event.previous_at,
                    credited_ms: event.credited_ms,
                    seen: Some(event.occurred_at),
                },
                i64::from(event.position.steps() - event.previous_position.steps()),
            ),
            SessionEvent::SessionEnded(event) => add(
                days,
                event.reader_id,
                event.time_zone,
                &Span {
                    from: event.previous_at,
                    credited_ms: event.credited_ms,
                    // Only a reader who ends a session is seen ending it.
                    seen: (event.reason == EndReason::Finished).then_some(event.ended_at),
                },
                i64::from(event.position.steps() - event.previous_position.steps()),
            ),
        }
    }

    async fn checkpoint(&mut self) -> Result<i64, CommitError> {
        Ok(checkpoint::begin(&self.pool, Self::NAME).await?)
    }

    async fn commit(&mut self, days: Days, step: Step) -> Result<(), CommitError> {
        let mut readers = Vec::with_capacity(days.len());
        let mut dates = Vec::with_capacity(days.len());
        let mut sessions = Vec::with_capacity(days.len());
        let mut active_ms = Vec::with_capacity(days.len());
        let mut progress = Vec::with_capacity(days.len());
        for ((reader_id, day), added) in days {
            readers.push(reader_id.uuid());
            dates.push(day);
            sessions.push(added.sessions);
            active_ms.push(added.active_ms);
            progress.push(added.progress);
        }
        let moved = sqlx::query_file_scalar!(
            "src/daily_stats/commit.sql",
            Self::NAME,
            step.from,
            step.to,
            &readers,
            &dates,
            &sessions,
            &active_ms,
            &progress,
        )
        .fetch_one(&self.pool)
        .await?;
        if moved {
            Ok(())
        } else {
            Err(CommitError::Moved)
        }
    }
}

/// What an event adds to a session's time.
struct Span {
    /// When the session was seen before; that day counts it already.
    from: Timestamp,
    /// Active time from then on, in milliseconds.
    credited_ms: i64,
    /// When the reader was seen now.
    seen: Option<Timestamp>,
}

fn add(days: &mut Days, reader_id: ReaderId, zone: Tz, span: &Span, progress: i64) {
    let counted = reading_day(span.from, zone);
    let mut new_days = BTreeSet::new();
    for (day, active_ms) in split_by_day(span.from, span.credited_ms, zone) {
        days.entry((reader_id, day)).or_default().active_ms += active_ms;
        new_days.insert(day);
    }
    if let Some(seen) = span.seen {
        let day = reading_day(seen, zone);
        days.entry((reader_id, day)).or_default().progress += progress;
        new_days.insert(day);
    }
    new_days.remove(&counted);
    for day in new_days {
        days.entry((reader_id, day)).or_default().sessions += 1;
    }
}

/// A day of statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// The reading day.
    pub day: NaiveDate,
    /// Sessions in which something was read or seen.
    pub sessions: i64,
    /// Active time, in milliseconds.
    pub active_ms: i64,
    /// Net progress, in ten-thousandths of a percent of a book.
    pub progress: i64,
}

/// A reader's days from `from` on, newest first; days without reading are not
/// among them.
///
/// # Errors
/// Those of Postgres.
pub async fn reader_days(
    pool: &PgPool,
    reader_id: ReaderId,
    from: NaiveDate,
    limit: i64,
) -> sqlx::Result<Vec<Day>> {
    sqlx::query_as!(
        Day,
        "select day, sessions, active_ms, progress from reader_days
        where reader_id = $1 and day >= $2
        order by day desc
        limit $3",
        reader_id.uuid(),
        from,
        limit
    )
    .fetch_all(pool)
    .await
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
    fn events_add_up_by_day(#[case] story: Story, #[case] expected: &[(u32, i64, i64, i64)]) {
        let days = folded::<DailyStats>(&story.events());
        let expected: Days = expected
            .iter()
            .map(|(day, sessions, seconds, percent)| {
                let day = NaiveDate::from_ymd_opt(2026, 3, *day).unwrap();
                let added = Added {
                    sessions: *sessions,
                    active_ms: seconds * 1_000,
                    progress: percent * 10_000,
                };
                ((reader(), day), added)
            })
            .collect();
        assert_eq!(days, expected);
    }
}
