//! Writes rows, and searches for an event that Postgres refuses.

use std::time::Instant;

use super::Worker;
use super::error::RunError;
use super::pending::Pending;
use super::window::Take;
use crate::dead_letters::{DeadLetterChanges, error_text};
use crate::projection::new_revision;
use crate::{BatchRange, CommitError, Projection};

impl<P: Projection> Worker<P> {
    /// Writes rows, and moves the checkpoint to the last event before the first one that is
    /// still in memory. Writes changes of dead letters once no row is in memory.
    pub(super) async fn commit(
        &mut self,
        pending: &mut Pending<P>,
        take: Take,
    ) -> Result<(), RunError> {
        let is_replay = self.controls.is_none();
        // The checkpoint must pass a parked event in the commit that stores its dead letter.
        // Otherwise the event would be parked again, behind itself.
        let take = if pending.dead_letters.is_empty() {
            take
        } else {
            Take::All
        };
        let max_rows = if is_replay {
            usize::MAX
        } else {
            P::MAX_COMMIT_ROWS
        };
        let rows = pending.window.take(take, Instant::now(), max_rows);
        let row_count = rows.len();
        let traced = pending.traced.take(rows.iter().map(|(key, _)| *key));
        let complete_to = pending.window.complete_to();
        let range = BatchRange {
            from: pending.from,
            to: complete_to.unwrap_or(pending.to),
            written_to: pending.from.written_to.max(pending.to),
            revision: new_revision(),
        };
        let dead_letters = match complete_to {
            None => std::mem::take(&mut pending.dead_letters),
            Some(_) => DeadLetterChanges::default(),
        };
        match self.projection.commit(rows, range, &dead_letters).await {
            Ok(()) => {
                traced.written::<P>(&self.traces, row_count);
                self.event_limit = (self.event_limit * 2).min(self.max_events);
                self.refused.take_if(|(refused, _)| *refused <= range.to);
                self.progress.send_modify(|progress| {
                    progress.checkpoint = range.to;
                    progress.events += pending.events as u64;
                    progress.folding = 0;
                    progress.rows += row_count as u64;
                    progress.error = None;
                });
                pending.from = range.checkpoint_after();
                pending.events = 0;
                Ok(())
            }
            // Halving the batches isolates the bad event, which is then parked.
            Err(CommitError::Refused(error)) => {
                // With an open window the commit contains other events than those since the
                // last one.
                let events = if pending.is_open {
                    self.max_events
                } else {
                    pending.events
                };
                self.event_limit = (events / 2).max(1);
                if events == 1 {
                    if !dead_letters.parked.is_empty() {
                        // The event is parked already, so it did not cause the error.
                        return Err(CommitError::Unavailable(error.into()).into());
                    }
                    self.refused = Some((range.to, error_text(&error)));
                }
                Err(CommitError::Refused(error).into())
            }
            Err(error) => Err(error.into()),
        }
    }
}
