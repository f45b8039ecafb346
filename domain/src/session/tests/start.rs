//! Starts, repeated starts, and commands for sessions that were never started.

use rstest::rstest;

use super::*;

#[test]
fn start_records_all_values_of_the_command() {
    given([])
        .when(SessionCommand::Start(start()))
        .then_expect_events(started_log());
}

#[test]
fn start_without_client_time_uses_the_arrival_time() {
    let events = given([])
        .when(SessionCommand::Start(StartSession {
            occurred: untimed(7),
            ..start()
        }))
        .inspect_result()
        .unwrap();
    assert_eq!(events[0].occurred_at(), at(7));
}

#[test]
fn delayed_start_keeps_the_client_time() {
    given([])
        .when(SessionCommand::Start(StartSession {
            occurred: delayed(0, 86_400),
            ..start()
        }))
        .then_expect_events(started_log());
}

#[test]
fn start_keeps_the_time_of_a_wrong_clock() {
    given([])
        .when(SessionCommand::Start(StartSession {
            occurred: shifted(0),
            ..start()
        }))
        .then_expect_events(vec![SessionEvent::SessionStarted(SessionStarted {
            device_time: Some(at(CLOCK_AHEAD)),
            ..started()
        })]);
}

#[test]
fn start_without_a_zone_is_in_utc() {
    given([])
        .when(SessionCommand::Start(StartSession {
            time_zone: None,
            ..start()
        }))
        .then_expect_events(vec![SessionEvent::SessionStarted(SessionStarted {
            time_zone: ZoneName::UTC,
            ..started()
        })]);
}

#[test]
fn session_that_is_not_the_newest_ends_at_its_start() {
    let command = StartSession {
        standing: Standing::Superseded,
        ..start()
    };
    let event = SessionEvent::SessionStarted(SessionStarted {
        end_reason: Some(EndReason::Superseded),
        ..started()
    });
    given([])
        .when(SessionCommand::Start(command))
        .then_expect_events(vec![event.clone()]);
    let session = ReadingSession::fold([&event]);
    let session = session.started().unwrap();
    assert!(!session.is_active());
    assert!(!session.is_finished());
    assert_eq!(
        session.progress.ended,
        Some(Ending {
            at: at(0),
            reason: EndReason::Superseded
        })
    );
}

#[test]
fn started_session_is_active_at_its_start_position() {
    let session = ReadingSession::fold(&started_log());
    let session = session.started().unwrap();
    assert!(session.is_active());
    assert_eq!(session.duration(), TimeDelta::zero());
    assert_eq!(session.progress.active_ms, 0);
    assert_eq!(session.progress.furthest_position, percent(10.0));
    assert_eq!(
        session.progress.latest,
        Observation {
            at: at(0),
            device_time: None,
            position: percent(10.0),
            locator: Some("chapter 1".into()),
        }
    );
}

#[rstest]
#[case::started(started_log())]
#[case::updated(updated_log())]
#[case::ended(ended_log())]
#[case::superseded(superseded_log())]
fn repeated_start_produces_no_event(#[case] events: Vec<SessionEvent>) {
    given(events)
        .when(SessionCommand::Start(start()))
        .then_expect_events(vec![]);
}

#[test]
fn repeated_start_is_matched_by_reader_book_and_position() {
    given(started_log())
        .when(SessionCommand::Start(StartSession {
            device_type: None,
            device_id: None,
            time_zone: None,
            locator: None,
            book: None,
            occurred: untimed(5),
            standing: Standing::Superseded,
            ..start()
        }))
        .then_expect_events(vec![]);
}

#[rstest]
fn different_start_with_the_same_id_is_refused(
    #[values(started_log(), updated_log(), ended_log())] events: Vec<SessionEvent>,
    #[values(
        StartSession { reader_id: Uuid::from_u128(9).into(), ..start() },
        StartSession { book_id: Uuid::from_u128(9).into(), ..start() },
        StartSession { position: percent(20.0), ..start() },
    )]
    other: StartSession,
) {
    given(events)
        .when(SessionCommand::Start(other))
        .then_expect_error(SessionError::AlreadyStarted);
}

#[rstest]
#[case(SessionCommand::UpdatePosition(update()))]
#[case(SessionCommand::End(end()))]
#[case(SessionCommand::Deactivate(EndReason::Idle))]
#[case(SessionCommand::Correct(CorrectSession::default()))]
fn command_before_the_start_fails_with_not_found(#[case] command: SessionCommand) {
    given([])
        .when(command)
        .then_expect_error(SessionError::NotFound);
}

#[test]
fn refusals_keep_the_messages_that_clients_match() {
    given(ended_log())
        .when(SessionCommand::UpdatePosition(UpdatePosition {
            occurred: timed(120),
            ..update()
        }))
        .then_expect_error_message("Cannot update inactive session");
    given(ended_log())
        .when(SessionCommand::End(end()))
        .then_expect_error_message("Session already ended");
    given([])
        .when(SessionCommand::End(end()))
        .then_expect_error_message("Reading session not found");
}

#[rstest]
#[case(SessionEvent::PositionUpdated(updated()))]
#[case(SessionEvent::SessionEnded(ended()))]
fn event_without_a_start_creates_no_session(#[case] event: SessionEvent) {
    assert_eq!(ReadingSession::fold([&event]).started(), None);
}

#[test]
fn second_start_event_is_ignored() {
    let mut events = updated_log();
    events.extend(started_log());
    assert_eq!(
        ReadingSession::fold(&events),
        ReadingSession::fold(&updated_log())
    );
}
