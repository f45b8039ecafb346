//! A command that is decided but not committed: the events that it produces from
//! the sessions known so far, and how the reader's active-session claim changes.
//!
//! Nothing is written before `commit` (see `commit.rs`). The rules of a single
//! session are in `domain`; here are the rules that involve two sessions or the
//! active-session claim.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{
    EndSession, ReaderId, SessionCommand, SessionError, SessionEvent, SessionId, StartSession,
};
use eventlog::active_claims::{self, IdleSession};
use eventlog::append::ActiveClaimChange;

use crate::CommandError;
use crate::command::{BatchUpdate, Command};
use crate::executor::Executor;
use crate::repository::VersionedSession;
use crate::result::{BatchOutcome, CommandResult, EndedIdle};

mod commit;

pub(crate) struct PendingCommand<'a> {
    executor: &'a Executor,
    reader_id: ReaderId,
    /// Whether to read the events that other processes appended. `true` after a
    /// conflict.
    newest: bool,
    /// The sessions that the command changes, after its events.
    changed: BTreeMap<SessionId, Arc<VersionedSession>>,
    /// Session, sequence and event, in order.
    events: Vec<(SessionId, i64, SessionEvent)>,
    claim: Option<ActiveClaimChange>,
    /// The result of each update of a batch.
    results: Vec<Result<(i64, bool), SessionError>>,
}

impl<'a> PendingCommand<'a> {
    pub(crate) fn new(executor: &'a Executor, reader_id: ReaderId, newest: bool) -> Self {
        Self {
            executor,
            reader_id,
            newest,
            changed: BTreeMap::new(),
            events: Vec::new(),
            claim: None,
            results: Vec::new(),
        }
    }

    /// Loads the sessions that the command needs and decides it.
    ///
    /// # Errors
    /// [`CommandError::Refused`] if the domain refuses the command, and
    /// [`CommandError::Conflict`] if the sessions changed while they were loaded.
    pub(crate) async fn decide(&mut self, command: &Command) -> Result<(), CommandError> {
        match command {
            Command::Start { session_id, start } => self.start(*session_id, start).await,
            Command::UpdatePosition { session_id, update } => {
                let command = SessionCommand::UpdatePosition(update.clone());
                self.decide_session(*session_id, command).await
            }
            Command::UpdateBatch(updates) => self.update_batch(updates).await,
            Command::End { session_id, end } => {
                let command = SessionCommand::End(end.clone());
                self.decide_session(*session_id, command).await?;
                self.change_claim(Some(*session_id), None);
                Ok(())
            }
            Command::EndIdle(idle) => self.end_idle(*idle).await,
        }
    }

    /// Starts a session and supersedes the reader's active one.
    async fn start(&mut self, id: SessionId, start: &StartSession) -> Result<(), CommandError> {
        let before = self.session(id).await?;
        if before.sequence > 0 {
            // The start is a repeat, or the id is in use. Both supersede nothing and
            // may append nothing. Only an append detects an outdated state, so load
            // the newest one.
            let newest = self.executor.repository.load_newest(id).await?;
            return self.add(id, &newest, SessionCommand::Start(start.clone()));
        }
        let pool = self.executor.repository.pool();
        let active = active_claims::active_session(pool, self.reader_id).await?;
        if let Some(active) = active {
            let end = SessionCommand::End(EndSession::superseded_by(start));
            match self.decide_session(active, end).await {
                // The session was ended or erased after its claim was read.
                Err(CommandError::Refused(SessionError::AlreadyEnded | SessionError::NotFound)) => {
                    return Err(CommandError::Conflict);
                }
                decided => decided?,
            }
        }
        self.change_claim(active, Some(id));
        self.add(id, &before, SessionCommand::Start(start.clone()))
    }

