//! Whole sessions, as a device recorded them.

use domain::session::StartedSession;
use domain::{
    Observation, SessionCommand, SessionError, Standing, StartSession, Timestamp, UpdatePosition,
};

use super::{Deciding, Undecided};
use crate::command::SyncSession;

impl Deciding<'_> {
    /// Merges a whole session. Its observations after its own end are refused, as if the
    /// end had arrived before them.
    pub(super) fn sync(&mut self, sync: &SyncSession) -> Result<(), Undecided> {
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
    pub(super) fn start_synced(&mut self, sync: &SyncSession) -> Result<(), Undecided> {
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
