//! Decides a command of a reader. Pure: if a decision needs state that is not loaded, it
//! returns [`Missing`]; the caller loads it and decides again.
//!
//! The rules of one session are in `domain`. Here are the rules that involve several
//! sessions of a reader: which one is active, and in which order a batch takes effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::error::DecideError;
use domain::event::EndReason;
use domain::session::{Rules, StartedSession};
use domain::{
    EndSession, ReaderId, SessionCommand, SessionError, SessionEvent, SessionId, Standing,
    StartSession, Timeline, Timestamp,
};
use eventlog::active_claims::{IdleSession, ReaderActivity};
use eventlog::append::ActiveClaimChange;

use crate::command::Command;
use crate::repository::VersionedSession;
use crate::result::Observed;

mod known;

mod activity;
mod observations;
mod sync;

pub(crate) use known::{Known, Missing, Undecided};

/// The effect of a command. Nothing is written yet.
#[derive(Debug)]
pub(crate) struct Decision {
    reader_id: ReaderId,
    /// The sessions that the command concerns, after its events.
    pub(crate) sessions: BTreeMap<SessionId, Arc<VersionedSession>>,
    /// Session, sequence and event, in order.
    pub(crate) events: Vec<(SessionId, i64, SessionEvent)>,
    /// The reader's activity before the command; `None` if the command does not depend
    /// on it.
    before: Option<ReaderActivity>,
    /// The reader's activity after the command.
    after: ReaderActivity,
    /// The result of each observation of a batch or a sync, in the order of the request.
    pub(crate) results: Vec<Result<Observed, SessionError>>,
}

/// Decides a command.
pub(crate) fn decide(
    known: &Known,
    reader_id: ReaderId,
    command: &Command,
    rules: Rules,
) -> Result<Decision, Undecided> {
    let mut decision = Deciding {
        known,
        rules,
        timelines: BTreeMap::new(),
        decision: Decision {
            reader_id,
            sessions: BTreeMap::new(),
            events: Vec::new(),
            before: None,
            after: ReaderActivity::default(),
            results: Vec::new(),
        },
    };
    match command {
        Command::Start { session_id, start } => decision.start(*session_id, start)?,
        Command::UpdatePosition { session_id, update } => {
            let results = decision.observe(*session_id, &[update], None)?;
            for result in results {
                decision.decision.results.push(Ok(result?));
            }
        }
        Command::UpdateBatch(updates) => {
            let updates: Vec<_> = updates
                .iter()
                .map(|update| (update.session_id, &update.update))
                .collect();
            decision.update_batch(&updates)?;
        }
        Command::End { session_id, end } => {
            decision.end(*session_id, end)?;
        }
        Command::EndIdle(idle) => decision.end_idle(*idle)?,
        Command::Sync(sync) => decision.sync(sync)?,
        Command::Correct {
            session_id,
            correction,
        } => {
            decision.own(*session_id)?;
            decision.add(*session_id, SessionCommand::Correct(*correction))?;
        }
    }
    Ok(decision.decision)
}

impl Decision {
    /// How the reader's active-session claim changes, if the command depends on it. A
    /// change to the same session only asserts that the claim is as expected.
    pub(crate) fn claim(&self) -> Option<ActiveClaimChange> {
        let before = self.before.as_ref()?;
        Some(ActiveClaimChange {
            reader_id: self.reader_id,
            expected: before.active,
            next: self.after.active,
            expected_newest: before.newest,
            next_newest: self
                .after
                .newest
                .filter(|_| self.after.newest != before.newest),
        })
    }

    /// Whether the reader's active session is another one after the command.
    pub(crate) fn changes_activity(&self) -> bool {
        let before = self.before.as_ref();
        before.is_some_and(|before| before.active != self.after.active)
    }
}

/// A command that is being decided.
struct Deciding<'a> {
    known: &'a Known,
    rules: Rules,
    /// The timelines that the decision has used, after its events.
    timelines: BTreeMap<SessionId, Timeline>,
    decision: Decision,
}

