//! Ends: with and without a place, late, superseded, twice.

use rstest::rstest;

use super::*;

fn expect(command: EndSession, event: SessionEnded) {
    given(reading())
        .when(SessionCommand::End(command))
        .then_expect_events(vec![SessionEvent::SessionEnded(event)]);
}

/// The end where the session stood before it.
fn ended_in_place() -> SessionEnded {
    SessionEnded {
        position: percent(20.0),
        locator: Some("chapter 2".into()),
        furthest_position: percent(20.0),
        ..ended()
    }
}

#[test]
fn an_end_with_a_position_ends_there() {
    expect(end(), ended());
    let session = ReadingSession::fold(&over());
    let session = session.started().unwrap();
    assert!(!session.is_active());
    assert_eq!(session.duration(), TimeDelta::seconds(90));
    assert_eq!(session.progress.active_ms, 90_000);
    assert_eq!(
        session.progress.latest,
        Observation {
            at: at(90),
            position: percent(25.0),
            locator: None,
        }
    );
    assert_eq!(
        session.progress.ended,
        Some(Ending {
            at: at(90),
            reason: EndReason::Finished,
        })
    );
}

#[test]
fn an_end_without_a_position_ends_at_the_last_one() {
    let command = EndSession {
        position: None,
        ..end()
    };
    expect(command, ended_in_place());
}

#[test]
fn an_end_at_the_last_position_keeps_its_locator() {
    let command = EndSession {
        position: Some(percent(20.0)),
        ..end()
    };
    expect(command, ended_in_place());
}

#[test]
fn an_end_below_the_start_is_allowed_and_keeps_the_furthest_position() {
    let command = EndSession {
        position: Some(percent(3.0)),
        ..end()
    };
    let event = SessionEnded {
        position: percent(3.0),
        furthest_position: percent(20.0),
        ..ended()
    };
    expect(command, event);
}

#[test]
fn an_end_right_after_the_start_has_no_length() {
    given(fresh())
        .when(SessionCommand::End(EndSession {
            position: None,
            occurred: timed(0),
            ..end()
        }))
        .then_expect_events(vec![SessionEvent::SessionEnded(SessionEnded {
            ended_at: at(0),
            elapsed_ms: 0,
            position: percent(10.0),
            locator: Some("chapter 1".into()),
            previous_at: at(0),
            previous_position: percent(10.0),
            credited_ms: 0,
            active_ms: 0,
            furthest_position: percent(10.0),
            ..ended()
        })]);
}

#[rstest]
#[case::with_a_position_behind(Some(3.0), 20.0)]
#[case::with_a_position_ahead(Some(40.0), 40.0)]
#[case::without_a_position(None, 20.0)]
fn a_late_end_ends_no_earlier_than_the_session_was_last_read(
    #[case] position: Option<f64>,
    #[case] furthest: f64,
) {
    let command = EndSession {
        position: position.map(percent),
        occurred: delayed(30, 200),
        ..end()
    };
    let event = SessionEnded {
        ended_at: at(60),
        elapsed_ms: 60_000,
        credited_ms: 0,
        active_ms: 60_000,
        furthest_position: percent(furthest),
        ..ended_in_place()
    };
    expect(command, event);
}

#[rstest]
#[case::by_the_client(timed(60))]
#[case::on_arrival(untimed(60))]
#[case::by_a_server_whose_clock_is_behind(untimed(50))]
fn an_end_at_the_moment_of_the_last_observation_brings_its_position(#[case] occurred: Occurrence) {
    let command = EndSession { occurred, ..end() };
    let event = SessionEnded {
        ended_at: at(60),
        elapsed_ms: 60_000,
        credited_ms: 0,
        active_ms: 60_000,
        ..ended()
    };
    expect(command, event);
}

#[rstest]
#[case(timed(60 + 3_600))]
#[case(untimed(60 + 3_600))]
fn the_gap_before_an_end_counts_as_reading_up_to_two_minutes(#[case] occurred: Occurrence) {
    let command = EndSession { occurred, ..end() };
    let event = SessionEnded {
        ended_at: at(60 + 3_600),
        elapsed_ms: 3_660_000,
        credited_ms: 120_000,
        active_ms: 180_000,
        ..ended()
    };
    expect(command, event);
}

#[test]
fn a_superseded_session_ends_at_its_last_position() {
    let command = EndSession {
        position: None,
        reason: EndReason::Superseded,
        ..end()
    };
    let event = SessionEnded {
        reason: EndReason::Superseded,
        ..ended_in_place()
    };
    expect(command, event);
}

#[test]
fn a_session_superseded_by_an_older_start_ends_when_it_was_last_read() {
    let command = EndSession {
        position: None,
        reason: EndReason::Superseded,
        occurred: delayed(-86_400, 90),
    };
    let event = SessionEnded {
        reason: EndReason::Superseded,
        ended_at: at(60),
        elapsed_ms: 60_000,
        credited_ms: 0,
        active_ms: 60_000,
        ..ended_in_place()
    };
    expect(command, event);
}

#[test]
fn a_session_that_nothing_was_heard_of_ends_as_idle() {
    let command = EndSession {
        position: None,
        reason: EndReason::Idle,
        occurred: untimed(90),
    };
    let event = SessionEnded {
        reason: EndReason::Idle,
        ..ended_in_place()
    };
    expect(command, event);
}

#[rstest]
#[case::the_same(end())]
#[case::superseded(EndSession { reason: EndReason::Superseded, position: None, ..end() })]
#[case::idle(EndSession { reason: EndReason::Idle, position: None, ..end() })]
#[case::late(EndSession { occurred: delayed(70, 120), ..end() })]
fn a_session_ends_once(#[case] again: EndSession) {
    given(over())
        .when(SessionCommand::End(again))
        .then_expect_error(SessionError::AlreadyEnded);
}
