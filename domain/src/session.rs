//! The aggregate: one reading session. [`ReadingSession::decide`] says which
//! events a command leads to, [`ReadingSession::apply`] moves the state on.
//! Both are pure; neither reads a clock.

use chrono::TimeDelta;
use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use crate::event::EndReason;
use crate::{
    EndSession, Position, PositionUpdated, SessionCommand, SessionEnded, SessionError,
    SessionEvent, SessionStarted, StartSession, Timestamp, UpdatePosition,
};

/// The longest gap between two observations that counts as reading, unless
/// the service is set otherwise. A book left open overnight is not reading
/// time.
pub const DEFAULT_ACTIVE_GAP: TimeDelta = TimeDelta::seconds(120);

/// Rules that a deployment may set.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The longest gap between two observations that counts as reading; not
    /// negative.
    pub active_gap: TimeDelta,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            active_gap: DEFAULT_ACTIVE_GAP,
        }
    }
}

/// A reading session; before its start it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingSession(State);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every session was started"
)]
enum State {
    #[default]
    Empty,
    Started(Session),
    /// As good as none, and for good.
    Erased,
}

/// A session that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// What does not change after the start.
    pub start: SessionStarted,
    /// Where the session stands.
    pub progress: Progress,
}

/// Where a session stands after an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The newest observation.
    pub latest: Observation,
    /// The furthest position of all observations, late ones too.
    pub furthest_position: Position,
    /// Active reading time, in milliseconds.
    pub active_ms: i64,
    /// Whether and how it ended.
    pub ended: Option<Ending>,
}

/// Where a reader was seen, and when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Observation {
    /// When. Comes first: observations are ordered by time, and those of the
    /// same moment by place, so that the order of arrival does not matter.
    pub at: Timestamp,
    /// Where in the book.
    pub position: Position,
    /// The exact place, opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
}

/// What an event says about a session's progress, without knowing what was
/// before: all of it is absolute, so of many the last one holds. `latest` is
/// `None` when the event did not move the latest position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressChange {
    /// The newest observation, when this event brought it.
    pub latest: Option<Observation>,
    /// The furthest position.
    pub furthest_position: Position,
    /// Active reading time, in milliseconds.
    pub active_ms: i64,
    /// Whether and how it ended.
    pub ended: Option<Ending>,
}

impl ReadingSession {
    /// The session, when it was started.
    #[must_use]
    pub fn started(&self) -> Option<&Session> {
        match &self.0 {
            State::Started(session) => Some(session),
            State::Empty | State::Erased => None,
        }
    }

    /// The events that a command leads to.
    ///
    /// # Errors
    /// A refusal; it leaves nothing behind.
    pub fn decide(
        &self,
        command: SessionCommand,
        rules: Rules,
    ) -> Result<Vec<SessionEvent>, SessionError> {
        match (command, &self.0) {
            (SessionCommand::Start(command), State::Empty) => Ok(vec![start(command)]),
            (SessionCommand::Start(command), State::Started(session)) => {
                session.start_again(&command)
            }
            // Its id is used up: a new session is another one.
            (SessionCommand::Start(_), State::Erased) => Err(SessionError::AlreadyStarted),
            (_, State::Empty | State::Erased) => Err(SessionError::NotFound),
            (SessionCommand::UpdatePosition(command), State::Started(session)) => {
                Ok(vec![session.update_position(command, rules)?])
            }
            (SessionCommand::End(command), State::Started(session)) => {
                Ok(vec![session.end(&command, rules)?])
            }
        }
    }

    /// Moves the state on by one event. Events of a log that [`Self::decide`]
    /// wrote always fit; an event before the start, or a second start, is
    /// ignored. So is all that stands beside an erasure, before it or after:
    /// of a session that is being erased some events may be written over and
    /// others not yet.
    pub fn apply(&mut self, event: &SessionEvent) {
        match (event, &mut self.0) {
            (SessionEvent::SessionErased(_), state) => *state = State::Erased,
            (SessionEvent::SessionStarted(started), empty @ State::Empty) => {
                *empty = State::Started(Session {
                    progress: Progress::at_start(started),
                    start: started.clone(),
                });
            }
            (SessionEvent::SessionStarted(_), State::Started(_))
            | (_, State::Empty | State::Erased) => {}
            (event, State::Started(session)) => {
                if let Some(change) = event.progress() {
                    session.progress.change(change);
                }
            }
        }
    }

    /// The state after all of `events`.
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

impl Session {
    /// Whether it has not ended.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.progress.ended.is_none()
    }

    /// Wall-clock time from the start to the end, or to the newest observation
    /// while it is active.
    #[must_use]
    pub fn duration(&self) -> TimeDelta {
        let until = match self.progress.ended {
            Some(ending) => ending.at,
            None => self.progress.latest.at,
        };
        until - self.start.started_at
    }

