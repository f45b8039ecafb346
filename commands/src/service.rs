//! Commands, from the session to the log: load, decide, append; when somebody
//! else wrote first, load what is new and decide again.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::session::{Rules, StartedSession};
use domain::{
    EndSession, ReaderId, SessionCommand, SessionError, SessionId, StartSession, Timestamp,
    UpdatePosition,
};
use quick_cache::sync::Cache;
use serde::Serialize;
use tokio::sync::Semaphore;

use eventlog::active_claims::{self as claims, Idle};
use eventlog::append::Append;
use eventlog::deadline::with_deadline;
use eventlog::erase::{self, Erased};
use eventlog::idempotency::{self, Decided};
use eventlog::{AppendError, LogError, read};

use crate::CommandError;
use crate::pending::{PendingCommand, owned_by};
use crate::reader_locks::ReaderLocks;
use crate::repository::{Repository, VersionedSession};
use crate::result::{Active, BatchOutcome, BatchUpdate, CommandContext, Committed, EndedIdle, CommandResult};

/// How often a command is decided before its client is told to try later. In
/// one process a reader's commands wait for each other, so each round is lost
/// to another process; with the pauses this is some seconds.
const MAX_ATTEMPTS: u32 = 100;

/// The pause after a lost round grows by this much, so that the process that
/// is ahead finishes what it has instead of being outrun in turn.
const PAUSE_STEP: Duration = Duration::from_millis(1);

/// The longest pause after a lost round.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Commands at work at the same time, waiting ones included; more are refused
/// at once. A client may go away, its command stays: without a bound a slow log
/// would fill the memory. As many as may wait to be appended.
const MAX_COMMANDS: usize = 8_192;

/// How long the log may take to be read for a decision.
pub(crate) const READ_DEADLINE: Duration = Duration::from_secs(5);

/// How long it is remembered that a reader began or ended a session here, and of
/// how many: projections are usually some milliseconds behind.
const CLAIMED_FOR: Duration = Duration::from_secs(10);
const MAX_CLAIMED: usize = 100_000;

/// How often a reader's active session is looked for while it changes.
const ACTIVE_ATTEMPTS: u32 = 3;

/// All sessions: the command side. Cheap to clone.
#[derive(Clone)]
pub struct CommandService(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) repository: Repository,
    pub(crate) rules: Rules,
    places: Arc<Semaphore>,
    turns: ReaderLocks,
    /// Where readers began or ended a session here, a moment ago.
    claimed_at: Cache<ReaderId, RecentClaim>,
}

/// That a reader began or ended a session.
#[derive(Clone, Copy)]
struct RecentClaim {
    position: i64,
    at: Instant,
}

impl CommandService {
    /// Runs commands against a repository.
    #[must_use]
    pub fn new(repository: Repository, rules: Rules) -> Self {
        Self(Arc::new(Inner {
            repository,
            rules,
            places: Arc::new(Semaphore::new(MAX_COMMANDS)),
            turns: ReaderLocks::default(),
            claimed_at: Cache::new(MAX_CLAIMED),
        }))
    }

