//! The events or the refusal for each command in each state, in the form given,
//! when, then. All tests use variations of one session: a start at 10 %, an
//! update to 20 % one minute later and an end at 25 % 30 seconds after that.

mod correct;
mod deactivate;
mod end;
mod late;
mod properties;
mod repeat;
mod start;
mod update;

use chrono::DateTime;
use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use uuid::Uuid;

use super::*;
use crate::command::Occurrence;
use crate::event::{Book, DeviceType, EndReason};
use crate::intervals::Interval;
use crate::{
    BookId, CorrectSession, EndSession, Observation, Position, PositionUpdated, ReaderId,
    SessionEnded, Standing, Timestamp, UpdatePosition, ZoneName,
};

fn given(events: impl IntoIterator<Item = SessionEvent>) -> AggregateTestExecutor<CompleteSession> {
    given_with(Rules::default(), events)
}

fn given_with(
    rules: Rules,
    events: impl IntoIterator<Item = SessionEvent>,
) -> AggregateTestExecutor<CompleteSession> {
    TestFramework::with(rules).given(events.into_iter().collect())
}

/// The given events and those of the command, which must not be refused.
fn after(mut events: Vec<SessionEvent>, command: SessionCommand) -> Vec<SessionEvent> {
    let produced = given(events.clone()).when(command).inspect_result();
    events.extend(produced.unwrap());
    events
}

/// The events of all commands, one after the other. None of them must be refused.
fn run(commands: impl IntoIterator<Item = SessionCommand>) -> Vec<SessionEvent> {
    commands.into_iter().fold(Vec::new(), after)
}

/// The progress of a session that was started.
fn progress(events: &[SessionEvent]) -> SessionProgress {
    let session = ReadingSession::fold(events);
    session.started().unwrap().progress.clone()
}

/// A time in seconds after the start of the session.
fn at(seconds: i64) -> Timestamp {
    DateTime::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
}

/// The intervals from and to the given seconds after the start.
fn intervals(pairs: &[(i64, i64)]) -> Vec<Interval> {
    let interval = |(from, to): &(i64, i64)| Interval::between(at(*from), at(*to)).unwrap();
    pairs.iter().map(interval).collect()
}

/// A client's time, received at the same time.
fn timed(seconds: i64) -> Occurrence {
    delayed(seconds, seconds)
}

/// A client's time, received later.
fn delayed(seconds: i64, received: i64) -> Occurrence {
    Occurrence::new(Some(at(seconds)), None, at(received)).unwrap()
}

/// A client's time by a clock that is one hour ahead. The service places the
/// observation at `seconds`.
fn shifted(seconds: i64) -> Occurrence {
    let received = at(seconds.max(0));
    Occurrence {
        client: Some(at(seconds)),
        device_time: Some(at(seconds + CLOCK_AHEAD)),
        received,
    }
}

/// How far the clock of a device with a wrong clock is ahead, in seconds.
const CLOCK_AHEAD: i64 = 3_600;

/// An arrival time without a client's time.
fn untimed(received: i64) -> Occurrence {
    Occurrence::untimed(at(received))
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

fn zone() -> ZoneName {
    ZoneName::new("Europe/Berlin")
}

fn start() -> StartSession {
    StartSession {
        reader_id: reader(),
        book_id: book(),
        position: percent(10.0),
        device_type: Some(DeviceType::Tablet),
        device_id: Some("kitchen".into()),
        time_zone: Some(zone()),
        locator: Some("chapter 1".into()),
        book: Some(Book {
            title: Some("Middlemarch".into()),
            author: Some("George Eliot".into()),
            total_pages: Some(880),
        }),
        occurred: timed(0),
        standing: Standing::Active,
    }
}

fn started() -> SessionStarted {
    SessionStarted {
        reader_id: reader(),
        book_id: book(),
        started_at: at(0),
        device_time: None,
        position: percent(10.0),
        device_type: Some(DeviceType::Tablet),
        device_id: Some("kitchen".into()),
        time_zone: zone(),
        locator: Some("chapter 1".into()),
        book: start().book,
        end_reason: None,
    }
}

fn update() -> UpdatePosition {
    UpdatePosition {
        position: percent(20.0),
        locator: Some("chapter 2".into()),
        occurred: timed(60),
        standing: Standing::Active,
    }
}

fn updated() -> PositionUpdated {
    PositionUpdated {
        reader_id: reader(),
        occurred_at: at(60),
        device_time: None,
        position: percent(20.0),
        locator: Some("chapter 2".into()),
        applied: true,
        intervals: intervals(&[(0, 60)]),
        active_ms: 60_000,
        active_fixed: false,
        furthest_position: percent(20.0),
        started_at: None,
        start_position: None,
        ended_at: None,
        end_reason: None,
        time_zone: zone(),
    }
}

fn end() -> EndSession {
    EndSession {
        position: Some(percent(25.0)),
        locator: None,
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
        position_at: None,
        device_time: None,
        locator: None,
        intervals: intervals(&[(60, 90)]),
        intervals_complete: false,
        corrected: false,
        active_ms: 90_000,
        active_fixed: false,
        furthest_position: percent(25.0),
        time_zone: zone(),
    }
}

/// The end at the latest position of [`updated_log`], by a command without a position.
fn ended_in_place() -> SessionEnded {
    SessionEnded {
        position: percent(20.0),
        position_at: Some(at(60)),
        locator: Some("chapter 2".into()),
        furthest_position: percent(20.0),
        ..ended()
    }
}

/// The service's end of [`updated_log`].
fn superseded() -> SessionEnded {
    SessionEnded {
        reason: EndReason::Superseded,
        ended_at: at(60),
        elapsed_ms: 60_000,
        position_at: None,
        intervals: Vec::new(),
        active_ms: 60_000,
        ..ended_in_place()
    }
}

fn started_log() -> Vec<SessionEvent> {
    vec![SessionEvent::SessionStarted(started())]
}

fn updated_log() -> Vec<SessionEvent> {
    let mut events = started_log();
    events.push(SessionEvent::PositionUpdated(updated()));
    events
}

fn ended_log() -> Vec<SessionEvent> {
    let mut events = updated_log();
    events.push(SessionEvent::SessionEnded(ended()));
    events
}

fn ended_in_place_log() -> Vec<SessionEvent> {
    let mut events = updated_log();
    events.push(SessionEvent::SessionEnded(ended_in_place()));
    events
}

fn superseded_log() -> Vec<SessionEvent> {
    let mut events = updated_log();
    events.push(SessionEvent::SessionEnded(superseded()));
    events
}
