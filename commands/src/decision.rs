//! Decides a command of a reader. Pure: what a decision needs and does not know yet is
//! returned as [`Missing`]; the caller loads it and decides again.
//!
//! The rules of one session are in `domain`. Here are the rules that involve several
//! sessions of a reader: which one is active, and in which order a batch takes effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::error::DecideError;
use domain::event::EndReason;
use domain::session::{Rules, StartedSession};
use domain::{
    EndSession, Observation, ReaderId, SessionCommand, SessionError, SessionEvent, SessionId,
    Standing, StartSession, Timeline, Timestamp, UpdatePosition, ZoneName,
};
use eventlog::active_claims::{IdleSession, ReaderActivity};
use eventlog::append::ActiveClaimChange;

use crate::command::{Command, SyncSession};
use crate::repository::VersionedSession;
use crate::result::Observed;

/// What is known about a reader when a command is decided.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Sessions as of some moment. An append detects if one is outdated.
    pub(crate) sessions: BTreeMap<SessionId, Arc<VersionedSession>>,
    /// The sessions that contain all events in the log.
    pub(crate) newest: BTreeSet<SessionId>,
    pub(crate) timelines: BTreeMap<SessionId, Timeline>,
    pub(crate) activity: Option<ReaderActivity>,
    /// The time zone of the reader's last session; UTC if there is none.
    pub(crate) last_zone: Option<ZoneName>,
}

/// What a decision needs and [`Known`] does not contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Session(SessionId),
    /// All events of a session: a refusal appends nothing, so nothing else would detect
    /// that the session is outdated.
    NewestSession(SessionId),
    Timeline(SessionId),
    Activity,
    LastZone,
}

/// A command was not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undecided {
    Missing(Missing),
    /// What is known contradicts itself: the log has changed since a part was loaded.
    Outdated,
    Refused(SessionError),
}

impl From<Missing> for Undecided {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing)
    }
}

