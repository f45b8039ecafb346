//! Commits a pending command: one append to the log, then an update of the session
//! cache. It never retries; see [`crate::executor`].

use domain::{ReaderId, SessionId};
use eventlog::append::{Append, KeyedResponse, NewEvent};
use eventlog::deadline::with_deadline;
use eventlog::{idempotency, read};

use super::PendingCommand;
use crate::CommandError;
use crate::command::CommandContext;
use crate::executor::READ_DEADLINE;
use crate::repository::Repository;

impl PendingCommand<'_> {
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
        self,
        context: &CommandContext,
        response: Option<KeyedResponse>,
    ) -> Result<Option<i64>, CommandError> {
        let metadata = context.metadata();
        let events = self
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
            claim: self.claim,
            response,
        };
        let repository = &self.executor.repository;
        let changes_claim = append.claim.is_some();
        let has_events = !append.events.is_empty();
        let response = append.response.as_ref();
        let key = response.map(|response| response.key.clone());
        let global_positions = if has_events || key.is_some() {
            repository.append(append).await?
        } else {
            Vec::new()
        };
        if !has_events && let Some((id, existing)) = self.changed.first_key_value() {
            if let Some(key) = &key {
                check_not_erased(repository, self.reader_id, *id, key).await?;
            }
            let find = read::global_position_of(repository.pool(), *id, existing.sequence);
            return Ok(Some(with_deadline(READ_DEADLINE, find).await?));
        }
        for (id, session) in self.changed {
            drop(repository.cache(id, session));
        }
        let last = global_positions.last().copied();
        if let Some(last) = last.filter(|_| changes_claim) {
            self.executor.recent_changes.record(self.reader_id, last);
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
