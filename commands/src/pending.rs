//! A command before it is committed: what it would do, decided on sessions as
//! they are known here.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::command::Occurrence;
use domain::event::EndReason;
use domain::{
    EndSession, ReaderId, SessionCommand, SessionError, SessionEvent, SessionId, StartSession,
};

use eventlog::active_claims::{self as claims, Idle};
use eventlog::append::{Append, ClaimChange, KeyedAnswer, NewEvent};
use eventlog::deadline::with_deadline;
use eventlog::{idempotency, read};

use crate::CommandError;
use crate::repository::VersionedSession;
use crate::result::{BatchOutcome, BatchUpdate, CommandContext, EndedIdle, CommandResult};
use crate::service::{Inner, READ_DEADLINE};

pub(crate) fn owned_by(versioned: &VersionedSession, reader_id: ReaderId) -> bool {
    versioned
        .session
        .started()
        .is_some_and(|session| session.start.reader_id == reader_id)
}

/// What a command would do, before it is committed.
pub(crate) struct PendingCommand {
    inner: Arc<Inner>,
    reader_id: ReaderId,
    /// Whether to ask the log for what others wrote, after a conflict.
    newest: bool,
    touched: BTreeMap<SessionId, Arc<VersionedSession>>,
    events: Vec<(SessionId, i64, SessionEvent)>,
    claim: Option<ClaimChange>,
    /// Of a batch: what becomes of each update.
    results: Vec<Result<(i64, bool), SessionError>>,
}

impl PendingCommand {
    pub(crate) fn new(inner: Arc<Inner>, reader_id: ReaderId, newest: bool) -> Self {
        Self {
            inner,
            reader_id,
            newest,
            touched: BTreeMap::new(),
            events: Vec::new(),
            claim: None,
            results: Vec::new(),
        }
    }

    /// The session as this draft leaves it so far.
    async fn session(&mut self, id: SessionId) -> Result<Arc<VersionedSession>, CommandError> {
        if let Some(touched) = self.touched.get(&id) {
            return Ok(Arc::clone(touched));
        }
        let repository = &self.inner.repository;
        let loaded = if self.newest {
            repository.load_newest(id).await?
        } else {
            repository.load(id).await?
        };
        Ok(loaded)
    }

    /// Adds what a command of the reader's own session leads to. Another
    /// reader's session is as good as none.
    ///
    /// A refusal is not appended, so the log does not judge what it rests on:
    /// before it is given, what is only remembered is brought up to date.
    pub(crate) async fn decide(
        &mut self,
        id: SessionId,
        command: SessionCommand,
    ) -> Result<(), CommandError> {
        let before = self.session(id).await?;
        let refused = match self.add_to_own(id, &before, command.clone()) {
            Err(refused @ CommandError::Refused(_)) => refused,
            done => return done,
        };
        // What is not there is not remembered.
        if before.sequence == 0 {
            return Err(refused);
        }
        let newest = self.inner.repository.load_newest(id).await?;
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
        if !owned_by(before, self.reader_id) {
            return Err(SessionError::NotFound.into());
        }
        self.add(id, before, command)
    }

    fn add(
        &mut self,
        id: SessionId,
        before: &VersionedSession,
        command: SessionCommand,
    ) -> Result<(), CommandError> {
        let events = before.session.decide(command, self.inner.rules)?;
        let after = before.then(&events);
        self.events.extend(
            (before.sequence + 1..)
                .zip(events)
                .map(|(sequence, event)| (id, sequence, event)),
        );
        self.touched.insert(id, Arc::new(after));
        Ok(())
    }

    pub(crate) fn claim(&mut self, expected: Option<SessionId>, next: Option<SessionId>) {
        self.claim = Some(ClaimChange {
            reader_id: self.reader_id,
            expected,
            next,
        });
    }

    pub(crate) async fn start(
        &mut self,
        id: SessionId,
        command: StartSession,
    ) -> Result<(), CommandError> {
        let before = self.session(id).await?;
        if before.sequence > 0 {
            // A repeat, or an id that is taken; either way nothing is superseded,
            // and nothing may be appended that would tell whether it is so still.
            let newest = self.inner.repository.load_newest(id).await?;
            return self.add(id, &newest, SessionCommand::Start(command));
        }
        let active = claims::active_session(self.inner.repository.pool(), self.reader_id).await?;
        if let Some(active) = active {
            let end = EndSession {
                position: None,
                reason: EndReason::Superseded,
                occurred: command.occurred,
            };
            match self.decide(active, SessionCommand::End(end)).await {
                // It ended, or was erased, since the claim was read.
                Err(CommandError::Refused(SessionError::AlreadyEnded | SessionError::NotFound)) => {
                    return Err(CommandError::Conflict);
                }
                decided => decided?,
            }
        }
        self.claim(active, Some(id));
        self.add(id, &before, SessionCommand::Start(command))
    }

