//! Ends by the reader: with and without a position, before observations that have
//! arrived already, repeated.

use rstest::rstest;

use super::*;

fn expect(command: EndSession, event: SessionEnded) {
    given(updated_log())
        .when(SessionCommand::End(command))
        .then_expect_events(vec![SessionEvent::SessionEnded(event)]);
}

#[test]
fn end_with_a_position_records_it() {
    expect(end(), ended());
    let session = ReadingSession::fold(&ended_log());
    let session = session.started().unwrap();
    assert!(!session.is_active());
    assert!(session.is_finished());
    assert_eq!(session.duration(), TimeDelta::seconds(90));
    assert_eq!(session.progress.active_ms, 90_000);
    assert_eq!(
        session.progress.latest,
        Observation {
            at: at(90),
            device_time: None,
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
    let progress = progress(&ended_in_place_log());
    assert_eq!(progress.latest.at, at(60));
    assert_eq!(progress.last_activity_at(), at(90));
}

#[test]
fn end_with_a_locator_records_it() {
    let command = EndSession {
        locator: Some("chapter 3".into()),
        ..end()
    };
    let event = SessionEnded {
        locator: Some("chapter 3".into()),
        ..ended()
    };
    expect(command, event);
}

#[test]
fn end_with_a_locator_alone_takes_the_latest_position() {
    let command = EndSession {
        position: None,
        locator: Some("chapter 3".into()),
        ..end()
    };
    let event = SessionEnded {
        locator: Some("chapter 3".into()),
        ..ended_in_place()
    };
    expect(command, event);
}

#[test]
fn observation_that_arrives_after_an_end_without_a_position_moves_it() {
    let command = EndSession {
        position: None,
        locator: Some("chapter 3".into()),
        ..end()
    };
    let ended = after(started_log(), SessionCommand::End(command));
    let late = SessionCommand::UpdatePosition(UpdatePosition {
        occurred: delayed(60, 200),
        ..update()
    });
    let progress = progress(&after(ended, late));
    assert_eq!(progress.latest.position, percent(20.0));
    assert_eq!(progress.last_activity_at(), at(90));
}

#[test]
fn end_at_the_latest_position_keeps_its_locator() {
    let command = EndSession {
        position: Some(percent(20.0)),
        ..end()
    };
    let event = SessionEnded {
        position_at: None,
        ..ended_in_place()
    };
    expect(command, event);
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
fn end_without_a_position_keeps_the_time_of_a_wrong_clock() {
    let command = UpdatePosition {
        occurred: shifted(60),
        ..update()
    };
    let events = after(started_log(), SessionCommand::UpdatePosition(command));
    let command = EndSession {
        position: None,
        ..end()
    };
    given(events)
        .when(SessionCommand::End(command))
        .then_expect_events(vec![SessionEvent::SessionEnded(SessionEnded {
            device_time: Some(at(60 + CLOCK_AHEAD)),
            ..ended_in_place()
        })]);
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
            position_at: Some(at(0)),
            locator: Some("chapter 1".into()),
            intervals: Vec::new(),
            active_ms: 0,
            furthest_position: percent(10.0),
            ..ended()
        })]);
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
        intervals: Vec::new(),
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
        intervals: intervals(&[(60, 180)]),
        active_ms: 180_000,
        ..ended()
    };
    expect(command, event);
}

/// An end at 30 seconds in [`updated_log`]. The update at 60 seconds no longer counts.
fn ended_early() -> SessionEnded {
    SessionEnded {
        ended_at: at(30),
        elapsed_ms: 30_000,
        intervals: intervals(&[(0, 30)]),
        intervals_complete: true,
        active_ms: 30_000,
        ..ended()
    }
}

#[test]
fn observations_after_the_end_no_longer_count() {
    let command = EndSession {
        occurred: delayed(30, 200),
        ..end()
    };
    expect(command, ended_early());

    let command = EndSession {
        position: None,
        occurred: delayed(30, 200),
        ..end()
    };
    let event = SessionEnded {
        position: percent(10.0),
        position_at: Some(at(0)),
        locator: Some("chapter 1".into()),
        furthest_position: percent(10.0),
        ..ended_early()
    };
    expect(command, event);
}

#[test]
fn end_before_the_latest_observation_needs_the_timeline() {
    let command = SessionCommand::End(EndSession {
        occurred: delayed(30, 200),
        ..end()
    });
    let decided = ReadingSession::fold(&updated_log()).decide(command, Rules::default(), None);
    assert_eq!(decided, Err(DecideError::TimelineNeeded));
}

#[test]
fn end_before_the_start_ends_the_session_at_its_start() {
    let command = EndSession {
        occurred: delayed(-100, 200),
        ..end()
    };
    let event = SessionEnded {
        ended_at: at(0),
        elapsed_ms: 0,
        intervals: Vec::new(),
        active_ms: 0,
        ..ended_early()
    };
    expect(command, event);
}

#[rstest]
fn end_and_later_observation_give_the_same_result_in_both_orders(
    #[values(
        end(),
        EndSession { position: None, ..end() },
        EndSession { position: Some(percent(10.0)), ..end() },
        EndSession { position: Some(percent(20.0)), ..end() },
        EndSession { position: None, locator: Some("chapter 3".into()), ..end() },
    )]
    end: EndSession,
) {
    let end = SessionCommand::End(EndSession {
        occurred: delayed(30, 200),
        ..end
    });
    let update = SessionCommand::UpdatePosition(update());
    let end_first = after(started_log(), end.clone());
    given(end_first.clone())
        .when(update)
        .then_expect_error(SessionError::Inactive);
    assert_eq!(progress(&after(updated_log(), end)), progress(&end_first));
}

#[rstest]
#[case::the_same(end())]
#[case::earlier(EndSession { occurred: delayed(70, 120), ..end() })]
#[case::later(EndSession { occurred: timed(120), ..end() })]
#[case::untimed(EndSession { occurred: untimed(120), ..end() })]
#[case::without_a_position(EndSession { position: None, ..end() })]
fn second_end_is_refused(
    #[values(ended_log(), ended_in_place_log())] events: Vec<SessionEvent>,
    #[case] again: EndSession,
) {
    given(events)
        .when(SessionCommand::End(again))
        .then_expect_error(SessionError::AlreadyEnded);
}
