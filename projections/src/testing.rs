//! Builds the events of sessions for the unit tests of the projections, by the decisions
//! of the domain.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use domain::command::Occurrence;
use domain::event::EndReason;
use domain::session::{CompleteSession, Rules};
use domain::{
    BookId, CorrectSession, EndSession, Position, ReaderId, SessionCommand, SessionErased,
    SessionEvent, SessionId, Standing, StartSession, Timestamp, UpdatePosition, ZoneName,
};
use eventlog::RecordedEvent;
use uuid::Uuid;

/// `seconds` after 2026-03-01T00:00:00Z.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_772_323_200, 0).unwrap() + TimeDelta::seconds(seconds)
}

pub fn reader() -> ReaderId {
    Uuid::from_u128(1).into()
}

pub fn session(n: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(n))
}

pub fn percent(percent: i32) -> Position {
    Position::from_steps(percent * 10_000).unwrap()
}

fn occurred(seconds: i64) -> Occurrence {
    Occurrence::new(Some(at(seconds)), None, at(seconds)).unwrap()
}

/// The events of one session, with consecutive sequences and global positions. All
/// times are in seconds after midnight, all positions in percent.
#[derive(Clone)]
pub struct Story {
    id: SessionId,
    recorded: Vec<RecordedEvent>,
    state: CompleteSession,
    first_position: i64,
}

impl Story {
    /// Starts an active session at 0 percent. The number `n` determines the session id,
    /// and the global positions of at most 99 events.
    pub fn starts(n: u128, zone: impl Into<ZoneName>, seconds: i64) -> Self {
        Self::starts_as(Standing::Active, n, zone, seconds)
    }

    /// Starts a session that may not be active.
    pub fn starts_as(standing: Standing, n: u128, zone: impl Into<ZoneName>, seconds: i64) -> Self {
        let story = Self {
            id: session(n),
            recorded: Vec::new(),
            state: CompleteSession::default(),
            first_position: i64::try_from(n).unwrap() * 100,
        };
        story.after(SessionCommand::Start(StartSession {
            reader_id: reader(),
            book_id: BookId::from(Uuid::from_u128(9)),
            position: Position::START,
            device_type: None,
            device_id: None,
            time_zone: Some(zone.into()),
            locator: None,
            book: None,
            occurred: occurred(seconds),
            standing,
        }))
    }

    /// Adds an observation that is the latest one. The session is active afterwards,
    /// unless the reader has ended it.
    pub fn seen(self, seconds: i64, position: i32) -> Self {
        let story = self.seen_as(Standing::Active, seconds, position);
        assert!(story.is_applied(), "the observation is late");
        story
    }

    /// Adds an observation that is older than the latest one, so it is not applied.
    pub fn seen_late(self, seconds: i64, position: i32) -> Self {
        let story = self.seen_as(Standing::Active, seconds, position);
        assert!(!story.is_applied(), "the observation is the latest one");
        story
    }

    /// Adds an observation at any time. The session may not be active afterwards.
    pub fn seen_as(self, standing: Standing, seconds: i64, position: i32) -> Self {
        self.after(SessionCommand::UpdatePosition(UpdatePosition {
            position: percent(position),
            locator: None,
            occurred: occurred(seconds),
            standing,
        }))
    }

    /// Adds an observation that makes an inactive session active again.
    pub fn resumes(self, seconds: i64, position: i32) -> Self {
        assert!(!self.is_active(), "the session is active");
        let story = self.seen(seconds, position);
        assert!(story.is_active(), "the reader has ended the session");
        story
    }

    /// The reader ends the session without a position.
    pub fn ends(self, seconds: i64) -> Self {
        self.after(SessionCommand::End(EndSession {
            position: None,
            locator: None,
            occurred: occurred(seconds),
        }))
    }

    /// The reader ends the session at a position.
    pub fn ends_at(self, seconds: i64, position: i32) -> Self {
        self.after(SessionCommand::End(EndSession {
            position: Some(percent(position)),
            locator: None,
            occurred: occurred(seconds),
        }))
    }

    /// The service ends the session provisionally, at its latest observation.
    pub fn deactivates(self, reason: EndReason) -> Self {
        self.after(SessionCommand::Deactivate(reason))
    }

    /// The reader corrects an ended session. A new end is in seconds after midnight, a
    /// new active time in seconds.
    pub fn corrected(
        self,
        ended_at: Option<i64>,
        position: Option<i32>,
        active: Option<i64>,
    ) -> Self {
        let ending = self.state.session.started().unwrap().progress.ended;
        self.after(SessionCommand::Correct(CorrectSession {
            ended_at: ended_at.map(at),
            position: position.map(percent),
            active: active.map(TimeDelta::seconds),
            received: ended_at.map_or(ending.unwrap().at, at),
        }))
    }

    /// Erases the session.
    pub fn erased(mut self, seconds: i64) -> Self {
        self.record(SessionEvent::SessionErased(SessionErased {
            reader_id: reader(),
            erased_at: at(seconds),
        }));
        self
    }

    pub fn events(self) -> Vec<RecordedEvent> {
        self.recorded
    }

    fn is_active(&self) -> bool {
        let session = self.state.session.started();
        session.is_some_and(domain::session::StartedSession::is_active)
    }

    /// Whether the last event changed the latest position.
    fn is_applied(&self) -> bool {
        let last = self.recorded.last().unwrap();
        last.event.progress_change().unwrap().latest.is_some()
    }

    /// The story after the one event that the command produces.
    fn after(mut self, command: SessionCommand) -> Self {
        let mut events = self.state.decide(command, Rules::default()).unwrap();
        let event = events.pop().expect("the command repeats an earlier one");
        assert!(events.is_empty());
        self.record(event);
        self
    }

    fn record(&mut self, event: SessionEvent) {
        self.state.apply(&event);
        let sequence = i64::try_from(self.recorded.len()).unwrap() + 1;
        self.recorded.push(RecordedEvent {
            global_position: self.first_position + sequence,
            session_id: self.id,
            sequence,
            event,
        });
    }
}

/// The changes of one commit that contains the events.
pub fn folded<P: crate::Projection>(events: &[RecordedEvent]) -> BTreeMap<P::Key, P::Change> {
    crate::projection::fold_all::<P>(events)
        .into_iter()
        .collect()
}
