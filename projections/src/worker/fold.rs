//! Folds events into the rows in memory, and parks those that cannot be applied.

use std::time::Instant;

use domain::SessionEvent;
use eventlog::LogEntry;

use super::Worker;
use super::error::{RunError, TooManyDeadLetters};
use super::pending::Pending;
use crate::Projection;
use crate::dead_letters::{DeadLetterIndex, Disposition, NewDeadLetter, ParkReason};

impl<P: Projection> Worker<P> {
    /// Adds events to the rows in memory, or parks them.
    pub(super) fn fold(
        &self,
        events: &[LogEntry],
        pending: &mut Pending<P>,
        dead_letters: &mut DeadLetterIndex,
    ) -> Result<(), RunError> {
        if !events.is_empty() {
            pending.read_at = Instant::now();
        }
        for event in events {
            let global_position = event.global_position();
            let disposition = match &self.refused {
                Some((refused, error)) if *refused == global_position => {
                    Disposition::Park(ParkReason::Failed(error.clone()))
                }
                _ => dead_letters.classify(event),
            };
            match (disposition, event) {
                (Disposition::Apply, LogEntry::Event(event, traceparent)) => {
                    if let SessionEvent::SessionErased(_) = event.event {
                        let session = event.session_id.to_string();
                        if dead_letters.erase(&session) {
                            pending.dead_letters.erase(session);
                        }
                    }
                    pending.fold(event);
                    if self.traces.is_on() {
                        pending.trace(event, *traceparent);
                    }
                }
                (Disposition::Park(reason), event) => {
                    if dead_letters.is_full() {
                        return Err(TooManyDeadLetters.into());
                    }
                    self.log_parked(&reason, global_position);
                    let parked = NewDeadLetter::new(event, reason);
                    pending.dead_letters.parked.push(parked);
                    dead_letters.park(event);
                    pending.skip(event);
                }
                (Disposition::Apply | Disposition::Skip, event) => pending.skip(event),
            }
            pending.to = global_position;
            pending.events += 1;
        }
        Ok(())
    }

    /// Logs an event that cannot be applied, without the error, which may quote the reader's
    /// data.
    fn log_parked(&self, reason: &ParkReason, global_position: i64) {
        if let ParkReason::Failed(_) = reason
            && self.controls.is_some()
        {
            tracing::error!(
                projection = P::NAME,
                global_position,
                "applying event {name}.{global_position} failed: it is parked; run \
                 `reading-sessions dead-letters show {name}.{global_position}`",
                name = P::NAME
            );
        }
    }
}