    /// Starts a session; the reader's active one, if any, ends where it is.
    ///
    /// As with every command, `answer` says what the client is told. It is
    /// asked before the command is committed, so that the answer can be kept
    /// with it; when somebody else wrote first it is asked again.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn start<A: Serialize + Send + 'static>(
        &self,
        session_id: SessionId,
        command: StartSession,
        context: CommandContext,
        answer: impl Fn(CommandResult) -> A + Send + 'static,
    ) -> Result<Committed<A>, CommandError> {
        let reader_id = command.reader_id;
        let decide = move |mut draft: PendingCommand| {
            let command = command.clone();
            async move {
                draft.start(session_id, command).await?;
                Ok(draft)
            }
        };
        let answer = move |draft: &PendingCommand| answer(draft.outcome(session_id));
        self.run(reader_id, context, decide, answer).await
    }

    /// Moves a session's position.
    ///
    /// # Errors
    /// See [`CommandError`]; never a conflict, since an observation can be
    /// decided on any state: one that lost every round is told to come again.
    pub async fn update_position<A: Serialize + Send + 'static>(
        &self,
        reader_id: ReaderId,
        session_id: SessionId,
        update: UpdatePosition,
        context: CommandContext,
        answer: impl Fn(CommandResult) -> A + Send + 'static,
    ) -> Result<Committed<A>, CommandError> {
        let decide = move |mut draft: PendingCommand| {
            let command = SessionCommand::UpdatePosition(update.clone());
            async move {
                draft.decide(session_id, command).await?;
                Ok(draft)
            }
        };
        let answer = move |draft: &PendingCommand| answer(draft.outcome(session_id));
        self.run(reader_id, context, decide, answer)
            .await
            .map_err(CommandError::of_an_observation)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn end<A: Serialize + Send + 'static>(
        &self,
        reader_id: ReaderId,
        session_id: SessionId,
        end: EndSession,
        context: CommandContext,
        answer: impl Fn(CommandResult) -> A + Send + 'static,
    ) -> Result<Committed<A>, CommandError> {
        let decide = move |mut draft: PendingCommand| {
            let end = end.clone();
            async move {
                draft.decide(session_id, SessionCommand::End(end)).await?;
                draft.claim(Some(session_id), None);
                Ok(draft)
            }
        };
        let answer = move |draft: &PendingCommand| answer(draft.outcome(session_id));
        self.run(reader_id, context, decide, answer).await
    }

    /// Ends a session at its last activity, unless something was heard of it since
    /// it was found idle; then it is left alone, and there is no answer.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn end_idle(&self, idle: Idle) -> Result<Option<EndedIdle>, CommandError> {
        let decide = move |mut draft: PendingCommand| async move {
            draft.end_idle(idle).await?;
            Ok(draft)
        };
        let answer = move |draft: &PendingCommand| draft.ended_idle(idle);
        let done = self.run(idle.reader_id, CommandContext::default(), decide, answer);
        Ok(done.await?.answer)
    }

    /// Moves the positions of many sessions in one transaction. Updates that
    /// are refused leave the others alone; those of one session take effect in
    /// the order of their time.
    ///
    /// # Errors
    /// See [`CommandError`]; a refusal stands in the outcome, and there are no
    /// conflicts.
    pub async fn update_positions<A: Serialize + Send + 'static>(
        &self,
        reader_id: ReaderId,
        updates: Vec<BatchUpdate>,
        context: CommandContext,
        answer: impl Fn(BatchOutcome) -> A + Send + 'static,
    ) -> Result<Committed<A>, CommandError> {
        let updates = Arc::new(updates);
        let decide = move |mut draft: PendingCommand| {
            let updates = Arc::clone(&updates);
            async move {
                draft.update_positions(&updates).await?;
                Ok(draft)
            }
        };
        let answer = move |draft: &PendingCommand| answer(draft.batch_outcome());
        self.run(reader_id, context, decide, answer)
            .await
            .map_err(CommandError::of_an_observation)
    }

    /// Erases all sessions of a reader (see [`erase::reader`]).
    ///
    /// # Errors
    /// See [`LogError`]; it may be done all the same.
    pub async fn erase(
        &self,
        reader_id: ReaderId,
        erased_at: Timestamp,
    ) -> Result<Erased, LogError> {
        let inner = &self.0;
        let erased = erase::reader(inner.repository.pool(), reader_id, erased_at).await?;
        if let Some(position) = erased.global_position {
            inner.claimed(reader_id, position);
        }
        Ok(erased)
    }

    /// The session with all that is committed; `None` when there is none or it
    /// is another reader's.
    ///
    /// # Errors
    /// See [`LogError`].
    pub async fn find(
        &self,
        reader_id: ReaderId,
        session_id: SessionId,
    ) -> Result<Option<Arc<VersionedSession>>, LogError> {
        let found = self.0.repository.load_newest(session_id).await?;
        Ok(Some(found).filter(|found| owned_by(found, reader_id)))
    }

    /// The reader's active session, from the log, and the position that the log
    /// was read at.
    ///
    /// # Errors
    /// See [`LogError`].
    pub async fn active(&self, reader_id: ReaderId) -> Result<(Option<Active>, i64), LogError> {
        with_deadline(READ_DEADLINE, self.read_active(reader_id)).await
    }

    async fn read_active(&self, reader_id: ReaderId) -> Result<(Option<Active>, i64), LogError> {
        let repository = &self.0.repository;
        let mut claimed = claims::claimed(repository.pool(), reader_id).await?;
        for _ in 0..ACTIVE_ATTEMPTS {
            let Some((session_id, sequence, position)) = claimed.session else {
                return Ok((None, claimed.head));
            };
            let versioned = repository.load_from(session_id, sequence).await?;
            if versioned
                .session
                .started()
                .is_some_and(StartedSession::is_active)
            {
                let global_position = if versioned.sequence == sequence {
                    position
                } else {
                    read::position(repository.pool(), session_id, versioned.sequence).await?
                };
                let active = Active {
                    session_id,
                    versioned,
                    global_position,
                };
                return Ok((Some(active), claimed.head));
            }
            // It has ended since the claim was read, and another may have begun.
            claimed = claims::claimed(repository.pool(), reader_id).await?;
        }
        Err(LogError::Unavailable(
            "the reader's active session changes all the time".into(),
        ))
    }

    /// The position at which a reader began or ended a session here a moment ago.
    /// What is behind it shows another active session than their app knows.
    #[must_use]
    pub fn claimed_at(&self, reader_id: ReaderId) -> Option<i64> {
        let claimed = self.0.claimed_at.get(&reader_id)?;
        (claimed.at.elapsed() < CLAIMED_FOR).then_some(claimed.position)
    }

    /// The position of the last event.
    ///
    /// # Errors
    /// See [`LogError`].
    pub async fn head(&self) -> Result<i64, LogError> {
        read::head(self.0.repository.pool()).await
    }

    /// Runs a command in a task of its own: a client that hangs up, or a
    /// deadline of its request, does not tear it in the middle.
    async fn run<A, F>(
        &self,
        reader_id: ReaderId,
        context: CommandContext,
        decide: impl Fn(PendingCommand) -> F + Send + 'static,
        answer: impl Fn(&PendingCommand) -> A + Send + 'static,
    ) -> Result<Committed<A>, CommandError>
    where
        A: Serialize + Send + 'static,
        F: Future<Output = Result<PendingCommand, CommandError>> + Send,
    {
        let inner = Arc::clone(&self.0);
        // Given back when the command is over, not when its client is.
        let place = Arc::clone(&inner.places)
            .try_acquire_owned()
            .map_err(|_| CommandError::Overloaded)?;
        let command = async move {
            let _place = place;
            inner.run(reader_id, &context, decide, answer).await
        };
        match tokio::spawn(command).await {
            Ok(done) => done,
            Err(end) => match end.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime stops.
                Err(cancelled) => Err(CommandError::Unavailable(Box::new(cancelled))),
            },
        }
    }
}

