//! Commits a decided command: one append to the log, then an update of the session
//! cache. It never retries; see [`crate::executor`].

use domain::{ReaderId, SessionId};
use eventlog::append::{Append, KeyedResponse, NewEvent};
use eventlog::deadline::with_deadline;
use eventlog::{idempotency, read};

use crate::CommandError;
use crate::command::CommandContext;
use crate::decision::Decision;
use crate::executor::{Executor, READ_DEADLINE};
use crate::repository::Repository;

impl Executor {
    /// Writes the events, the change of the active-session claim and the response in
    /// one transaction.
    ///
    /// Returns the global position of the last event. For a repeated start, which
    /// produces no event, this is the last event of the existing session. Returns
    /// `None` if there is neither.
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
        let events = decision
            .events
            .into_iter()
            .map(|(session_id, sequence, event)| NewEvent {
                session_id,
                sequence,
                event,
                metadata: metadata.clone(),
            });
        let append = Append {
            events: events.collect(),
            seen: Vec::new(),
            claim,
            response,
        };
        let repository = &self.repository;
        let has_events = !append.events.is_empty();
        let response = append.response.as_ref();
        let key = response.map(|response| response.key.clone());
        let global_positions = if has_events || key.is_some() {
            repository.append(append).await?
        } else {
            Vec::new()
        };
        if !has_events && let Some((id, existing)) = decision.sessions.first_key_value() {
            if let Some(key) = &key {
                check_not_erased(repository, reader_id, *id, key).await?;
            }
            let find = read::global_position_of(repository.pool(), *id, existing.sequence);
            return Ok(Some(with_deadline(READ_DEADLINE, find).await?));
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

/// Fails with [`CommandError::Conflict`] if the session of a repeated start was
/// erased while the response was stored. The response contains the reader's data and
/// came too late for the erasure to delete it, so this deletes it.
async fn check_not_erased(
    repository: &Repository,
    reader_id: ReaderId,
    session_id: SessionId,
    key: &str,
) -> Result<(), CommandError> {
    let newest = with_deadline(READ_DEADLINE, repository.load_newest(session_id)).await?;
    if newest.session.started().is_some() {
        return Ok(());
    }
    let remove = idempotency::remove(repository.pool(), reader_id, key);
    with_deadline(READ_DEADLINE, remove).await?;
    Err(CommandError::Conflict)
}