impl Deciding<'_> {
    fn start(&mut self, id: SessionId, start: &StartSession) -> Result<(), Undecided> {
        if self.session(id)?.sequence > 0 {
            // A repeat, or the id is in use: both append nothing.
            return self.add(id, SessionCommand::Start(start.clone()));
        }
        let start = self.with_zone(start)?;
        let at = start.occurred.at();
        let elsewhere = self.newest_elsewhere(id)?;
        let standing = Standing::new(at, elsewhere);
        if standing == Standing::Active {
            self.take_over(id)?;
        }
        let start = StartSession { standing, ..start };
        self.add(id, SessionCommand::Start(start))
    }

    /// The start with a time zone: that of the reader's last session if it has none.
    fn with_zone(&self, start: &StartSession) -> Result<StartSession, Missing> {
        let mut start = start.clone();
        if start.time_zone.is_none() {
            let last_zone = self.known.last_zone.as_ref().ok_or(Missing::LastZone)?;
            start.time_zone = Some(last_zone.clone());
        }
        Ok(start)
    }

    /// Returns the time of the session's newest observation, which the end is not. It can
    /// be after the end: then it no longer counts in the session, but no other session
    /// becomes active for that.
    fn end(&mut self, id: SessionId, end: &EndSession) -> Result<Timestamp, Undecided> {
        let versioned = self.own(id)?;
        let session = started(&versioned)?;
        self.add(id, SessionCommand::End(end.clone()))?;
        let newest = session.progress.latest.at;
        if session.is_active() {
            self.release(id, newest);
        }
        Ok(newest)
    }

    /// Ends an idle session. Does nothing if it has received an event since it was found
    /// idle.
    fn end_idle(&mut self, idle: IdleSession) -> Result<(), Undecided> {
        let id = idle.session_id;
        let versioned = self.session(id)?;
        if versioned.sequence != idle.sequence {
            self.check_newest(id)?;
        }
        let session = versioned.session.started();
        let session = session.filter(|session| session.is_active());
        let Some(session) = session.filter(|_| versioned.sequence == idle.sequence) else {
            return Ok(());
        };
        self.add(id, SessionCommand::Deactivate(EndReason::Idle))?;
        self.release(id, session.progress.latest.at);
        Ok(())
    }

    /// The session after the events that this command has produced so far.
    fn session(&self, id: SessionId) -> Result<Arc<VersionedSession>, Missing> {
        let session = self
            .decision
            .sessions
            .get(&id)
            .or_else(|| self.known.sessions.get(&id));
        session.map(Arc::clone).ok_or(Missing::Session(id))
    }

    /// The session, if it belongs to the reader. Another reader's session is refused in
    /// the same way as a missing one.
    fn own(&self, id: SessionId) -> Result<Arc<VersionedSession>, Undecided> {
        let versioned = self.session(id)?;
        if versioned.is_owned_by(self.decision.reader_id) {
            return Ok(versioned);
        }
        self.check_newest(id)?;
        Err(SessionError::NotFound.into())
    }

    fn check_newest(&self, id: SessionId) -> Result<(), Missing> {
        // An empty state was just read from the log: the cache has none.
        let is_newest = self.session(id)?.sequence == 0 || self.known.newest.contains(&id);
        if is_newest {
            Ok(())
        } else {
            Err(Missing::NewestSession(id))
        }
    }

    /// Adds the events that a command for one session produces.
    fn add(&mut self, id: SessionId, command: SessionCommand) -> Result<(), Undecided> {
        let before = self.session(id)?;
        if let Some(known) = self.known.timelines.get(&id) {
            self.timelines.entry(id).or_insert_with(|| known.clone());
        }
        let timeline = self.timelines.get_mut(&id);
        let neighbours = match (&timeline, &before.recent) {
            (None, Some(recent)) => recent.neighbours(&command),
            _ => None,
        };
        let observations = timeline.as_deref().or(neighbours.as_ref());
        let decided = before.session.decide(command, self.rules, observations);
        let events = match decided {
            Ok(events) => events,
            Err(DecideError::TimelineNeeded) => return Err(Missing::Timeline(id).into()),
            Err(DecideError::Refused(refusal)) => {
                self.check_newest(id)?;
                return Err(refusal.into());
            }
        };
        if let Some(timeline) = timeline {
            for event in &events {
                timeline.apply(event);
            }
        }
        if events.is_empty() {
            self.check_newest(id)?;
        }
        let after = before.then(&events);
        let events = (before.sequence + 1..).zip(events);
        self.decision
            .events
            .extend(events.map(|(sequence, event)| (id, sequence, event)));
        self.decision.sessions.insert(id, Arc::new(after));
        Ok(())
    }
}

fn started(versioned: &VersionedSession) -> Result<&StartedSession, SessionError> {
    versioned.session.started().ok_or(SessionError::NotFound)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
