//! The history: one row per session, written and read here.
//!
//! A commit writes each session once, however many events it contains: the last
//! event determines the row.

use domain::session::ProgressChange;
use domain::{SessionEvent, SessionId, SessionStarted};
use eventlog::RecordedEvent;
use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use sqlx::PgPool;

use crate::commit::TableCommit;
use crate::dead_letters::DeadLetterChanges;
use crate::projection::TableProjection;
use crate::zones::Zones;
use crate::{BatchRange, Checkpoint, CommitError, Projection, checkpoint};

mod columns;
mod queries;
mod retention;

use columns::{ChangedColumns, StartedColumns};
pub use queries::{HistoryEntry, HistoryPage, PageCursor, PageQuery, page};
pub use retention::{DroppedMonth, drop_months_before};

/// A locator of this length weighs as much as the rest of a change.
const BYTES_PER_WEIGHT: usize = 512;

pub struct History {
    pool: PgPool,
}

impl TableProjection for History {
    const TABLES: &'static [&'static str] = &["history", "history_totals"];

    fn new(pool: PgPool, _zones: &Zones) -> Self {
        Self { pool }
    }
}

/// The change of one session's row.
#[derive(Debug)]
pub enum HistoryChange {
    Session(SessionChange),
    Erased,
}

#[derive(Debug)]
pub struct SessionChange {
    /// The start event, if the change contains it. The row is then inserted. Boxed, because
    /// most changes have none.
    start: Option<Box<SessionStarted>>,
    progress: ProgressChange,
    /// The sequence of the last event.
    version: i64,
}

impl Projection for History {
    const NAME: &'static str = "history";

    type Key = SessionId;
    type Change = HistoryChange;

    fn key(event: &RecordedEvent) -> SessionId {
        event.session_id
    }

    fn fold(change: &mut Option<HistoryChange>, event: &RecordedEvent) {
        // Only an erasure has no progress.
        let Some(progress) = event.event.progress_change() else {
            *change = Some(HistoryChange::Erased);
            return;
        };
        match change {
            Some(HistoryChange::Erased) => {}
            Some(HistoryChange::Session(change)) => {
                change.progress.merge(progress);
                change.version = event.sequence;
            }
            None => {
                let start = match &event.event {
                    SessionEvent::SessionStarted(start) => Some(Box::new(start.clone())),
                    _ => None,
                };
                *change = Some(HistoryChange::Session(SessionChange {
                    start,
                    progress,
                    version: event.sequence,
                }));
            }
        }
    }

    fn weight(change: &HistoryChange) -> usize {
        let HistoryChange::Session(change) = change else {
            return 1;
        };
        let latest = change.progress.latest.as_ref();
        let locator = latest.and_then(|latest| latest.locator.as_ref());
        1 + locator.map_or(0, String::len) / BYTES_PER_WEIGHT
    }

    async fn checkpoint(&mut self) -> Result<Checkpoint, CommitError> {
        Ok(with_deadline(
            STATEMENT_DEADLINE,
            checkpoint::read_or_create(&self.pool, Self::NAME),
        )
        .await?)
    }

    async fn commit(
        &mut self,
        rows: Vec<(SessionId, HistoryChange)>,
        range: BatchRange,
        dead_letters: &DeadLetterChanges,
    ) -> Result<(), CommitError> {
        with_deadline(STATEMENT_DEADLINE, self.write(&rows, range, dead_letters)).await
    }
}