impl From<SessionError> for Undecided {
    fn from(refusal: SessionError) -> Self {
        Self::Refused(refusal)
    }
}

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

    /// Adds observations of one session, in the order of their times. Returns their
    /// results in the order of `updates`.
    ///
    /// `pending` is the time of the newest observation of other sessions in the same
    /// command.
    fn observe(
        &mut self,
        id: SessionId,
        updates: &[&UpdatePosition],
        pending: Option<Timestamp>,
    ) -> Result<Vec<Result<Observed, SessionError>>, Undecided> {
        let versioned = self.own(id)?;
        let session = started(&versioned)?;
        let (was_active, is_finished) = (session.is_active(), session.is_finished());
        let latest = &session.progress.latest;
        let newest = updates
            .iter()
            .filter(|update| !update.repeats(latest))
            .filter_map(|update| observed_at(session, update))
            .max();
        let standing = match newest {
            _ if was_active || is_finished => Standing::Active,
            // Only an observation that is newer than all others undoes an end.
            Some(newest) if newest >= latest.at => {
                let elsewhere = self.newest_elsewhere(id)?.max(pending);
                Standing::new(newest, elsewhere)
            }
            _ => Standing::Superseded,
        };
        let mut in_time_order: Vec<usize> = (0..updates.len()).collect();
        in_time_order.sort_by_key(|index| updates[*index].occurred.at());
        let mut results = vec![Err(SessionError::NotFound); updates.len()];
        let events_before = self.decision.events.len();
        for index in in_time_order {
            let update = UpdatePosition {
                standing,
                ..updates[index].clone()
            };
            results[index] = self.add_observation(id, &update)?;
        }
        let added = self.decision.events.len() - events_before;
        if added > 0 && is_finished {
            // An observation of the same moment as the end may be a little later.
            let newest = newest.unwrap_or(session.progress.latest.at);
            self.note_newest(id, newest)?;
        } else if added > 0 && !was_active && standing == Standing::Active {
            self.take_over(id)?;
            // The other session ends first: at most one is active after each event.
            self.decision.events[events_before..].rotate_left(added);
        }
        Ok(results)
    }

    fn add_observation(
        &mut self,
        id: SessionId,
        update: &UpdatePosition,
    ) -> Result<Result<Observed, SessionError>, Undecided> {
        let events_before = self.decision.events.len();
        match self.add(id, SessionCommand::UpdatePosition(update.clone())) {
            Ok(()) => {}
            Err(Undecided::Refused(refusal)) => return Ok(Err(refusal)),
            Err(missing) => return Err(missing),
        }
        let versioned = self.session(id)?;
        let added = self
            .decision
            .events
            .get(events_before..)
            .and_then(<[_]>::last);
        let applied = if let Some((_, _, SessionEvent::PositionUpdated(event))) = added {
            event.applied
        } else {
            // A repeat.
            let session = versioned.session.started();
            session.is_some_and(|session| update.repeats(&session.progress.latest))
        };
        Ok(Ok(Observed {
            version: versioned.sequence,
            applied,
            is_new: added.is_some(),
        }))
    }

    /// Adds the observations of several sessions. A refused one does not affect the
    /// others.
    fn update_batch(&mut self, updates: &[(SessionId, &UpdatePosition)]) -> Result<(), Undecided> {
        self.decision.results = vec![Err(SessionError::NotFound); updates.len()];
        let mut by_session: BTreeMap<SessionId, Vec<usize>> = BTreeMap::new();
        for (index, (id, _)) in updates.iter().enumerate() {
            by_session.entry(*id).or_default().push(index);
        }
        // The newest observation of each session; the session with the newest one of all
        // comes last, so that it becomes active and no other does in between.
        let mut sessions = Vec::with_capacity(by_session.len());
        for (id, indexes) in by_session {
            let versioned = self.session(id)?;
            let newest = match versioned.session.started() {
                Some(session) if versioned.is_owned_by(self.decision.reader_id) => indexes
                    .iter()
                    .filter_map(|index| observed_at(session, updates[*index].1))
                    .max(),
                _ => None,
            };
            sessions.push((newest, indexes.last().copied(), id, indexes));
        }
        sessions.sort_unstable();
        for position in 0..sessions.len() {
            let (_, _, id, indexes) = &sessions[position];
            let pending = sessions[position + 1..].iter().map(|other| other.0).max();
            let own: Vec<&UpdatePosition> = indexes.iter().map(|index| updates[*index].1).collect();
            match self.observe(*id, &own, pending.flatten()) {
                Ok(results) => {
                    for (index, result) in indexes.iter().zip(results) {
                        self.decision.results[*index] = result;
                    }
                }
                Err(Undecided::Refused(refusal)) => {
                    for index in indexes {
                        self.decision.results[*index] = Err(refusal);
                    }
                }
                Err(missing) => return Err(missing),
            }
        }
        Ok(())
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
        if versioned.sequence < idle.sequence {
            return Err(Missing::NewestSession(id).into());
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

    /// Merges a whole session. Its observations after its own end are refused, as if the
    /// end had arrived before them.
    fn sync(&mut self, sync: &SyncSession) -> Result<(), Undecided> {
        let id = sync.session_id;
        let versioned = self.session(id)?;
        let existing = versioned.session.started();
        let first = existing.and_then(|session| first_observation(session, sync));
        if versioned.sequence == 0 {
            self.start_synced(sync)?;
        } else if !versioned.is_owned_by(self.decision.reader_id)
            || existing.is_none_or(|session| session.start.book_id != sync.start.book_id)
        {
            self.check_newest(id)?;
            return Err(SessionError::AlreadyStarted.into());
        }
        let is_finished = existing.is_some_and(StartedSession::is_finished);
        let end = sync.end.as_ref().filter(|_| !is_finished);
        let (indexes, mut observations): (Vec<_>, Vec<_>) = sync
            .observations
            .iter()
            .enumerate()
            .filter(|(_, update)| end.is_none_or(|end| update.occurred.at() <= end.occurred.at()))
            .unzip();
        observations.extend(&first);
        observations.rotate_right(usize::from(first.is_some()));
        let results = self.observe(id, &observations, None)?;
        let results = results.into_iter().skip(usize::from(first.is_some()));
        self.decision.results = vec![Err(SessionError::Inactive); sync.observations.len()];
        for (index, result) in indexes.into_iter().zip(results) {
            self.decision.results[index] = result;
        }
        if let Some(end) = end {
            let newest = self.end(id, end)?;
            self.note_newest(id, newest)?;
        }
        if !self.decision.sessions.contains_key(&id) {
            // A repeat of the start alone.
            self.check_newest(id)?;
            self.decision.sessions.insert(id, versioned);
        }
        Ok(())
    }

    /// Starts a session whose further observations follow in the same command.
    fn start_synced(&mut self, sync: &SyncSession) -> Result<(), Undecided> {
        let start = self.with_zone(&sync.start)?;
        let times = sync.observations.iter().map(|update| update.occurred.at());
        let latest = times.fold(start.occurred.at(), Timestamp::max);
        let elsewhere = match sync.end {
            // It never becomes active.
            Some(_) => Some(Timestamp::MAX_UTC),
            None => self.newest_elsewhere(sync.session_id)?,
        };
        let standing = Standing::new(latest, elsewhere);
        if standing == Standing::Active {
            self.take_over(sync.session_id)?;
        }
        let start = StartSession { standing, ..start };
        self.add(sync.session_id, SessionCommand::Start(start))
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
        let decided = before
            .session
            .decide(command, self.rules, timeline.as_deref());
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

    /// The reader's activity after the events so far.
    fn activity(&mut self) -> Result<&mut ReaderActivity, Missing> {
        if self.decision.before.is_none() {
            let known = self.known.activity.as_ref().ok_or(Missing::Activity)?;
            self.decision.before = Some(*known);
            self.decision.after = *known;
        }
        Ok(&mut self.decision.after)
    }

    /// The time of the reader's newest observation outside a session.
    fn newest_elsewhere(&mut self, id: SessionId) -> Result<Option<Timestamp>, Missing> {
        let ReaderActivity { active, newest } = *self.activity()?;
        let Some(active) = active.filter(|active| *active != id) else {
            return Ok(newest);
        };
        let versioned = self.session(active)?;
        let latest = versioned
            .session
            .started()
            .map(|session| session.progress.latest.at);
        Ok(newest.max(latest))
    }

    /// Makes a session the active one and ends the one that was active before.
    fn take_over(&mut self, id: SessionId) -> Result<(), Undecided> {
        self.supersede_active(id)?;
        self.activity()?.active = Some(id);
        Ok(())
    }

    /// Ends the active session provisionally, unless it is `id`.
    fn supersede_active(&mut self, id: SessionId) -> Result<(), Undecided> {
        let Some(active) = self.activity()?.active.filter(|active| *active != id) else {
            return Ok(());
        };
        match self.add(active, SessionCommand::Deactivate(EndReason::Superseded)) {
            Ok(()) => {}
            // It was ended or erased after its claim was read.
            Err(Undecided::Refused(_)) => return Err(Undecided::Outdated),
            Err(undecided) => return Err(undecided),
        }
        self.activity()?.active = None;
        Ok(())
    }

    /// The active session stops being active; `newest` is its newest observation.
    fn release(&mut self, id: SessionId, newest: Timestamp) {
        if self.decision.before.is_none() {
            // An active session has the claim, so nothing needs to be read.
            let active = ReaderActivity {
                active: Some(id),
                newest: None,
            };
            self.decision.before = Some(active);
            self.decision.after = active;
        }
        self.decision.after.active = None;
        self.decision.after.newest = self.decision.after.newest.max(Some(newest));
    }

    /// Records that a session which its reader has ended has an observation at `newest`.
    /// If it is the reader's newest one, then no session is active.
    fn note_newest(&mut self, id: SessionId, newest: Timestamp) -> Result<(), Undecided> {
        let elsewhere = self.newest_elsewhere(id)?;
        if elsewhere.is_none_or(|elsewhere| elsewhere < newest) {
            self.supersede_active(id)?;
            let activity = self.activity()?;
            activity.newest = activity.newest.max(Some(newest));
        }
        Ok(())
    }
}

fn started(versioned: &VersionedSession) -> Result<&StartedSession, SessionError> {
    versioned.session.started().ok_or(SessionError::NotFound)
}

/// The time at which a session observes an update; `None` if it refuses it.
fn observed_at(session: &StartedSession, update: &UpdatePosition) -> Option<Timestamp> {
    let latest = session.progress.latest.at;
    let ended = session.progress.ended.filter(|ending| ending.is_final());
    match (update.occurred.client, ended) {
        (Some(at), Some(end)) => (at <= end.at).then_some(at),
        (Some(at), None) => Some(at),
        (None, Some(_)) => None,
        (None, None) => Some(update.occurred.received.max(latest)),
    }
}

/// The start of a synced session, as an observation of the session that exists. Without a
/// start position, the reader was where that session started. `None` if it is its start.
fn first_observation(session: &StartedSession, sync: &SyncSession) -> Option<UpdatePosition> {
    let first = UpdatePosition {
        position: sync.start_position.unwrap_or(session.start.position),
        locator: None,
        occurred: sync.start.occurred,
        standing: Standing::Active,
    };
    let start = Observation {
        at: session.start.started_at,
        device_time: session.start.device_time,
        position: session.start.position,
        locator: None,
    };
    Some(first).filter(|first| !first.repeats(&start))
}

#[cfg(test)]
mod properties;
