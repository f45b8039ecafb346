//! The aggregate: one reading session. [`ReadingSession::decide`] returns the
//! events that a command produces. [`ReadingSession::apply`] updates the state by
//! one event. Both are pure. cqrs-es runs the same two functions through its
//! `Aggregate` trait.

mod progress;

use chrono::TimeDelta;
use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

pub use progress::{Ending, Observation, ProgressChange, SessionProgress};

use crate::{
    EndSession, PositionUpdated, SessionCommand, SessionEnded, SessionError, SessionEvent,
    SessionStarted, StartSession, Timestamp, UpdatePosition,
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

    /// Returns the events that a command produces, or the reason for its refusal.
    /// A repeated start produces no event.
    pub fn decide(
        &self,
        command: SessionCommand,
        rules: Rules,
    ) -> Result<Vec<SessionEvent>, SessionError> {
        match (command, &self.0) {
            (SessionCommand::Start(command), SessionState::Empty) => Ok(vec![start(command)]),
            (SessionCommand::Start(command), SessionState::Started(session)) => {
                session.repeat_start(&command)
            }
            // A new session needs a new id.
            (SessionCommand::Start(_), SessionState::Erased) => Err(SessionError::AlreadyStarted),
            (_, SessionState::Empty | SessionState::Erased) => Err(SessionError::NotFound),
            (SessionCommand::UpdatePosition(command), SessionState::Started(session)) => {
                Ok(vec![session.update_position(command, rules)?])
            }
            (SessionCommand::End(command), SessionState::Started(session)) => {
                Ok(vec![session.end(&command, rules)?])
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
                    session.progress.apply(change);
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
        position: command.position,
        device_type: command.device_type,
        device_id: command.device_id,
        time_zone: command.time_zone,
        locator: command.locator,
        book: command.book,
    })
}

impl StartedSession {
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.progress.ended.is_none()
    }

    /// The time from the start to the end, or to the latest observation while the
    /// session is active.
    #[must_use]
    pub fn duration(&self) -> TimeDelta {
        let end = match self.progress.ended {
            Some(ending) => ending.at,
            None => self.progress.latest.at,
        };
        end - self.start.started_at
    }

    /// A start with the same reader, book and position is a repeat and produces no
    /// event. Any other start with this session's id is refused.
    fn repeat_start(&self, command: &StartSession) -> Result<Vec<SessionEvent>, SessionError> {
        let same = self.start.reader_id == command.reader_id
            && self.start.book_id == command.book_id
            && self.start.position == command.position;
        if same {
            Ok(Vec::new())
        } else {
            Err(SessionError::AlreadyStarted)
        }
    }

    fn update_position(
        &self,
        command: UpdatePosition,
        rules: Rules,
    ) -> Result<SessionEvent, SessionError> {
        if !self.is_active() {
            return Err(SessionError::Inactive);
        }
        let latest = &self.progress.latest;
        let observation = Observation {
            // Without a client's time, the order of arrival decides, even if
            // the servers' clocks disagree.
            at: match command.occurred.client {
                Some(at) => at,
                None => command.occurred.received.max(latest.at),
            },
            position: command.position,
            locator: command.locator,
        };
        let applied = command.occurred.client.is_none() || observation > *latest;
        let credited_ms = if applied {
            credit(latest.at, observation.at, rules)
        } else {
            0
        };
        Ok(SessionEvent::PositionUpdated(PositionUpdated {
            reader_id: self.start.reader_id,
            occurred_at: observation.at,
            position: observation.position,
            locator: observation.locator,
            applied,
            previous_at: latest.at,
            previous_position: latest.position,
            credited_ms,
            active_ms: self.progress.active_ms + credited_ms,
            furthest_position: self.progress.furthest_position.max(observation.position),
            time_zone: self.start.time_zone,
        }))
    }

    fn end(&self, command: &EndSession, rules: Rules) -> Result<SessionEvent, SessionError> {
        if !self.is_active() {
            return Err(SessionError::AlreadyEnded);
        }
        let latest = &self.progress.latest;
        let at = command.occurred.at();
        // The final position counts unless it is older than the latest
        // observation. A session never ends before its latest observation.
        let position = match command.position {
            Some(position) if at >= latest.at || command.occurred.client.is_none() => position,
            _ => latest.position,
        };
        let ended_at = at.max(latest.at);
        let credited_ms = credit(latest.at, ended_at, rules);
        Ok(SessionEvent::SessionEnded(SessionEnded {
            reader_id: self.start.reader_id,
            book_id: self.start.book_id,
            reason: command.reason,
            started_at: self.start.started_at,
            ended_at,
            elapsed_ms: (ended_at - self.start.started_at).num_milliseconds(),
            start_position: self.start.position,
            position,
            locator: latest
                .locator
                .clone()
                .filter(|_| position == latest.position),
            previous_at: latest.at,
            previous_position: latest.position,
            credited_ms,
            active_ms: self.progress.active_ms + credited_ms,
            furthest_position: self
                .progress
                .furthest_position
                .max(command.position.unwrap_or(position)),
            time_zone: self.start.time_zone,
        }))
    }
}

/// The active time between two observations in milliseconds: the gap, limited to
/// [`Rules::active_gap`].
fn credit(from: Timestamp, to: Timestamp, rules: Rules) -> i64 {
    (to - from)
        .clamp(TimeDelta::zero(), rules.active_gap)
        .num_milliseconds()
}

/// The aggregate as cqrs-es runs it. Its services are the [`Rules`], so that
/// `handle` returns the same events as [`ReadingSession::decide`].
///
/// Use it with cqrs-es's plain event store only. In cqrs-es 0.5.0,
/// `EventSink::write` applies each event to the aggregate, and the snapshot and
/// aggregate stores apply it again on commit.
impl Aggregate for ReadingSession {
    const TYPE: &'static str = "reading_session";
    type Command = SessionCommand;
    type Event = SessionEvent;
    type Error = SessionError;
    type Services = Rules;

    async fn handle(
        &mut self,
        command: SessionCommand,
        rules: &Rules,
        sink: &EventSink<Self>,
    ) -> Result<(), SessionError> {
        for event in self.decide(command, *rules)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: SessionEvent) {
        Self::apply(self, &event);
    }
}

#[cfg(test)]
mod tests;
