//! Starting, and commands for what was never started.

use rstest::rstest;

use super::*;

#[test]
fn a_start_begins_a_session_with_all_that_the_app_said() {
    given([])
        .when(SessionCommand::Start(start()))
        .then_expect_events(vec![started()]);
}

#[test]
fn a_start_without_a_clients_time_begins_on_arrival() {
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
fn a_start_made_offline_begins_when_it_happened() {
    given([])
        .when(SessionCommand::Start(StartSession {
            occurred: delayed(0, 86_400),
            ..start()
        }))
        .then_expect_events(vec![started()]);
}

#[test]
fn a_started_session_is_active_and_stands_where_it_began() {
    let session = ReadingSession::fold(&fresh());
    let session = session.started().unwrap();
    assert!(session.is_active());
    assert_eq!(session.duration(), TimeDelta::zero());
    assert_eq!(session.progress.active_ms, 0);
    assert_eq!(session.progress.furthest_position, percent(10.0));
    assert_eq!(
        session.progress.latest,
        Observation {
            at: at(0),
            position: percent(10.0),
            locator: Some("chapter 1".into()),
        }
    );
}

#[rstest]
#[case::fresh(fresh())]
#[case::reading(reading())]
#[case::over(over())]
fn a_repeated_start_gives_no_event(#[case] events: Vec<SessionEvent>) {
    given(events)
        .when(SessionCommand::Start(start()))
        .then_expect_events(vec![]);
}

#[test]
fn a_repeated_start_is_known_by_reader_book_and_position_alone() {
    given(fresh())
        .when(SessionCommand::Start(StartSession {
            device_type: None,
            device_id: None,
            time_zone: Tz::UTC,
            locator: None,
            book: None,
            occurred: untimed(5),
            ..start()
        }))
        .then_expect_events(vec![]);
}

#[rstest]
fn another_start_under_the_id_is_refused(
    #[values(fresh(), reading(), over())] events: Vec<SessionEvent>,
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
fn a_session_that_was_never_started_is_not_found(#[case] command: SessionCommand) {
    given([])
        .when(command)
        .then_expect_error(SessionError::NotFound);
}

#[test]
fn refusals_keep_the_sentences_that_clients_know() {
    given(over())
        .when(SessionCommand::UpdatePosition(update()))
        .then_expect_error_message("Cannot update inactive session");
    given(over())
        .when(SessionCommand::End(end()))
        .then_expect_error_message("Session already ended");
    given([])
        .when(SessionCommand::End(end()))
        .then_expect_error_message("Reading session not found");
}

#[rstest]
#[case(SessionEvent::PositionUpdated(updated()))]
#[case(SessionEvent::SessionEnded(ended()))]
fn an_event_of_a_session_without_a_start_makes_no_session_up(#[case] event: SessionEvent) {
    assert_eq!(ReadingSession::fold([&event]).started(), None);
}

#[test]
fn a_second_start_in_the_log_does_not_begin_anew() {
    let mut events = reading();
    events.push(started());
    assert_eq!(
        ReadingSession::fold(&events),
        ReadingSession::fold(&reading())
    );
}