    /// A repeated start of the same session is not another one; any other
    /// start under its id is refused.
    fn start_again(&self, command: &StartSession) -> Result<Vec<SessionEvent>, SessionError> {
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
        let before = &self.progress.latest;
        let seen = Observation {
            // Without a client's time the order of arrival decides, whatever
            // the clocks of several servers say.
            at: match command.occurred.client {
                Some(at) => at,
                None => command.occurred.received.max(before.at),
            },
            position: command.position,
            locator: command.locator,
        };
        let applied = command.occurred.client.is_none() || seen > *before;
        let credited_ms = if applied {
            credit(before.at, seen.at, rules)
        } else {
            0
        };
        Ok(SessionEvent::PositionUpdated(PositionUpdated {
            reader_id: self.start.reader_id,
            occurred_at: seen.at,
            position: seen.position,
            locator: seen.locator,
            applied,
            previous_at: before.at,
            previous_position: before.position,
            credited_ms,
            active_ms: self.progress.active_ms + credited_ms,
            furthest_position: self.progress.furthest_position.max(seen.position),
            time_zone: self.start.time_zone,
        }))
    }

    fn end(&self, command: &EndSession, rules: Rules) -> Result<SessionEvent, SessionError> {
        if !self.is_active() {
            return Err(SessionError::AlreadyEnded);
        }
        let before = &self.progress.latest;
        let at = command.occurred.at();
        // The last place counts when it is the newest; an end that arrives
        // late ends the session no earlier than it was last read.
        let position = match command.position {
            Some(position) if at >= before.at || command.occurred.client.is_none() => position,
            _ => before.position,
        };
        let ended_at = at.max(before.at);
        let credited_ms = credit(before.at, ended_at, rules);
        Ok(SessionEvent::SessionEnded(SessionEnded {
            reader_id: self.start.reader_id,
            book_id: self.start.book_id,
            reason: command.reason,
            started_at: self.start.started_at,
            ended_at,
            elapsed_ms: (ended_at - self.start.started_at).num_milliseconds(),
            start_position: self.start.position,
            position,
            locator: before
                .locator
                .clone()
                .filter(|_| position == before.position),
            previous_at: before.at,
            previous_position: before.position,
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

/// Active time between two observations, in milliseconds: the gap, capped.
fn credit(from: Timestamp, to: Timestamp, rules: Rules) -> i64 {
    (to - from)
        .clamp(TimeDelta::zero(), rules.active_gap)
        .num_milliseconds()
}

impl Progress {
    fn at_start(started: &SessionStarted) -> Self {
        Self {
            latest: Observation {
                at: started.started_at,
                position: started.position,
                locator: started.locator.clone(),
            },
            furthest_position: started.position,
            active_ms: 0,
            ended: None,
        }
    }

    fn change(&mut self, change: ProgressChange) {
        if let Some(latest) = change.latest {
            self.latest = latest;
        }
        self.furthest_position = change.furthest_position;
        self.active_ms = change.active_ms;
        self.ended = change.ended;
    }
}

impl ProgressChange {
    /// Becomes this change and then a later one, as one.
    pub fn extend(&mut self, later: Self) {
        let latest = later.latest.or_else(|| self.latest.take());
        *self = Self { latest, ..later };
    }
}

impl SessionEvent {
    /// What the event says about its session's progress; `None` when there is
    /// no session any more.
    #[must_use]
    pub fn progress(&self) -> Option<ProgressChange> {
        Some(match self {
            Self::SessionErased(_) => return None,
            Self::SessionStarted(event) => {
                let progress = Progress::at_start(event);
                ProgressChange {
                    latest: Some(progress.latest),
                    furthest_position: progress.furthest_position,
                    active_ms: progress.active_ms,
                    ended: None,
                }
            }
            Self::PositionUpdated(event) => ProgressChange {
                latest: event.applied.then(|| Observation {
                    at: event.occurred_at,
                    position: event.position,
                    locator: event.locator.clone(),
                }),
                furthest_position: event.furthest_position,
                active_ms: event.active_ms,
                ended: None,
            },
            Self::SessionEnded(event) => ProgressChange {
                latest: Some(Observation {
                    at: event.ended_at,
                    position: event.position,
                    locator: event.locator.clone(),
                }),
                furthest_position: event.furthest_position,
                active_ms: event.active_ms,
                ended: Some(Ending {
                    at: event.ended_at,
                    reason: event.reason,
                }),
            },
        })
    }
}

impl Aggregate for ReadingSession {
    const TYPE: &'static str = "reading_session";
    type Command = SessionCommand;
    type Event = SessionEvent;
    type Error = SessionError;
    type Services = ();

    async fn handle(
        &mut self,
        command: SessionCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), SessionError> {
        for event in self.decide(command, Rules::default())? {
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
