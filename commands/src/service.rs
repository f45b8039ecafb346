//! The entry point of the command side: one method per command, and the queries
//! that must read the log instead of a projection.
//!
//! The methods only start the work: `executor.rs` executes commands, `pending.rs` loads
//! what they need, and `decision.rs` decides them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use domain::session::Rules;
use domain::{
    BookId, CorrectSession, EndSession, ReaderId, SessionId, StartSession, Timestamp,
    UpdatePosition,
};
use eventlog::active_claims::IdleSession;
use eventlog::deadline::with_deadline;
use eventlog::erase::{self, Erased};
use eventlog::idempotency::{MAX_STORED_RESPONSE, Outcome};
use eventlog::{LogError, read};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::CommandError;
use crate::active_session::{self, ActiveSession};
use crate::command::{BatchUpdate, Command, CommandContext, SyncSession};
use crate::decision::Decision;
use crate::executor::{Executor, READ_DEADLINE};
use crate::repository::{Repository, VersionedSession};
use crate::result::{BatchOutcome, CommandResult, Committed, EndedIdle, SyncOutcome};

/// Commands in progress, including those that wait for a lock or the append. A
/// command continues after its client has disconnected. Without this bound a slow
/// log would fill the memory. It equals the capacity of the append queue. A command with
/// more than 50 observations counts for several, see [`Command::permits`].
const MAX_COMMANDS: usize = 8_192;

/// Executes commands and reads sessions. Cheap to clone.
///
/// Each command takes a closure that builds the response for its client. The
/// closure is called before the commit, so that the response can be stored under
/// the command's idempotency key in the same transaction. If another command is
/// appended first, it is called again.
#[derive(Clone)]
pub struct CommandService {
    executor: Arc<Executor>,
    permits: Arc<Semaphore>,
}

impl CommandService {
    #[must_use]
    pub fn new(repository: Repository, rules: Rules) -> Self {
        Self {
            executor: Arc::new(Executor::new(repository, rules)),
            permits: Arc::new(Semaphore::new(MAX_COMMANDS)),
        }
    }

