//! Loads from the log what the decision of a command needs, until it is decided. Writes
//! nothing.

use std::sync::Arc;

use domain::{ReaderId, RecentTimes, ZoneName};
use eventlog::{active_claims, load_state};

use crate::CommandError;
use crate::command::Command;
use crate::decision::{self, Decision, Known, Missing, Undecided};
use crate::executor::Executor;

/// Maximum number of loads for one decision. A batch has 50 sessions at most. Each may
/// need its state, its timeline, its newest state, and its timeline again.
const MAX_LOADS: usize = 256;

/// A command that is not decided yet, and what is known for its decision.
pub(crate) struct PendingCommand<'a> {
    executor: &'a Executor,
    reader_id: ReaderId,
    /// Whether to read the events that other processes appended. `true` after a
    /// conflict.
    newest: bool,
    known: Known,
}

impl<'a> PendingCommand<'a> {
    pub(crate) fn new(executor: &'a Executor, reader_id: ReaderId, newest: bool) -> Self {
        Self {
            executor,
            reader_id,
            newest,
            known: Known::default(),
        }
    }

    /// Loads what the command needs and decides it.
    ///
    /// # Errors
    /// [`CommandError::Refused`] if the domain refuses the command, and
    /// [`CommandError::Conflict`] if the sessions changed while they were loaded.
    pub(crate) async fn decide(&mut self, command: &Command) -> Result<Decision, CommandError> {
        for _ in 0..MAX_LOADS {
            match decision::decide(&self.known, self.reader_id, command, self.executor.rules) {
                Ok(decision) => return Ok(decision),
                Err(Undecided::Missing(missing)) if self.take_from_cache(missing) => {}
                // Boxed, so that the future of a command without loads stays small.
                Err(Undecided::Missing(missing)) => Box::pin(self.load(missing)).await?,
                Err(Undecided::Refused(refusal)) => return Err(refusal.into()),
                Err(Undecided::Outdated) => return Err(CommandError::Conflict),
            }
        }
        Err(CommandError::Conflict)
    }

    /// Takes a missing session from the cache. Returns whether the cache contains it.
    fn take_from_cache(&mut self, missing: Missing) -> bool {
        if let Missing::Session(id) = missing
            && !self.newest
            && let Some(session) = self.executor.repository.cached(id)
        {
            self.known.sessions.insert(id, session);
            return true;
        }
        false
    }

    async fn load(&mut self, missing: Missing) -> Result<(), CommandError> {
        let repository = &self.executor.repository;
        let pool = repository.pool();
        match missing {
            Missing::Session(id) if !self.newest => {
                let session = repository.load(id).await?;
                self.known.sessions.insert(id, session);
            }
            Missing::Session(id) | Missing::NewestSession(id) => {
                let session = repository.load_newest(id).await?;
                // Its timeline may lack the events that are new here. The append would
                // not detect that: it compares the session's sequence only.
                self.known.timelines.remove(&id);
                self.known.sessions.insert(id, session);
                self.known.newest.insert(id);
            }
            Missing::Timeline(id) => {
                let sequence = self
                    .known
                    .sessions
                    .get(&id)
                    .map_or(0, |known| known.sequence);
                let timeline = load_state::timeline(pool, id, sequence).await?;
                if let Some(known) = self.known.sessions.get_mut(&id) {
                    Arc::make_mut(known).recent = RecentTimes::new(&timeline);
                }
                self.known.timelines.insert(id, timeline);
            }
            Missing::Activity => {
                let activity = active_claims::reader_activity(pool, self.reader_id).await?;
                self.known.activity = Some(activity);
            }
            Missing::LastZone => {
                let zone = active_claims::last_time_zone(pool, self.reader_id).await?;
                self.known.last_zone = Some(zone.as_deref().map_or(ZoneName::UTC, ZoneName::new));
            }
        }
        Ok(())
    }
}
