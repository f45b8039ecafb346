//! Builds the events of sessions for the unit tests of the projections.

use chrono::TimeDelta;
use chrono_tz::Tz;
use domain::event::{EndReason, PositionUpdated, SessionEnded, SessionErased, SessionStarted};
use domain::{BookId, Position, ReaderId, SessionEvent, SessionId, Timestamp};
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

fn percent(percent: i32) -> Position {
    Position::from_steps(percent * 10_000).unwrap()
}

/// The events of one session, with consecutive sequences and global positions.
#[derive(Clone)]
pub struct Story {
    id: SessionId,
    zone: Tz,
    recorded: Vec<RecordedEvent>,
    seen: (Timestamp, Position),
    furthest: Position,
    active_ms: i64,
    first_position: i64,
}

impl Story {
    /// Starts a session at 0 percent, `seconds` after midnight. The number `n` determines
    /// the session id, and the global positions of at most 99 events.
    pub fn starts(n: u128, zone: Tz, seconds: i64) -> Self {
        let mut story = Self {
            id: session(n),
            zone,
            recorded: Vec::new(),
            seen: (at(seconds), Position::START),
            furthest: Position::START,
            active_ms: 0,
            first_position: i64::try_from(n).unwrap() * 100,
        };
        story.record(SessionEvent::SessionStarted(SessionStarted {
            reader_id: reader(),
            book_id: BookId::from(Uuid::from_u128(9)),
            started_at: at(seconds),
            position: Position::START,
            device_type: None,
            device_id: None,
            time_zone: zone,
            locator: None,
            book: None,
        }));
        story
    }

    /// Adds an update in time order. `position` is in percent.
    pub fn seen(mut self, seconds: i64, position: i32) -> Self {
        let credited_ms = self.credit(seconds);
        self.furthest = self.furthest.max(percent(position));
        let event = self.update(seconds, position, true, credited_ms);
        self.seen = (at(seconds), percent(position));
        self.record(event);
        self
    }

    /// Adds an update that is older than the latest one, so it is not applied.
    pub fn seen_late(mut self, seconds: i64, position: i32) -> Self {
        self.furthest = self.furthest.max(percent(position));
        let event = self.update(seconds, position, false, 0);
        self.record(event);
        self
    }

    /// Ends the session at its last position.
    pub fn ends(mut self, seconds: i64, reason: EndReason) -> Self {
        let credited_ms = self.credit(seconds);
        let started_at = self.recorded[0].event.occurred_at();
        self.record(SessionEvent::SessionEnded(SessionEnded {
            reader_id: reader(),
            book_id: BookId::from(Uuid::from_u128(9)),
            reason,
            started_at,
            ended_at: at(seconds),
            elapsed_ms: (at(seconds) - started_at).num_milliseconds(),
            start_position: Position::START,
            position: self.seen.1,
            locator: None,
            previous_at: self.seen.0,
            previous_position: self.seen.1,
            credited_ms,
            active_ms: self.active_ms,
            furthest_position: self.furthest,
            time_zone: self.zone,
        }));
        self
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

    fn credit(&mut self, seconds: i64) -> i64 {
        let gap = (at(seconds) - self.seen.0).num_milliseconds().min(120_000);
        self.active_ms += gap;
        gap
    }

    fn update(&self, seconds: i64, position: i32, applied: bool, credited_ms: i64) -> SessionEvent {
        SessionEvent::PositionUpdated(PositionUpdated {
            reader_id: reader(),
            occurred_at: at(seconds),
            position: percent(position),
            locator: None,
            applied,
            previous_at: self.seen.0,
            previous_position: self.seen.1,
            credited_ms,
            active_ms: self.active_ms,
            furthest_position: self.furthest,
            time_zone: self.zone,
        })
    }

    fn record(&mut self, event: SessionEvent) {
        let sequence = i64::try_from(self.recorded.len()).unwrap() + 1;
        self.recorded.push(RecordedEvent {
            global_position: self.first_position + sequence,
            session_id: self.id,
            sequence,
            event,
        });
    }
}

/// Folds events into one batch.
pub fn folded<P: crate::Projection>(events: &[RecordedEvent]) -> P::Batch {
    let mut batch = P::Batch::default();
    for event in events {
        P::fold(&mut batch, event);
    }
    batch
}
