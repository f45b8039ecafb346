//! Commits a decided command: one append to the log, then an update of the session
//! cache. It never retries; see [`crate::executor`].

use std::sync::Arc;

use domain::{ReaderId, SessionId};
use eventlog::append::{Append, KeyedResponse, NewEvent};

use crate::CommandError;
use crate::command::CommandContext;
use crate::decision::Decision;
use crate::executor::Executor;

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
        let appended: Vec<SessionId> = append.events.iter().map(|new| new.session_id).collect();
        let has_events = !appended.is_empty();
        let global_positions = if has_events || append.response.is_some() {
            repository.append(append).await?
        } else {
            Vec::new()
        };
        if !has_events {
            // A repeat is decided on the newest state, so each session is as in the log.
            let existing = decision.sessions.values();
            return Ok(existing.map(|existing| existing.global_position).max());
        }
        for (id, mut session) in decision.sessions {
            let mut own = appended.iter().zip(&global_positions);
            if let Some((_, last)) = own.rfind(|(appended, _)| **appended == id) {
                Arc::make_mut(&mut session).global_position = *last;
            }
            drop(repository.cache(id, session));
        }
        let last = global_positions.last().copied();
        if let Some(last) = last.filter(|_| changes_activity) {
            repository.recent_changes.record(reader_id, last);
        }
        Ok(last)
    }
}
