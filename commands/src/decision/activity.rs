//! The active session of the reader, and how a command changes it.

use domain::event::EndReason;
use domain::{SessionCommand, SessionId, Timestamp};
use eventlog::active_claims::ReaderActivity;

use super::{Deciding, Missing, Undecided};

impl Deciding<'_> {
    /// The reader's activity after the events so far.
    pub(super) fn activity(&mut self) -> Result<&mut ReaderActivity, Missing> {
        if self.decision.before.is_none() {
            let known = self.known.activity.as_ref().ok_or(Missing::Activity)?;
            self.decision.before = Some(*known);
            self.decision.after = *known;
        }
        Ok(&mut self.decision.after)
    }

    /// The time of the reader's newest observation outside a session.
    pub(super) fn newest_elsewhere(&mut self, id: SessionId) -> Result<Option<Timestamp>, Missing> {
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
    pub(super) fn take_over(&mut self, id: SessionId) -> Result<(), Undecided> {
        self.supersede_active(id)?;
        self.activity()?.active = Some(id);
        Ok(())
    }

    /// Ends the active session provisionally, unless it is `id`.
    pub(super) fn supersede_active(&mut self, id: SessionId) -> Result<(), Undecided> {
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
    pub(super) fn release(&mut self, id: SessionId, newest: Timestamp) {
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
    pub(super) fn note_newest(
        &mut self,
        id: SessionId,
        newest: Timestamp,
    ) -> Result<(), Undecided> {
        let elsewhere = self.newest_elsewhere(id)?;
        if elsewhere.is_none_or(|elsewhere| elsewhere < newest) {
            self.supersede_active(id)?;
            let activity = self.activity()?;
            activity.newest = activity.newest.max(Some(newest));
        }
        Ok(())
    }
}
