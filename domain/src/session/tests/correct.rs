//! Corrections of ended sessions, and observations that arrive after them.

use rstest::rstest;

use super::*;

/// The time at which the corrections of these tests arrive.
const RECEIVED: i64 = 10_000;

fn correct() -> CorrectSession {
    CorrectSession {
        received: at(RECEIVED),
        ..CorrectSession::default()
    }
}

fn correct_end(seconds: i64) -> CorrectSession {
    CorrectSession {
        ended_at: Some(at(seconds)),
        ..correct()
    }
}

fn correct_active(seconds: i64) -> CorrectSession {
    CorrectSession {
        active: Some(TimeDelta::seconds(seconds)),
        ..correct()
    }
}

/// A start, updates after one and after ten minutes, and an end after eleven. The
/// active time is four of them.
fn log() -> Vec<SessionEvent> {
    run([
        SessionCommand::Start(start()),
        SessionCommand::UpdatePosition(update()),
        SessionCommand::UpdatePosition(UpdatePosition {
            position: percent(30.0),
            locator: Some("chapter 3".into()),
            occurred: timed(600),
            standing: Standing::Active,
        }),
        SessionCommand::End(EndSession {
            position: None,
            locator: None,
            occurred: timed(660),
        }),
    ])
}

/// A correction of [`log`] that changes nothing.
fn corrected() -> SessionEnded {
    SessionEnded {
        ended_at: at(660),
        elapsed_ms: 660_000,
        position: percent(30.0),
        position_at: Some(at(600)),
        locator: Some("chapter 3".into()),
        intervals: intervals(&[(0, 180), (600, 660)]),
        intervals_complete: true,
        corrected: true,
        active_ms: 240_000,
        furthest_position: percent(30.0),
        ..ended()
    }
}

fn expect(command: CorrectSession, event: SessionEnded) {
    given(log())
        .when(SessionCommand::Correct(command))
        .then_expect_events(vec![SessionEvent::SessionEnded(event)]);
}

fn after_correction(command: CorrectSession) -> Vec<SessionEvent> {
    after(log(), SessionCommand::Correct(command))
}

#[test]
fn earlier_end_discounts_the_observations_after_it() {
    let event = SessionEnded {
        ended_at: at(300),
        elapsed_ms: 300_000,
        position: percent(20.0),
        position_at: Some(at(60)),
        locator: Some("chapter 2".into()),
        intervals: intervals(&[(0, 180)]),
        active_ms: 180_000,
        furthest_position: percent(20.0),
        ..corrected()
    };
    expect(correct_end(300), event);
}

#[test]
fn later_end_adds_the_time_up_to_it() {
    let event = SessionEnded {
        ended_at: at(700),
        elapsed_ms: 700_000,
        intervals: intervals(&[(0, 180), (600, 700)]),
        active_ms: 280_000,
        ..corrected()
    };
    expect(correct_end(700), event);
}

#[test]
fn later_end_restores_observations_that_an_earlier_one_discounted() {
    let events = after(
        after_correction(correct_end(300)),
        SessionCommand::Correct(correct_end(660)),
    );
    assert_eq!(progress(&events), progress(&log()));
}

#[test]
fn corrected_position_is_at_the_end() {
    let command = CorrectSession {
        position: Some(percent(15.0)),
        ..correct()
    };
    let event = SessionEnded {
        position: percent(15.0),
        position_at: None,
        locator: None,
        ..corrected()
    };
    expect(command, event);
    let latest = progress(&after_correction(command)).latest;
    assert_eq!((latest.at, latest.position), (at(660), percent(15.0)));
}

#[test]
fn corrected_end_keeps_a_position_of_the_reader() {
    let event = SessionEnded {
        ended_at: at(70),
        elapsed_ms: 70_000,
        intervals: intervals(&[(0, 70)]),
        intervals_complete: true,
        corrected: true,
        active_ms: 70_000,
        ..ended()
    };
    given(ended_log())
        .when(SessionCommand::Correct(correct_end(70)))
        .then_expect_events(vec![SessionEvent::SessionEnded(event)]);
}

#[rstest]
#[case::shorter(200, &[(0, 180), (600, 620)])]
#[case::longer_than_observed(300, &[(0, 240), (600, 660)])]
#[case::zero(0, &[])]
#[case::whole_session(660, &[(0, 660)])]
#[case::as_observed(240, &[(0, 180), (600, 660)])]
fn corrected_active_time_is_laid_into_the_session(
    #[case] seconds: i64,
    #[case] expected: &[(i64, i64)],
) {
    let event = SessionEnded {
        intervals: intervals(expected),
        active_ms: seconds * 1_000,
        active_fixed: true,
        ..corrected()
    };
    expect(correct_active(seconds), event);
}

#[test]
fn all_values_are_corrected_at_once() {
    let command = CorrectSession {
        ended_at: Some(at(300)),
        position: Some(percent(22.0)),
        active: Some(TimeDelta::seconds(200)),
        ..correct()
    };
    let event = SessionEnded {
        ended_at: at(300),
        elapsed_ms: 300_000,
        position: percent(22.0),
        position_at: None,
        locator: None,
        intervals: intervals(&[(0, 200)]),
        active_ms: 200_000,
        active_fixed: true,
        furthest_position: percent(22.0),
        ..corrected()
    };
    expect(command, event);
}