    /// Decides the updates in the order of their times. A refused update does not
    /// affect the others.
    async fn update_batch(&mut self, updates: &[BatchUpdate]) -> Result<(), CommandError> {
        let mut in_time_order: Vec<usize> = (0..updates.len()).collect();
        in_time_order.sort_by_key(|i| updates[*i].update.occurred.at());
        self.results = vec![Err(SessionError::NotFound); updates.len()];
        for i in in_time_order {
            let BatchUpdate { session_id, update } = &updates[i];
            let command = SessionCommand::UpdatePosition(update.clone());
            self.results[i] = match self.decide_session(*session_id, command).await {
                Ok(()) => Ok((self.changed[session_id].sequence, self.applied())),
                Err(CommandError::Refused(refusal)) => Err(refusal),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    /// Ends an idle session at its latest observation. Does nothing if the session
    /// has received an event since it was found idle.
    async fn end_idle(&mut self, idle: IdleSession) -> Result<(), CommandError> {
        let id = idle.session_id;
        let repository = &self.executor.repository;
        let before = if self.newest {
            repository.load_newest(id).await?
        } else {
            repository.load_at_least(id, idle.sequence).await?
        };
        let session = before.session.started();
        let Some(session) = session.filter(|_| before.sequence == idle.sequence) else {
            return Ok(());
        };
        let end = EndSession::idle_since(session.progress.latest.at);
        self.change_claim(Some(id), None);
        self.add(id, &before, SessionCommand::End(end))
    }

    /// The session after the events that this command has produced so far.
    async fn session(&mut self, id: SessionId) -> Result<Arc<VersionedSession>, CommandError> {
        if let Some(changed) = self.changed.get(&id) {
            return Ok(Arc::clone(changed));
        }
        let repository = &self.executor.repository;
        let loaded = if self.newest {
            repository.load_newest(id).await?
        } else {
            repository.load(id).await?
        };
        Ok(loaded)
    }

    /// Decides a command for one of the reader's own sessions. Another reader's
    /// session is refused in the same way as a missing one.
    ///
    /// Only an append detects an outdated state, and a refusal appends nothing. So
    /// the newest state is loaded before the command is refused.
    async fn decide_session(
        &mut self,
        id: SessionId,
        command: SessionCommand,
    ) -> Result<(), CommandError> {
        let before = self.session(id).await?;
        let refused = match self.add_to_own(id, &before, command.clone()) {
            Err(refused @ CommandError::Refused(_)) => refused,
            result => return result,
        };
        // An empty state was just read from the log: the cache has none.
        if before.sequence == 0 {
            return Err(refused);
        }
        let newest = self.executor.repository.load_newest(id).await?;
        if newest.sequence <= before.sequence {
            return Err(refused);
        }
        self.add_to_own(id, &newest, command)
    }

    fn add_to_own(
        &mut self,
        id: SessionId,
        before: &VersionedSession,
        command: SessionCommand,
    ) -> Result<(), CommandError> {
        if !before.is_owned_by(self.reader_id) {
            return Err(SessionError::NotFound.into());
        }
        self.add(id, before, command)
    }

    /// Adds the events that a command produces from the state `before`.
    fn add(
        &mut self,
        id: SessionId,
        before: &VersionedSession,
        command: SessionCommand,
    ) -> Result<(), CommandError> {
        let events = before.session.decide(command, self.executor.rules)?;
        let after = before.then(&events);
        self.events.extend(
            (before.sequence + 1..)
                .zip(events)
                .map(|(sequence, event)| (id, sequence, event)),
        );
        self.changed.insert(id, Arc::new(after));
        Ok(())
    }

    fn change_claim(&mut self, expected: Option<SessionId>, next: Option<SessionId>) {
        self.claim = Some(ActiveClaimChange {
            reader_id: self.reader_id,
            expected,
            next,
        });
    }

    /// Whether the last event moved the latest position.
    fn applied(&self) -> bool {
        match self.events.last() {
            Some((_, _, SessionEvent::PositionUpdated(event))) => event.applied,
            _ => true,
        }
    }

    /// The effect on one session.
    pub(crate) fn result(&self, session_id: SessionId) -> CommandResult {
        CommandResult {
            session_id,
            versioned: self.changed.get(&session_id).cloned().unwrap_or_default(),
            applied: self.applied(),
        }
    }

    /// The effect of [`Command::UpdateBatch`].
    pub(crate) fn batch_outcome(&self) -> BatchOutcome {
        BatchOutcome {
            results: self.results.clone(),
            last_event: self
                .events
                .last()
                .map(|(session_id, sequence, _)| (*session_id, *sequence)),
        }
    }

    /// The effect of [`Command::EndIdle`]; `None` if the session is not idle any
    /// more.
    pub(crate) fn ended_idle(&self, idle: IdleSession) -> Option<EndedIdle> {
        let session = self.changed.get(&idle.session_id)?.session.started()?;
        Some(EndedIdle {
            duration_ms: session.duration().num_milliseconds(),
            progressed: session.progress.latest.position != session.start.position,
        })
    }
}
