//! Ends: with and without a position, late, superseded, idle, repeated.

use rstest::rstest;

use super::*;

fn expect(command: EndSession, event: SessionEnded) {
    given(updated_log())
        .when(SessionCommand::End(command))
        .then_expect_events(vec![SessionEvent::SessionEnded(event)]);
}

/// The end at the session's latest position.
fn ended_in_place() -> SessionEnded {
    SessionEnded {
        position: percent(20.0),
        locator: Some("chapter 2".into()),
        furthest_position: percent(20.0),
        ..ended()
    }
}

#[test]
fn end_with_a_position_records_it() {
    expect(end(), ended());
    let session = ReadingSession::fold(&ended_log());
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
fn end_without_a_position_keeps_the_latest_one() {
    let command = EndSession {
        position: None,
        ..end()
    };
    expect(command, ended_in_place());
}

#[test]
fn end_at_the_latest_position_keeps_its_locator() {
    let command = EndSession {
        position: Some(percent(20.0)),
        ..end()
    };
    expect(command, ended_in_place());
}

#[test]
fn end_before_the_start_position_is_allowed() {
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
fn end_at_the_start_time_has_no_duration() {
    given(started_log())
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
fn late_end_takes_the_time_of_the_latest_observation(
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
#[case::client_time(timed(60))]
#[case::arrival_time(untimed(60))]
#[case::server_clock_behind(untimed(50))]
fn end_at_the_latest_observation_time_records_its_position(#[case] occurred: Occurrence) {
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
fn gap_before_the_end_is_credited_up_to_two_minutes(#[case] occurred: Occurrence) {
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
fn superseded_session_ends_when_the_new_one_starts() {
    let command = EndSession::superseded_by(&StartSession {
        occurred: timed(90),
        ..start()
    });
    let event = SessionEnded {
        reason: EndReason::Superseded,
        ..ended_in_place()
    };
    expect(command, event);
}

#[test]
fn start_from_the_past_supersedes_at_the_latest_observation() {
    let command = EndSession::superseded_by(&StartSession {
        occurred: delayed(-86_400, 90),
        ..start()
    });
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
fn idle_session_ends_at_its_latest_observation() {
    let command = EndSession::idle_since(at(60));
    let event = SessionEnded {
        reason: EndReason::Idle,
        ended_at: at(60),
        elapsed_ms: 60_000,
        credited_ms: 0,
        active_ms: 60_000,
        ..ended_in_place()
    };
    expect(command, event);
}

#[rstest]
#[case::the_same(end())]
#[case::superseded(EndSession::superseded_by(&start()))]
#[case::idle(EndSession::idle_since(at(90)))]
#[case::late(EndSession { occurred: delayed(70, 120), ..end() })]
fn second_end_is_refused(#[case] again: EndSession) {
    given(ended_log())
        .when(SessionCommand::End(again))
        .then_expect_error(SessionError::AlreadyEnded);
}
