//! The aggregate: one reading session. [`ReadingSession::decide`] returns the
//! events that a command produces. [`ReadingSession::apply`] updates the state by
//! one event. Both are pure.
//!
//! A session is a set of observations: its state does not depend on the order in which
//! they arrive. An observation that is newer than all others needs only this state.
//! Other decisions also need the [`Timeline`] of all observations.

mod complete;
mod decide;
mod progress;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

pub use complete::CompleteSession;
pub use progress::{Ending, ProgressChange, SessionProgress};

use crate::error::DecideError;
use crate::{
    FirstObservation, SessionCommand, SessionError, SessionEvent, SessionStarted, StartSession,
    Timeline,
};

/// The default of [`Rules::active_gap`]. It is short, because a book left open
/// overnight is not reading time.
pub const DEFAULT_ACTIVE_GAP: TimeDelta = TimeDelta::seconds(120);

/// The rules that each deployment can configure.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The maximum active time credited for the gap between two observations.
    /// It must not be negative.
    pub active_gap: TimeDelta,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            active_gap: DEFAULT_ACTIVE_GAP,
        }
    }
}

/// A reading session. Its default is the empty state before the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingSession(SessionState);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every session was started"
)]
enum SessionState {
    #[default]
    Empty,
    Started(StartedSession),
    /// Permanent: the session cannot be found, and its id cannot be used again.
    Erased,
}

/// A session that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedSession {
    /// The values that do not change after the start.
    pub start: SessionStarted,
    /// The values that later events change.
    pub progress: SessionProgress,
}

impl ReadingSession {
    /// The session; `None` before its start and after its erasure.
    #[must_use]
    pub fn started(&self) -> Option<&StartedSession> {
        match &self.0 {
            SessionState::Started(session) => Some(session),
            SessionState::Empty | SessionState::Erased => None,
        }
    }

    /// Returns the events that a command produces. A repeated start and a repeated
    /// observation produce none. `timeline` contains all observations of the session;
    /// `None` if the caller has not loaded them.
    ///
    /// # Errors
    /// [`DecideError::Refused`] if the command is refused, and
    /// [`DecideError::TimelineNeeded`] if it cannot be decided without the timeline.
    pub fn decide(
        &self,
        command: SessionCommand,
        rules: Rules,
        timeline: Option<&Timeline>,
    ) -> Result<Vec<SessionEvent>, DecideError> {
        match (command, &self.0) {
            (SessionCommand::Start(command), SessionState::Empty) => Ok(vec![start(command)]),
            (SessionCommand::Start(command), SessionState::Started(session)) => {
                session.repeat_start(&command)
            }
            // A new session needs a new id.
            (SessionCommand::Start(_), SessionState::Erased) => {
                Err(SessionError::AlreadyStarted.into())
            }
            (_, SessionState::Empty | SessionState::Erased) => Err(SessionError::NotFound.into()),
            (SessionCommand::UpdatePosition(command), SessionState::Started(session)) => {
                session.update_position(command, rules, timeline)
            }
            (SessionCommand::End(command), SessionState::Started(session)) => {
                session.end(command, rules, timeline)
            }
            (SessionCommand::Deactivate(reason), SessionState::Started(session)) => {
                session.deactivate(reason)
            }
            (SessionCommand::Correct(command), SessionState::Started(session)) => {
                session.correct(command, rules, timeline)
            }
        }
    }

    /// Updates the state by one event. An event before the start and a second
    /// start are ignored; [`Self::decide`] produces neither.
    ///
    /// A single erasure event erases the session, wherever it is among the other
    /// events: an erasure in progress has overwritten only some of them.
    pub fn apply(&mut self, event: &SessionEvent) {
        match (event, &mut self.0) {
            (SessionEvent::SessionErased(_), state) => *state = SessionState::Erased,
            (SessionEvent::SessionStarted(started), empty @ SessionState::Empty) => {
                *empty = SessionState::Started(StartedSession {
                    progress: SessionProgress::at_start(started),
                    start: started.clone(),
                });
            }
            (SessionEvent::SessionStarted(_), SessionState::Started(_))
            | (_, SessionState::Empty | SessionState::Erased) => {}
            (event, SessionState::Started(session)) => {
                if let Some(change) = event.progress_change() {
                    session.apply(change);
                }
            }
        }
    }

    /// The state after all `events`, in the order of the log.
    #[must_use]
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a SessionEvent>) -> Self {
        let mut session = Self::default();
        for event in events {
            session.apply(event);
        }
        session
    }
}

fn start(command: StartSession) -> SessionEvent {
    SessionEvent::SessionStarted(SessionStarted {
        reader_id: command.reader_id,
        book_id: command.book_id,
        started_at: command.occurred.at(),
        device_time: command.occurred.device_time,
        position: command.position,
        device_type: command.device_type,
        device_id: command.device_id,
        time_zone: command.time_zone.unwrap_or_default(),
        locator: command.locator,
        book: command.book,
        end_reason: command.standing.end_reason(),
    })
}

impl StartedSession {
    /// Applies a change to the progress.
    pub fn apply(&mut self, mut change: ProgressChange) {
        let start = self.start_as_first();
        change.first = change.first.filter(|first| *first != start);
        self.progress.apply(change);
    }

    #[must_use]
    pub fn is_active(&self) -> bool {
        self.progress.ended.is_none()
    }

    /// Whether the reader has ended the session.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.progress.ended.is_some_and(Ending::is_final)
    }

    /// The first observation: the start, unless another one precedes it.
    #[must_use]
    pub fn first(&self) -> FirstObservation {
        self.progress.first.unwrap_or(self.start_as_first())
    }

    fn start_as_first(&self) -> FirstObservation {
        FirstObservation {
            at: self.start.started_at,
            position: self.start.position,
        }
    }

    /// The time from the start to the end, or to the latest observation while the
    /// session is active.
    #[must_use]
    pub fn duration(&self) -> TimeDelta {
        let ended = self.progress.ended.map(|ending| ending.at);
        ended.unwrap_or(self.progress.latest.at) - self.first().at
    }
}

#[cfg(test)]
mod tests;