    /// Starts a session. If it is the reader's newest one, it supersedes the active one.
    pub async fn start<R: Serialize + Send + 'static>(
        &self,
        session_id: SessionId,
        start: StartSession,
        context: CommandContext,
        respond: impl Fn(CommandResult) -> R + Send + 'static,
    ) -> Result<Committed<R>, CommandError> {
        let reader_id = start.reader_id;
        let command = Command::Start { session_id, start };
        self.execute(reader_id, command, context, move |decision| {
            respond(decision.result(session_id))
        })
        .await
    }

    /// Updates the position of a session.
    ///
    /// # Errors
    /// Never [`CommandError::Conflict`]: an observation is decided again on the newer state.
    /// An update that loses every attempt fails with [`CommandError::Overloaded`].
    pub async fn update_position<R: Serialize + Send + 'static>(
        &self,
        reader_id: ReaderId,
        session_id: SessionId,
        update: UpdatePosition,
        context: CommandContext,
        respond: impl Fn(CommandResult) -> R + Send + 'static,
    ) -> Result<Committed<R>, CommandError> {
        let command = Command::UpdatePosition { session_id, update };
        self.execute(reader_id, command, context, move |decision| {
            respond(decision.result(session_id))
        })
        .await
        .map_err(CommandError::for_observation)
    }

    /// Updates the positions of many sessions in one transaction. A refused update
    /// does not affect the others. Updates of one session take effect in the order
    /// of their times.
    ///
    /// # Errors
    /// Neither [`CommandError::Refused`], because the outcome contains the
    /// refusals, nor [`CommandError::Conflict`].
    pub async fn update_positions<R: Serialize + Send + 'static>(
        &self,
        reader_id: ReaderId,
        updates: Vec<BatchUpdate>,
        context: CommandContext,
        respond: impl Fn(BatchOutcome) -> R + Send + 'static,
    ) -> Result<Committed<R>, CommandError> {
        let command = Command::UpdateBatch(updates);
        self.execute(reader_id, command, context, move |decision| {
            respond(decision.batch_outcome())
        })
        .await
        .map_err(CommandError::for_observation)
    }

    /// Ends a session.
    pub async fn end<R: Serialize + Send + 'static>(
        &self,
        reader_id: ReaderId,
        session_id: SessionId,
        end: EndSession,
        context: CommandContext,
        respond: impl Fn(CommandResult) -> R + Send + 'static,
    ) -> Result<Committed<R>, CommandError> {
        let command = Command::End { session_id, end };
        self.execute(reader_id, command, context, move |decision| {
            respond(decision.result(session_id))
        })
        .await
    }

    /// Merges a whole session into the reader's sessions. A repeat changes nothing.
    ///
    /// # Errors
    /// Never [`CommandError::Conflict`]: a session accepts every observation up to its
    /// end.
    pub async fn sync<R: Serialize + Send + 'static>(
        &self,
        sync: SyncSession,
        context: CommandContext,
        respond: impl Fn(SyncOutcome) -> R + Send + 'static,
    ) -> Result<Committed<R>, CommandError> {
        let (reader_id, session_id) = (sync.start.reader_id, sync.session_id);
        let command = Command::Sync(Box::new(sync));
        self.execute(reader_id, command, context, move |decision| {
            respond(decision.sync_outcome(session_id))
        })
        .await
        .map_err(CommandError::for_observation)
    }

    /// Stores the response to several commands under the idempotency key of their
    /// request. Does nothing without a key.
    ///
    /// A response of more than [`MAX_STORED_RESPONSE`] bytes is not stored: a repeat of
    /// these commands then executes them again. So each of them must change nothing if it
    /// is repeated.
    ///
    /// `seen` are the sessions that the response contains, with the sequences of their last
    /// events. If one of them has changed since, or was erased, the response is not stored.
    ///
    /// # Errors
    /// [`CommandError::Repeated`] if the key is in use.
    pub async fn store_response<R: Serialize>(
        &self,
        reader_id: ReaderId,
        context: &CommandContext,
        response: &R,
        seen: Vec<(SessionId, i64)>,
    ) -> Result<(), CommandError> {
        let Some(key) = &context.key else {
            return Ok(());
        };
        let keyed = key.respond(reader_id, &Outcome::Accepted(response));
        if keyed.response.len() > MAX_STORED_RESPONSE {
            return Ok(());
        }
        match self.executor.store(keyed, seen, context).await {
            Err(CommandError::Repeated) => self.executor.check_key_unused(reader_id, context).await,
            stored => stored,
        }
    }

    /// Corrects an ended session.
    pub async fn correct<R: Serialize + Send + 'static>(
        &self,
        reader_id: ReaderId,
        session_id: SessionId,
        correction: CorrectSession,
        context: CommandContext,
        respond: impl Fn(CommandResult) -> R + Send + 'static,
    ) -> Result<Committed<R>, CommandError> {
        let command = Command::Correct {
            session_id,
            correction,
        };
        self.execute(reader_id, command, context, move |decision| {
            respond(decision.result(session_id))
        })
        .await
    }

    /// Ends an idle session at its latest observation. Returns `None` and does
    /// nothing if the session has received an event since it was found idle.
    pub async fn end_idle(&self, idle: IdleSession) -> Result<Option<EndedIdle>, CommandError> {
        let command = Command::EndIdle(idle);
        let context = CommandContext::default();
        let execute = self.execute(idle.reader_id, command, context, move |decision| {
            decision.ended_idle(idle.session_id)
        });
        Ok(execute.await?.response)
    }

    /// Erases all sessions of a reader; see [`erase::reader`]. This is the first
    /// part of an erasure, [`crate::erasure`] the second.
    ///
    /// # Errors
    /// The sessions may be erased even if this fails. Repeating the call is safe.
    pub async fn erase(
        &self,
        reader_id: ReaderId,
        erased_at: Timestamp,
    ) -> Result<Erased, LogError> {
        let executor = &self.executor;
        let erased = erase::reader(executor.repository.pool(), reader_id, erased_at).await?;
        if let Some(global_position) = erased.global_position {
            executor
                .repository
                .recent_changes
                .record(reader_id, global_position);
        }
        Ok(erased)
    }

    /// Erases those of the given sessions that belong to the reader; see
    /// [`erase::sessions`]. The second part of the erasure is that of [`Self::erase`].
    ///
    /// # Errors
    /// The sessions may be erased even if this fails. Repeating the call is safe.
    pub async fn erase_sessions(
        &self,
        reader_id: ReaderId,
        session_ids: &[SessionId],
        erased_at: Timestamp,
    ) -> Result<Erased, LogError> {
        let executor = &self.executor;
        let pool = executor.repository.pool();
        let mut erased = Erased::default();
        for part in session_ids.chunks(erase::SESSIONS_AT_ONCE) {
            erased.add(erase::sessions(pool, reader_id, part, erased_at).await?);
        }
        if let Some(global_position) = erased.global_position {
            erase::delete_responses(pool, reader_id, session_ids).await?;
            executor
                .repository
                .recent_changes
                .record(reader_id, global_position);
        }
        Ok(erased)
    }

    /// The reader's sessions with a book.
    pub async fn sessions_of_book(
        &self,
        reader_id: ReaderId,
        book_id: BookId,
    ) -> Result<Vec<SessionId>, LogError> {
        erase::sessions_of_book(self.executor.repository.pool(), reader_id, book_id).await
    }

    /// The session with all committed events. `None` if it does not exist or
    /// belongs to another reader.
    pub async fn find(
        &self,
        reader_id: ReaderId,
        session_id: SessionId,
    ) -> Result<Option<Arc<VersionedSession>>, LogError> {
        let repository = &self.executor.repository;
        let session = repository.load_newest(session_id).await?;
        Ok(Some(session).filter(|session| session.is_owned_by(reader_id)))
    }

    /// The reader's active session, if any, and the global position of the log's
    /// end at the time of the read.
    pub async fn active(
        &self,
        reader_id: ReaderId,
    ) -> Result<(Option<ActiveSession>, i64), LogError> {
        let repository = &self.executor.repository;
        // Before the read, so that its snapshot includes the change.
        let changed = repository.recent_changes.global_position_of(reader_id);
        let load = active_session::load(repository, reader_id);
        let (active, head) = with_deadline(READ_DEADLINE, load).await?;
        if let Some(changed) = changed.filter(|changed| *changed > head) {
            repository.discard_memory(None, changed);
        }
        Ok((active, head))
    }

    /// How often this process remembered an event that the log does not contain.
    #[must_use]
    pub fn losses(&self) -> Arc<AtomicU64> {
        self.executor.repository.losses()
    }

    /// The global position at which the reader's active session last changed in
    /// this process; `None` if it did not change recently. A projection before
    /// this global position shows the previous active session.
    #[must_use]
    pub fn recent_change(&self, reader_id: ReaderId) -> Option<i64> {
        self.executor
            .repository
            .recent_changes
            .global_position_of(reader_id)
    }

    /// The global position of the last event in the log.
    pub async fn head(&self) -> Result<i64, LogError> {
        read::head(self.executor.repository.pool()).await
    }

    /// Executes a command in a spawned task: neither a disconnect of the client
    /// nor a timeout of its request interrupts the command.
    async fn execute<R: Serialize + Send + 'static>(
        &self,
        reader_id: ReaderId,
        command: Command,
        context: CommandContext,
        respond: impl Fn(&Decision) -> R + Send + 'static,
    ) -> Result<Committed<R>, CommandError> {
        let executor = Arc::clone(&self.executor);
        // The task holds the permit, so that a command counts until it ends, even
        // if its client has disconnected.
        let permit = Arc::clone(&self.permits)
            .try_acquire_many_owned(command.permits())
            .map_err(|_| CommandError::Overloaded)?;
        let task = async move {
            let _permit = permit;
            executor
                .execute(reader_id, &command, &context, respond)
                .await
        };
        match tokio::spawn(task).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(cancelled) => Err(CommandError::Unavailable(Box::new(cancelled))),
            },
        }
    }
}