impl Inner {
    pub(crate) fn claimed(&self, reader_id: ReaderId, position: i64) {
        let at = Instant::now();
        self.claimed_at.insert(reader_id, RecentClaim { position, at });
    }

    async fn run<A, F>(
        self: &Arc<Self>,
        reader_id: ReaderId,
        context: &CommandContext,
        decide: impl Fn(PendingCommand) -> F,
        answer: impl Fn(&PendingCommand) -> A,
    ) -> Result<Committed<A>, CommandError>
    where
        A: Serialize,
        F: Future<Output = Result<PendingCommand, CommandError>>,
    {
        let _turn = self.turns.of(reader_id).await?;
        let mut newest = false;
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep((PAUSE_STEP * attempt).min(MAX_PAUSE)).await;
            }
            let draft = PendingCommand::new(Arc::clone(self), reader_id, newest);
            let draft = match with_deadline(READ_DEADLINE, decide(draft)).await {
                // A refusal that rests on what is only remembered is asked of
                // the log once more.
                Err(CommandError::Conflict) => {
                    newest = true;
                    continue;
                }
                Err(CommandError::Refused(refusal)) => {
                    self.keep_refusal(reader_id, context, refusal).await?;
                    return Err(refusal.into());
                }
                decided => decided?,
            };
            let answer = answer(&draft);
            let kept = context
                .key
                .as_ref()
                .map(|key| key.keeps(reader_id, &Decided::Taken(&answer)));
            match draft.commit(context, kept).await {
                Ok(global_position) => {
                    return Ok(Committed {
                        answer,
                        global_position,
                    });
                }
                Err(CommandError::Conflict) => {
                    self.not_repeated(reader_id, context).await?;
                    newest = true;
                }
                Err(error) => return Err(error),
            }
        }
        Err(CommandError::Conflict)
    }

    /// A refusal is an answer too: with a key, a repeat is not decided again.
    /// It may rest on a state that is remembered, since what has ended stays so
    /// and what is not there is not remembered. But an end that is repeated
    /// finds its session ended by itself; then the key is taken.
    async fn keep_refusal(
        &self,
        reader_id: ReaderId,
        context: &CommandContext,
        refusal: SessionError,
    ) -> Result<(), CommandError> {
        let Some(key) = &context.key else {
            return Ok(());
        };
        let append = Append {
            answer: Some(key.keeps::<()>(reader_id, &Decided::Refused(refusal))),
            ..Append::default()
        };
        match self.repository.append(append).await {
            Ok(_) => Ok(()),
            Err(AppendError::Conflict) => Err(CommandError::Repeated),
            Err(error) => Err(error.into()),
        }
    }

    /// A conflict may mean that the same command was decided before: by another
    /// process, or for a request that has gone away since.
    async fn not_repeated(
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
