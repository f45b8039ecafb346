//! Retries dead letters, when operators request it.

use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use eventlog::{LogEntry, StoredEvent, read};

use super::Worker;
use super::error::RunError;
use crate::dead_letters::{self, DeadLetterChanges, DeadLetterIndex, error_text};
use crate::projection::new_revision;
use crate::{BatchRange, Checkpoint, CommitError, Projection};

impl<P: Projection> Worker<P> {
    /// Reads the dead letters, and retries those that operators have requested.
    pub(super) async fn refresh_dead_letters(
        &mut self,
        checkpoint: &mut Checkpoint,
    ) -> Result<DeadLetterIndex, RunError> {
        let index = DeadLetterIndex::read(&self.pool, P::NAME).await?;
        if index.sessions_to_retry().is_empty() {
            return Ok(index);
        }
        self.retry(&index, checkpoint).await?;
        Ok(DeadLetterIndex::read(&self.pool, P::NAME).await?)
    }

    /// Applies the open events of the requested sessions in order, each in a commit that
    /// does not move the checkpoint. A session stops at the first event that fails.
    async fn retry(
        &mut self,
        index: &DeadLetterIndex,
        checkpoint: &mut Checkpoint,
    ) -> Result<(), RunError> {
        for session in index.sessions_to_retry() {
            let stored = read::at(&self.pool, index.open_events(session));
            let stored = with_deadline(STATEMENT_DEADLINE, stored).await?;
            let mut stored = stored.into_iter().peekable();
            for &global_position in index.open_events(session) {
                let event = stored.next_if(|event| event.global_position == global_position);
                let Err(error) = self.retry_event(event, global_position, checkpoint).await? else {
                    continue;
                };
                let failed = dead_letters::mark_failed(
                    &self.pool,
                    P::NAME,
                    session,
                    global_position,
                    &error,
                );
                with_deadline(STATEMENT_DEADLINE, failed).await?;
                break;
            }
        }
        Ok(())
    }

    /// Returns why the event cannot be applied, or an error if that is unknown.
    async fn retry_event(
        &mut self,
        event: Option<StoredEvent>,
        global_position: i64,
        checkpoint: &mut Checkpoint,
    ) -> Result<Result<(), String>, RunError> {
        let event = match event.map(StoredEvent::into_log_entry) {
            Some(LogEntry::Event(event, _)) => event,
            Some(LogEntry::Undecodable(event)) => return Ok(Err(error_text(&event.error))),
            None => return Ok(Err("the log does not contain the event any more".to_owned())),
        };
        let rows = P::fold_retried(&event).into_iter().collect();
        let changes = DeadLetterChanges {
            resolved: vec![global_position],
            ..DeadLetterChanges::default()
        };
        let range = BatchRange {
            from: *checkpoint,
            to: checkpoint.global_position,
            written_to: checkpoint.written_to,
            revision: new_revision(),
        };
        match self.projection.commit(rows, range, &changes).await {
            Ok(()) => {
                *checkpoint = range.checkpoint_after();
                Ok(Ok(()))
            }
            Err(CommitError::Refused(error)) => Ok(Err(error_text(&error))),
            Err(error) => Err(error.into()),
        }
    }
}
