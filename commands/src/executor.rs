//! Executes one command: load, decide, append. If another command was appended
//! first, load the new events and decide again.
//!
//! [`crate::CommandService`] calls this in a spawned task, so that a client that
//! disconnects never interrupts a command.

use std::time::Duration;

use domain::session::Rules;
use domain::{ReaderId, SessionError, SessionId};
use eventlog::AppendError;
use eventlog::append::{Append, KeyedResponse};
use eventlog::deadline::with_deadline;
use eventlog::idempotency::{self, Outcome};
use serde::Serialize;

use crate::CommandError;
use crate::command::{Command, CommandContext};
use crate::decision::Decision;
use crate::pending::PendingCommand;
use crate::reader_locks::ReaderLocks;
use crate::repository::Repository;
use crate::result::Committed;

/// Maximum number of attempts of a command. Within a process the reader locks
/// prevent conflicts, so each attempt is lost to another process. With the pauses,
/// all attempts take about five seconds.
const MAX_ATTEMPTS: u32 = 100;

/// The pause after a lost attempt grows by this much. So the process that is ahead
/// can finish its commands and does not lose the next attempt.
const PAUSE_STEP: Duration = Duration::from_millis(1);

const MAX_PAUSE: Duration = Duration::from_millis(50);

/// The deadline for reading from the log what a decision needs.
pub(crate) const READ_DEADLINE: Duration = Duration::from_secs(5);

pub(crate) struct Executor {
    pub(crate) repository: Repository,
    pub(crate) rules: Rules,
    reader_locks: ReaderLocks,
}

impl Executor {
    pub(crate) fn new(repository: Repository, rules: Rules) -> Self {
        Self {
            repository,
            rules,
            reader_locks: ReaderLocks::default(),
        }
    }

    /// Executes a command of a reader. `respond` builds the response before each
    /// attempt to commit. If the command has an idempotency key, the response is
    /// stored with the events.
    pub(crate) async fn execute<R: Serialize>(
        &self,
        reader_id: ReaderId,
        command: &Command,
        context: &CommandContext,
        respond: impl Fn(&Decision) -> R,
    ) -> Result<Committed<R>, CommandError> {
        let _guard = self.reader_locks.lock(reader_id).await?;
        let mut newest = false;
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep((PAUSE_STEP * attempt).min(MAX_PAUSE)).await;
            }
            let mut pending = PendingCommand::new(self, reader_id, newest);
            let decision = match with_deadline(READ_DEADLINE, pending.decide(command)).await {
                Ok(decision) => decision,
                Err(CommandError::Conflict) => {
                    newest = true;
                    continue;
                }
                Err(CommandError::Refused(refusal)) => {
                    Box::pin(self.store_refusal(reader_id, context, refusal)).await?;
                    return Err(refusal.into());
                }
                Err(error) => return Err(error),
            };
            let response = respond(&decision);
            let keyed = context
                .key
                .as_ref()
                .map(|key| key.respond(reader_id, &Outcome::Accepted(&response)));
            match self.commit(reader_id, decision, context, keyed).await {
                Ok(global_position) => {
                    return Ok(Committed {
                        response,
                        global_position,
                    });
                }
                Err(CommandError::Conflict) => {
                    Box::pin(self.check_key_unused(reader_id, context)).await?;
                    newest = true;
                }
                Err(error) => return Err(error),
            }
        }
        Err(CommandError::Conflict)
    }

    /// Stores a refusal under the command's key, so that a repeat of the command
    /// is refused in the same way without a new decision.
    ///
    /// A conflict means that the key is in use. Example: a repeated end is refused,
    /// because its first execution ended the session.
    async fn store_refusal(
        &self,
        reader_id: ReaderId,
        context: &CommandContext,
        refusal: SessionError,
    ) -> Result<(), CommandError> {
        let Some(key) = &context.key else {
            return Ok(());
        };
        let response = key.respond::<()>(reader_id, &Outcome::Refused(refusal));
        self.store(response, Vec::new(), context).await
    }

    /// Stores a response without events.
    ///
    /// # Errors
    /// [`CommandError::Repeated`] if the key is in use, or if one of the sessions `seen` has
    /// another last event.
    pub(crate) async fn store(
        &self,
        response: KeyedResponse,
        seen: Vec<(SessionId, i64)>,
        context: &CommandContext,
    ) -> Result<(), CommandError> {
        let append = Append {
            seen,
            response: Some(response),
            meter: context.meter.clone(),
            ..Append::default()
        };
        match self.repository.append(append).await {
            Ok(_) => Ok(()),
            Err(AppendError::Conflict) => Err(CommandError::Repeated),
            Err(error) => Err(error.into()),
        }
    }

    /// Fails with [`CommandError::Repeated`] if the key is in use. A conflict may
    /// mean that the same command was committed before: by another process, or for
    /// a client that has disconnected.
    pub(crate) async fn check_key_unused(
        &self,
        reader_id: ReaderId,
        context: &CommandContext,
    ) -> Result<(), CommandError> {
        let Some(key) = &context.key else {
            return Ok(());
        };
        let find = idempotency::find(self.repository.pool(), reader_id, key.name());
        match with_deadline(READ_DEADLINE, find).await? {
            Some(_) => Err(CommandError::Repeated),
            None => Ok(()),
        }
    }
}