#[rstest]
#[case::before_the_start(correct_end(-1), SessionError::CorrectedEnd)]
#[case::in_the_future(correct_end(RECEIVED + 1), SessionError::CorrectedEnd)]
#[case::longer_than_the_session(correct_active(661), SessionError::CorrectedActiveTime)]
#[case::longer_than_the_corrected_session(
    CorrectSession { ended_at: Some(at(100)), ..correct_active(101) },
    SessionError::CorrectedActiveTime
)]
fn correction_out_of_range_is_refused(
    #[case] command: CorrectSession,
    #[case] error: SessionError,
) {
    given(log())
        .when(SessionCommand::Correct(command))
        .then_expect_error(error);
}

#[rstest]
#[case::at_the_start(correct_end(0))]
#[case::now(correct_end(RECEIVED))]
#[case::all_of_the_session(correct_active(660))]
fn correction_at_the_limit_is_accepted(#[case] command: CorrectSession) {
    assert_eq!(after_correction(command).len(), log().len() + 1);
}

#[test]
fn server_clock_behind_does_not_refuse_the_present_end() {
    let command = CorrectSession {
        received: at(0),
        ..correct_end(660)
    };
    given(log())
        .when(SessionCommand::Correct(command))
        .then_expect_events(vec![]);
}

#[test]
fn active_session_is_not_corrected() {
    given(updated_log())
        .when(SessionCommand::Correct(correct_end(300)))
        .then_expect_error(SessionError::StillActive);
}

#[test]
fn correction_needs_the_timeline() {
    let command = SessionCommand::Correct(correct_end(300));
    let decided = ReadingSession::fold(&log()).decide(command, Rules::default(), None);
    assert_eq!(decided, Err(DecideError::TimelineNeeded));
}

/// A correction is the reader's word about the end, so it is final.
#[test]
fn correction_of_an_end_by_the_service_is_the_end_of_the_reader() {
    let event = SessionEnded {
        ended_at: at(80),
        elapsed_ms: 80_000,
        intervals: intervals(&[(0, 80)]),
        intervals_complete: true,
        corrected: true,
        active_ms: 80_000,
        ..ended_in_place()
    };
    given(superseded_log())
        .when(SessionCommand::Correct(correct_end(80)))
        .then_expect_events(vec![SessionEvent::SessionEnded(event.clone())]);
    let mut events = superseded_log();
    events.push(SessionEvent::SessionEnded(event));
    given(events)
        .when(SessionCommand::UpdatePosition(UpdatePosition {
            occurred: timed(81),
            ..update()
        }))
        .then_expect_error(SessionError::Inactive);
}

#[rstest]
#[case::without_values(correct())]
#[case::present_end(correct_end(660))]
fn correction_that_changes_nothing_produces_no_event(#[case] command: CorrectSession) {
    given(log())
        .when(SessionCommand::Correct(command))
        .then_expect_events(vec![]);
}

#[rstest]
#[case::end(correct_end(300))]
#[case::position(CorrectSession { position: Some(percent(15.0)), ..correct() })]
#[case::observed_position(CorrectSession { position: Some(percent(30.0)), ..correct() })]
#[case::active_time(correct_active(200))]
#[case::everything(CorrectSession {
    ended_at: Some(at(300)),
    position: Some(percent(20.0)),
    ..correct_active(200)
})]
fn repeated_correction_produces_no_event(#[case] command: CorrectSession) {
    let events = after_correction(command);
    assert_eq!(events.len(), log().len() + 1);
    given(events)
        .when(SessionCommand::Correct(command))
        .then_expect_events(vec![]);
}

#[test]
fn later_correction_keeps_a_corrected_active_time_that_fits() {
    let events = after_correction(correct_active(200));
    let progress = |end| {
        let command = SessionCommand::Correct(correct_end(end));
        progress(&after(events.clone(), command))
    };
    assert_eq!(progress(400).active_ms, 200_000);
    assert_eq!(progress(150).active_ms, 150_000);
    assert!(progress(400).active_fixed && progress(150).active_fixed);
}

#[test]
fn late_observation_adds_no_time_to_a_corrected_active_time() {
    let update = |seconds| {
        SessionCommand::UpdatePosition(UpdatePosition {
            position: percent(40.0),
            occurred: delayed(seconds, RECEIVED),
            ..update()
        })
    };
    given(after_correction(correct_active(200)))
        .when(update(400))
        .then_expect_events(vec![SessionEvent::PositionUpdated(PositionUpdated {
            occurred_at: at(400),
            position: percent(40.0),
            applied: false,
            intervals: Vec::new(),
            active_ms: 200_000,
            active_fixed: true,
            furthest_position: percent(40.0),
            ended_at: Some(at(660)),
            end_reason: Some(EndReason::Finished),
            ..updated()
        })]);
}

#[test]
fn late_observation_before_a_corrected_end_counts() {
    let late = |seconds| {
        SessionCommand::UpdatePosition(UpdatePosition {
            position: percent(25.0),
            occurred: delayed(seconds, RECEIVED),
            ..update()
        })
    };
    let progress = progress(&after(after_correction(correct_end(300)), late(250)));
    assert_eq!(progress.active_ms, 230_000);
    assert_eq!(progress.latest.at, at(250));
    assert_eq!(progress.latest.position, percent(25.0));
    given(after_correction(correct_end(300)))
        .when(late(301))
        .then_expect_error(SessionError::Inactive);
}

#[rstest]
#[case::other(15.0)]
#[case::observed(30.0)]
fn late_observation_does_not_replace_a_corrected_position(#[case] position: f64) {
    let command = CorrectSession {
        position: Some(percent(position)),
        ..correct()
    };
    let late = UpdatePosition {
        position: percent(25.0),
        occurred: delayed(650, RECEIVED),
        ..update()
    };
    let events = after(
        after_correction(command),
        SessionCommand::UpdatePosition(late),
    );
    assert_eq!(progress(&events).latest.position, percent(position));
}
