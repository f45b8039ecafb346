//! The history of sessions: a row each, written and read here.
//!
//! Many events of one session in a batch become one row write, since the last
//! one says where the session stands.

use std::collections::btree_map;
use std::collections::{BTreeMap, BTreeSet};

use domain::session::ProgressChange;
use domain::{SessionEvent, SessionId, SessionStarted};
use eventlog::Recorded;
use eventlog::deadline::with_deadline;
use sqlx::PgPool;

use crate::dead_letters::{DeadLetterChanges, TableCommit};
use crate::projection::{DEADLINE, TableProjection};
use crate::{Checkpoint, CommitError, Projection, Step, checkpoint};

mod columns;
mod queries;
mod retention;

use columns::{Changed, Started};
pub use queries::{Bound, Entry, Listed, Page, page};
pub use retention::{Retired, retire};

/// The projection.
pub struct History {
    pool: PgPool,
}

impl TableProjection for History {
    const TABLES: &'static [&'static str] = &["history", "history_totals"];

    fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

/// What a batch does.
#[derive(Debug, Default)]
pub struct Rows {
    /// By session, and so in the order of the index that is written.
    sessions: BTreeMap<SessionId, Row>,
    /// Sessions that leave.
    erased: BTreeSet<SessionId>,
}

/// What a batch does to one session.
#[derive(Debug)]
pub struct Row {
    /// The start, when it is in this batch: the row is new.
    start: Option<SessionStarted>,
    change: ProgressChange,
    version: i64,
}

impl Projection for History {
    const NAME: &'static str = "history";

    type Batch = Rows;

    fn fold(Rows { sessions, erased }: &mut Rows, event: &Recorded) {
        let Some(change) = event.event.progress_change() else {
            sessions.remove(&event.session_id);
            erased.insert(event.session_id);
            return;
        };
        let version = event.sequence;
        match sessions.entry(event.session_id) {
            btree_map::Entry::Occupied(row) => {
                let row = row.into_mut();
                row.change.merge(change);
                row.version = version;
            }
            btree_map::Entry::Vacant(place) => {
                let start = match &event.event {
                    SessionEvent::SessionStarted(start) => Some(start.clone()),
                    _ => None,
                };
                place.insert(Row {
                    start,
                    change,
                    version,
                });
            }
        }
    }

    fn rows(batch: &Rows) -> usize {
        batch.sessions.len() + batch.erased.len()
    }

    async fn checkpoint(&mut self) -> Result<Checkpoint, CommitError> {
        Ok(with_deadline(DEADLINE, checkpoint::begin(&self.pool, Self::NAME)).await?)
    }

    async fn commit(
        &mut self,
        batch: Rows,
        step: Step,
        letters: &DeadLetterChanges,
    ) -> Result<(), CommitError> {
        with_deadline(DEADLINE, self.make(batch, step, letters)).await
    }
}

impl History {
    async fn make(&self, batch: Rows, step: Step, letters: &DeadLetterChanges) -> Result<(), CommitError> {
        let mut started = Started::default();
        let mut changed = Changed::default();
        for (id, row) in &batch.sessions {
            match &row.start {
                Some(start) => started.push(*id, start, row),
                None => changed.push(*id, row),
            }
        }
        let erased: Vec<String> = batch.erased.iter().map(ToString::to_string).collect();
        let mut table_step = TableCommit::begin(&self.pool, letters, !erased.is_empty()).await?;
        if !erased.is_empty() {
            sqlx::query_file!("src/history/erase.sql", &erased)
                .execute(table_step.connection())
                .await?;
        }
        let moved = sqlx::query_file_scalar!(
            "src/history/commit.sql",
            Self::NAME,
            step.from.global_position,
            step.to,
            &started.session_ids,
            &started.reader_ids,
            &started.book_ids,
            &started.versions,
            &started.started_at,
            started.ended_at as _,
            &started.last_activity_at,
            &started.active_ms,
            &started.start_positions,
            &started.positions,
            &started.furthest_positions,
            started.device_types as _,
            started.device_ids as _,
            started.end_reasons as _,
            started.locators as _,
            started.book_titles as _,
            started.book_authors as _,
            started.book_total_pages as _,
            started.time_zones as _,
            &changed.session_ids,
            &changed.versions,
            changed.ended_at as _,
            changed.last_activity_at as _,
            &changed.active_ms,
            changed.positions as _,
            &changed.furthest_positions,
            changed.end_reasons as _,
            changed.locators as _,
            step.from.replays,
        )
        .fetch_one(table_step.connection())
        .await?;
        table_step.end(moved, letters, Self::NAME).await
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;
    use domain::event::EndReason;

    use super::*;
    use crate::testing::{Story, at, folded, session};

    #[test]
    fn many_events_of_a_session_are_one_row() {
        let events = Story::starts(1, Tz::UTC, 0)
            .seen(10, 1)
            .seen(20, 2)
            .seen_late(15, 9)
            .events();
        let rows = folded::<History>(&events).sessions;
        assert_eq!(rows.len(), 1);
        let row = &rows[&session(1)];
        assert!(row.start.is_some());
        assert_eq!(row.version, 4);
        let latest = row.change.latest.as_ref().unwrap();
        assert_eq!((latest.at, latest.position.steps()), (at(20), 20_000));
        assert_eq!(row.change.furthest_position.steps(), 90_000);
        assert_eq!(row.change.active_ms, 20_000);
    }

    #[test]
    fn late_observations_alone_leave_the_latest_position_to_the_row() {
        let events = Story::starts(1, Tz::UTC, 0)
            .seen(10, 1)
            .seen_late(5, 9)
            .events();
        let rows = folded::<History>(&events[2..]).sessions;
        let row = &rows[&session(1)];
        assert!(row.start.is_none());
        assert_eq!(row.change.latest, None);
        assert_eq!(row.change.furthest_position.steps(), 90_000);
    }

    #[test]
    fn sessions_do_not_mix() {
        let mut events = Story::starts(1, Tz::UTC, 0).seen(10, 1).events();
        events.extend(
            Story::starts(2, Tz::UTC, 20)
                .ends(30, EndReason::Finished)
                .events(),
        );
        let rows = folded::<History>(&events).sessions;
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[&session(1)].change.ended, None);
        assert_eq!(rows[&session(2)].change.ended.unwrap().at, at(30));
    }
    #[test]
    fn what_came_before_an_erasure_leaves_the_batch() {
        let mut events = Story::starts(1, Tz::UTC, 0).seen(10, 1).erased(20).events();
        events.extend(Story::starts(2, Tz::UTC, 30).events());
        let rows = folded::<History>(&events);
        assert!(rows.sessions.keys().eq([&session(2)]));
        assert!(rows.erased.iter().eq([&session(1)]));
    }
}
