//! Observations of one session or of several.

use std::collections::BTreeMap;

use domain::session::StartedSession;
use domain::{
    SessionCommand, SessionError, SessionEvent, SessionId, Standing, Timestamp, UpdatePosition,
};

use super::{Deciding, Undecided, started};
use crate::result::Observed;

impl Deciding<'_> {
    /// Adds observations of one session, in the order of their times. Returns their
    /// results in the order of `updates`.
    ///
    /// `pending` is the time of the newest observation of other sessions in the same
    /// command.
    pub(super) fn observe(
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

    pub(super) fn add_observation(
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
    pub(super) fn update_batch(
        &mut self,
        updates: &[(SessionId, &UpdatePosition)],
    ) -> Result<(), Undecided> {
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
