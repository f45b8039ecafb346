//! Commits a decided command: one append to the log, then an update of the session
//! cache. It never retries; see [`crate::executor`].

use domain::{ReaderId, SessionId};
use eventlog::append::{Append, KeyedResponse, NewEvent};
use eventlog::deadline::with_deadline;
use eventlog::read;

use crate::CommandError;
use crate::command::CommandContext;
use crate::decision::Decision;
use crate::executor::{Executor, READ_DEADLINE};

impl Executor {
    /// Writes the events, the change of the active-session claim and the response in
    /// one transaction.
    ///
    /// Returns the global position of the last event. For repeats, which produce no event,
    /// this is the last event of the existing sessions. Returns `None` if there is neither.
    ///
    /// # Errors
    /// [`CommandError::Conflict`] if another command was appended first, or if the
    /// idempotency key is in use.
    pub(crate) async fn commit(
        &self,
        reader_id: ReaderId,
        decision: Decision,
        context: &CommandContext,
        response: Option<KeyedResponse>,
    ) -> Result<Option<i64>, CommandError> {
        let metadata = context.metadata();
        let (claim, changes_activity) = (decision.claim(), decision.changes_activity());
        let has_event = |id| decision.events.iter().any(|(other, ..)| other == id);
        let seen = decision.sessions.iter().filter(|(id, _)| !has_event(*id));
        let seen = seen.map(|(id, versioned)| (*id, versioned.sequence));
        let seen: Vec<(SessionId, i64)> = seen.collect();
        let append = Append {
            seen,
            events: decision
                .events
                .into_iter()
                .map(|(session_id, sequence, event)| NewEvent {
                    session_id,
                    sequence,
                    event,
                    metadata: metadata.clone(),
                })
                .collect(),
            claim,
            response,
            meter: context.meter.clone(),
        };
        let repository = &self.repository;
        let has_events = !append.events.is_empty();
        let global_positions = if has_events || append.response.is_some() {
            repository.append(append).await?
        } else {
            Vec::new()
        };
        if !has_events {
            let mut last = None;
            for (id, existing) in &decision.sessions {
                let find = read::global_position_of(repository.pool(), *id, existing.sequence);
                last = last.max(Some(Box::pin(with_deadline(READ_DEADLINE, find)).await?));
            }
            return Ok(last);
        }
        for (id, session) in decision.sessions {
            drop(repository.cache(id, session));
        }
        let last = global_positions.last().copied();
        if let Some(last) = last.filter(|_| changes_activity) {
            self.recent_changes.record(reader_id, last);
        }
        Ok(last)
    }
}
