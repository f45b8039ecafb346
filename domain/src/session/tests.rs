//! The events or the refusal for each command in each state, in the form given,
//! when, then. All tests use variations of one session: a start at 10 %, an
//! update to 20 % one minute later and an end 30 seconds after that.

mod end;
mod properties;
mod start;
mod update;

use chrono::DateTime;
use chrono_tz::{Europe, Tz};
use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use uuid::Uuid;

use super::*;
use crate::command::Occurrence;
use crate::event::{Book, DeviceType, EndReason};
use crate::{BookId, Position, ReaderId};

const ZONE: Tz = Europe::Berlin;

fn given(events: impl IntoIterator<Item = SessionEvent>) -> AggregateTestExecutor<ReadingSession> {
    given_with(Rules::default(), events)
}

fn given_with(
    rules: Rules,
    events: impl IntoIterator<Item = SessionEvent>,
) -> AggregateTestExecutor<ReadingSession> {
    TestFramework::with(rules).given(events.into_iter().collect())
}

/// A time in seconds after the start of the session.
fn at(seconds: i64) -> Timestamp {
    DateTime::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
}

/// A client's time, received at the same time.
fn timed(seconds: i64) -> Occurrence {
    delayed(seconds, seconds)
}

/// A client's time, received later.
fn delayed(seconds: i64, received: i64) -> Occurrence {
    Occurrence::new(Some(at(seconds)), at(received)).unwrap()
}

/// An arrival time without a client's time.
fn untimed(received: i64) -> Occurrence {
    Occurrence::new(None, at(received)).unwrap()
}

fn percent(percent: f64) -> Position {
    Position::new(percent).unwrap()
}

fn reader() -> ReaderId {
    Uuid::from_u128(1).into()
}

fn book() -> BookId {
    Uuid::from_u128(2).into()
}

fn start() -> StartSession {
    StartSession {
        reader_id: reader(),
        book_id: book(),
        position: percent(10.0),
        device_type: Some(DeviceType::Tablet),
        device_id: Some("kitchen".into()),
        time_zone: ZONE,
        locator: Some("chapter 1".into()),
        book: Some(Book {
            title: Some("Middlemarch".into()),
            author: Some("George Eliot".into()),
            total_pages: Some(880),
        }),
        occurred: timed(0),
    }
}

fn started() -> SessionEvent {
    SessionEvent::SessionStarted(SessionStarted {
        reader_id: reader(),
        book_id: book(),
        started_at: at(0),
        position: percent(10.0),
        device_type: Some(DeviceType::Tablet),
        device_id: Some("kitchen".into()),
        time_zone: ZONE,
        locator: Some("chapter 1".into()),
        book: start().book,
    })
}

fn update() -> UpdatePosition {
    UpdatePosition {
        position: percent(20.0),
        locator: Some("chapter 2".into()),
        occurred: timed(60),
    }
}

fn updated() -> PositionUpdated {
    PositionUpdated {
        reader_id: reader(),
        occurred_at: at(60),
        position: percent(20.0),
        locator: Some("chapter 2".into()),
        applied: true,
        previous_at: at(0),
        previous_position: percent(10.0),
        credited_ms: 60_000,
        active_ms: 60_000,
        furthest_position: percent(20.0),
        time_zone: ZONE,
    }
}

fn end() -> EndSession {
    EndSession {
        position: Some(percent(25.0)),
        reason: EndReason::Finished,
        occurred: timed(90),
    }
}

fn ended() -> SessionEnded {
    SessionEnded {
        reader_id: reader(),
        book_id: book(),
        reason: EndReason::Finished,
        started_at: at(0),
        ended_at: at(90),
        elapsed_ms: 90_000,
        start_position: percent(10.0),
        position: percent(25.0),
        locator: None,
        previous_at: at(60),
        previous_position: percent(20.0),
        credited_ms: 30_000,
        active_ms: 90_000,
        furthest_position: percent(25.0),
        time_zone: ZONE,
    }
}

fn started_log() -> Vec<SessionEvent> {
    vec![started()]
}

fn updated_log() -> Vec<SessionEvent> {
    vec![started(), SessionEvent::PositionUpdated(updated())]
}

fn ended_log() -> Vec<SessionEvent> {
    let mut events = updated_log();
    events.push(SessionEvent::SessionEnded(ended()));
    events
}
