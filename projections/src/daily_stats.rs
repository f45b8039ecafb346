//! Daily statistics: each session's reading by day, and the sums of all readers by day.
//! Written and read here.
//!
//! Days are those of the session's time zone (see [`domain::calendar`]). A session that
//! crosses midnight counts on both days, with the active time of each.
//!
//! A row contains the intervals of active time, not only their length. So the time of a
//! reader is a union: what overlaps counts once, in whatever order it arrives
//! (decision 0021).

use domain::SessionId;
use eventlog::RecordedEvent;
use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use sqlx::PgPool;

use crate::commit::TableCommit;
use crate::dead_letters::DeadLetterChanges;
use crate::projection::TableProjection;
use crate::zones::Zones;
use crate::{BatchRange, Checkpoint, CommitError, Projection, checkpoint};

mod batch;
mod session_days;

mod columns;
mod merge;
mod multirange;
mod stored;

mod hours;
mod queries;
mod retention;

pub use batch::StatsChange;
use batch::{SessionStatsChange, TouchedDays};
use columns::{DifferenceColumns, RemovedColumns, WrittenColumns};
pub use hours::ReaderHour;
pub use queries::{AllReadersDay, ReaderDay, all_readers_days, days, days_with_hours};
pub use retention::delete_days_before;

pub struct DailyStats {
    pool: PgPool,
    zones: Zones,
}

impl TableProjection for DailyStats {
    const TABLES: &'static [&'static str] = &["session_days", "days"];

    fn new(pool: PgPool, zones: &Zones) -> Self {
        Self {
            pool,
            zones: zones.clone(),
        }
    }
}

impl Projection for DailyStats {
    const NAME: &'static str = "daily_stats";

    type Key = SessionId;
    type Change = StatsChange;

    fn key(event: &RecordedEvent) -> SessionId {
        event.session_id
    }

    fn fold(change: &mut Option<StatsChange>, event: &RecordedEvent) {
        let reader_id = event.event.reader_id();
        let change =
            change.get_or_insert_with(|| StatsChange::Session(SessionStatsChange::new(reader_id)));
        change.add(event);
    }

    fn weight(change: &StatsChange) -> usize {
        change.weight()
    }

    async fn checkpoint(&mut self) -> Result<Checkpoint, CommitError> {
        let checkpoint = checkpoint::read_or_create(&self.pool, Self::NAME);
        Ok(with_deadline(STATEMENT_DEADLINE, checkpoint).await?)
    }

    async fn commit(
        &mut self,
        rows: Vec<(SessionId, StatsChange)>,
        range: BatchRange,
        dead_letters: &DeadLetterChanges,
    ) -> Result<(), CommitError> {
        with_deadline(STATEMENT_DEADLINE, self.write(&rows, range, dead_letters)).await
    }
}

impl DailyStats {
    /// Reads the rows that the changes can affect, merges the changes into them, and writes
    /// the rows that differ. No other commit can come between: it would change the revision of
    /// the checkpoint.
    async fn write(
        &self,
        rows: &[(SessionId, StatsChange)],
        range: BatchRange,
        dead_letters: &DeadLetterChanges,
    ) -> Result<(), CommitError> {
        let touched = TouchedDays::new(rows, &self.zones);
        let mut commit = TableCommit::begin(&self.pool, Self::NAME, dead_letters, None).await?;
        let stored = stored::read(commit.connection(), &touched).await?;
        let merged = merge::merge(&touched, &stored);
        let written = WrittenColumns::new(&merged.written, &touched);
        let removed = RemovedColumns::new(&merged.removed);
        let days = DifferenceColumns::new(&merged.days);
        let moved = sqlx::query_file_scalar!(
            "src/daily_stats/commit.sql",
            Self::NAME,
            range.from.global_position,
            range.to,
            range.from.revision,
            &removed.session_ids,
            &removed.days,
            &written.session_ids,
            &written.days,
            &written.reader_ids,
            written.time_zones as _,
            &written.active as _,
            written.last_at as _,
            written.positions as _,
            written.ended_at as _,
            written.end_positions as _,
            written.end_position_at as _,
            written.start_positions as _,
            &written.progress,
            &written.ended,
            &written.after_end,
            &days.days,
            &days.readers,
            &days.sessions,
            &days.active_ms,
            &days.progress,
            &days.long_sessions,
            &days.ended_sessions,
            self.zones.version(),
            range.written_to,
            &written.complete_to,
            range.revision,
        )
        .fetch_one(commit.connection())
        .await?;
        commit.finish(moved).await
    }
}

#[cfg(test)]
mod tests;