    /// Ends a session if it has as many events as when it was found idle.
    pub(crate) async fn end_idle(&mut self, idle: Idle) -> Result<(), CommandError> {
        let id = idle.session_id;
        let repository = &self.inner.repository;
        let before = if self.newest {
            repository.load_newest(id).await?
        } else {
            repository.load_from(id, idle.sequence).await?
        };
        let session = before.session.started();
        let Some(session) = session.filter(|_| before.sequence == idle.sequence) else {
            return Ok(());
        };
        let at = session.progress.latest.at;
        let end = EndSession {
            position: None,
            reason: EndReason::Idle,
            occurred: Occurrence {
                client: Some(at),
                received: at,
            },
        };
        self.claim(Some(id), None);
        self.add(id, &before, SessionCommand::End(end))
    }

    /// What [`PendingCommand::end_idle`] leads to.
    pub(crate) fn ended_idle(&self, idle: Idle) -> Option<EndedIdle> {
        let session = self.touched.get(&idle.session_id)?.session.started()?;
        Some(EndedIdle {
            duration_ms: session.duration().num_milliseconds(),
            progressed: session.progress.latest.position != session.start.position,
        })
    }

    pub(crate) async fn update_positions(
        &mut self,
        updates: &[BatchUpdate],
    ) -> Result<(), CommandError> {
        let mut in_time_order: Vec<usize> = (0..updates.len()).collect();
        in_time_order.sort_by_key(|i| updates[*i].update.occurred.at());
        self.results = vec![Err(SessionError::NotFound); updates.len()];
        for i in in_time_order {
            let BatchUpdate { session_id, update } = &updates[i];
            let command = SessionCommand::UpdatePosition(update.clone());
            self.results[i] = match self.decide(*session_id, command).await {
                Ok(()) => Ok((self.touched[session_id].sequence, self.applied())),
                Err(CommandError::Refused(refusal)) => Err(refusal),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    /// Whether the last event moved the latest position.
    fn applied(&self) -> bool {
        match self.events.last() {
            Some((_, _, SessionEvent::PositionUpdated(event))) => event.applied,
            _ => true,
        }
    }

    /// What a command on one session leads to.
    pub(crate) fn outcome(&self, session_id: SessionId) -> CommandResult {
        CommandResult {
            session_id,
            versioned: self.touched.get(&session_id).cloned().unwrap_or_default(),
            applied: self.applied(),
        }
    }

    /// What a batch leads to.
    pub(crate) fn batch_outcome(&self) -> BatchOutcome {
        BatchOutcome {
            results: self.results.clone(),
            last_event: self
                .events
                .last()
                .map(|(session_id, sequence, _)| (*session_id, *sequence)),
        }
    }

    /// Writes the events, the claim and the answer to be kept, or nothing.
    /// Returns the global position of the last event: its own, or of what it
    /// repeats.
    pub(crate) async fn commit(
        self,
        context: &CommandContext,
        answer: Option<KeyedAnswer>,
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
            answer,
        };
        let repository = &self.inner.repository;
        let claims = append.claim.is_some();
        let repeats = append.events.is_empty();
        let key = append.answer.as_ref().map(|answer| answer.key.clone());
        let positions = if repeats && key.is_none() {
            Vec::new()
        } else {
            repository.append(append).await?
        };
        if repeats && let Some((id, known)) = self.touched.first_key_value() {
            if let Some(key) = &key
                && with_deadline(READ_DEADLINE, repository.load_newest(*id))
                    .await?
                    .session
                    .started()
                    .is_none()
            {
                // The answer was kept after its session was erased.
                let forget = idempotency::forget(repository.pool(), self.reader_id, key);
                with_deadline(READ_DEADLINE, forget).await?;
                return Err(CommandError::Conflict);
            }
            let position = read::position(repository.pool(), *id, known.sequence);
            return Ok(Some(with_deadline(READ_DEADLINE, position).await?));
        }
        for (id, after) in self.touched {
            drop(repository.keep(id, after));
        }
        let position = positions.last().copied();
        if let Some(position) = position.filter(|_| claims) {
            self.inner.claimed(self.reader_id, position);
        }
        Ok(position)
    }
}