impl History {
    async fn write(
        &self,
        rows: &[(SessionId, HistoryChange)],
        range: BatchRange,
        dead_letters: &DeadLetterChanges,
    ) -> Result<(), CommitError> {
        let mut started = StartedColumns::default();
        let mut changed = ChangedColumns::default();
        let mut erased = Vec::new();
        for (id, change) in rows {
            let change = match change {
                HistoryChange::Session(change) => change,
                HistoryChange::Erased => {
                    erased.push(id.to_string());
                    continue;
                }
            };
            if let Some(start) = &change.start {
                started.push(*id, start, change);
            }
            // After a restart the row of a session can be there although the change contains
            // its start. The statement then updates it.
            changed.push(*id, change);
        }
        let erase =
            (!erased.is_empty()).then(|| sqlx::query_file!("src/history/erase.sql", &erased));
        let mut commit = TableCommit::begin(&self.pool, Self::NAME, dead_letters, erase).await?;
        let moved = sqlx::query_file_scalar!(
            "src/history/commit.sql",
            Self::NAME,
            range.from.global_position,
            range.to,
            &started.session_ids,
            &started.reader_ids,
            &started.book_ids,
            &started.versions,
            &started.started_at,
            started.ended_at as _,
            &started.last_activity_at,
            started.position_at as _,
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
            changed.started_at as _,
            changed.start_positions as _,
            changed.ended_at as _,
            changed.last_activity_at as _,
            changed.position_at as _,
            &changed.active_ms,
            changed.positions as _,
            &changed.furthest_positions,
            changed.end_reasons as _,
            changed.locators as _,
            range.from.revision,
            range.written_to,
            range.revision,
        )
        .fetch_one(commit.connection())
        .await?;
        commit.finish(moved).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::event::EndReason;
    use domain::session::Ending;
    use domain::{Standing, Timestamp};

    use super::*;
    use crate::testing::{Story, at, folded, session};

    /// The change of each session that is not erased.
    fn changes(events: &[RecordedEvent]) -> BTreeMap<SessionId, SessionChange> {
        let changes = folded::<History>(events).into_iter();
        changes
            .filter_map(|(id, change)| match change {
                HistoryChange::Session(change) => Some((id, change)),
                HistoryChange::Erased => None,
            })
            .collect()
    }

    /// Checks the columns of events of one session without its start.
    fn changed(events: &[RecordedEvent], check: impl FnOnce(&ChangedColumns<'_>)) {
        let changes = changes(events);
        let mut columns = ChangedColumns::default();
        for (id, change) in &changes {
            assert!(change.start.is_none());
            columns.push(*id, change);
        }
        check(&columns);
    }

    /// Checks the columns of events of one session with its start.
    fn started(events: &[RecordedEvent], check: impl FnOnce(&StartedColumns<'_>)) {
        let changes = changes(events);
        let mut columns = StartedColumns::default();
        for (id, change) in &changes {
            columns.push(*id, change.start.as_ref().unwrap(), change);
        }
        check(&columns);
    }

    #[test]
    fn events_of_a_session_become_one_row() {
        let events = Story::starts(1, "UTC", 0)
            .seen(10, 1)
            .seen(20, 2)
            .seen_late(15, 9)
            .events();
        let rows = changes(&events);
        assert_eq!(rows.len(), 1);
        let row = &rows[&session(1)];
        assert!(row.start.is_some());
        assert_eq!(row.version, 4);
        let latest = row.progress.latest.as_ref().unwrap();
        assert_eq!((latest.at, latest.position.steps()), (at(20), 20_000));
        assert_eq!(row.progress.furthest_position.steps(), 90_000);
        assert_eq!(row.progress.active_ms, 20_000);
    }

    #[test]
    fn late_observations_keep_the_latest_position() {
        let events = Story::starts(1, "UTC", 0)
            .seen(10, 1)
            .seen_late(5, 9)
            .events();
        let rows = changes(&events[2..]);
        let row = &rows[&session(1)];
        assert!(row.start.is_none());
        assert_eq!(row.progress.latest, None);
        assert_eq!(row.progress.furthest_position.steps(), 90_000);
        changed(&events[2..], |columns| {
            assert_eq!(columns.last_activity_at, [None]);
            assert_eq!(columns.positions, [None]);
            assert_eq!(columns.started_at, [None]);
        });
    }

    #[test]
    fn late_observation_moves_the_start() {
        let events = Story::starts(1, "UTC", 0).seen_late(-30, 9).events();
        started(&events, |columns| {
            assert_eq!(columns.started_at, [at(-30)]);
            assert_eq!(columns.last_activity_at, [at(0)]);
            assert_eq!(columns.start_positions, [90_000]);
        });
        changed(&events[1..], |columns| {
            assert_eq!(columns.started_at, [Some(at(-30))]);
            assert_eq!(columns.start_positions, [Some(90_000)]);
        });
    }

    #[test]
    fn end_without_a_position_keeps_the_time_of_the_position() {
        let expect = |events: &[RecordedEvent], last: i64, position_at: Option<Timestamp>| {
            started(events, |columns| {
                assert_eq!(columns.last_activity_at, [at(last)]);
                assert_eq!(columns.position_at, [position_at]);
                assert_eq!(columns.ended_at, [Some(at(last))]);
            });
            changed(&events[1..], |columns| {
                assert_eq!(columns.last_activity_at, [Some(at(last))]);
                assert_eq!(columns.position_at, [position_at]);
            });
        };
        let story = Story::starts(1, "UTC", 0).seen(10, 1);
        let ended = story.clone().ends(60);
        expect(&ended.clone().events(), 60, Some(at(10)));
        expect(&ended.clone().seen(40, 2).events(), 60, Some(at(40)));
        expect(&ended.clone().seen(60, 2).events(), 60, None);
        expect(
            &ended.corrected(Some(30), None, None).events(),
            30,
            Some(at(10)),
        );
        expect(&story.clone().ends_at(60, 2).events(), 60, None);
        expect(&story.deactivates(EndReason::Idle).events(), 10, None);
    }

    #[test]
    fn session_that_ended_provisionally_continues() {
        let story = Story::starts(1, "UTC", 0)
            .seen(10, 1)
            .deactivates(EndReason::Superseded);
        let resumed = story.clone().resumes(30, 2).events();
        changed(&resumed[2..], |columns| {
            assert_eq!(columns.ended_at, [None]);
            assert_eq!(columns.end_reasons, [None]);
            assert_eq!(columns.last_activity_at, [Some(at(30))]);
        });
        let moved = story.seen_as(Standing::Superseded, 30, 2).events();
        changed(&moved[3..], |columns| {
            assert_eq!(columns.ended_at, [Some(at(30))]);
            assert_eq!(columns.end_reasons, [Some("superseded")]);
            assert_eq!(columns.last_activity_at, [Some(at(30))]);
        });
    }

    #[test]
    fn session_that_is_never_active_has_an_end() {
        let events = Story::starts_as(Standing::Superseded, 1, "UTC", 0).events();
        started(&events, |columns| {
            assert_eq!(columns.ended_at, [Some(at(0))]);
            assert_eq!(columns.end_reasons, [Some("superseded")]);
        });
    }

    #[test]
    fn time_zone_that_this_machine_does_not_know_keeps_its_name() {
        let events = Story::starts(1, "Mars/Olympus_Mons", 0).events();
        started(&events, |columns| {
            assert_eq!(columns.time_zones, ["Mars/Olympus_Mons"]);
        });
    }

    #[test]
    fn events_change_only_their_own_session() {
        let mut events = Story::starts(1, "UTC", 0).seen(10, 1).events();
        events.extend(Story::starts(2, "UTC", 20).ends(30).events());
        let rows = changes(&events);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[&session(1)].progress.ended, None);
        let ended = Ending {
            at: at(30),
            reason: EndReason::Finished,
        };
        assert_eq!(rows[&session(2)].progress.ended, Some(ended));
    }

    #[test]
    fn erasure_removes_earlier_events_from_the_batch() {
        let mut events = Story::starts(1, "UTC", 0).seen(10, 1).erased(20).events();
        events.extend(Story::starts(2, "UTC", 30).events());
        assert!(changes(&events).keys().eq([&session(2)]));
        let erased = &folded::<History>(&events)[&session(1)];
        assert!(matches!(erased, HistoryChange::Erased));
    }
}
