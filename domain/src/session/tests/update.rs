//! Position updates: in order, late, without a client's time, after the end;
//! active time; locators.

use rstest::rstest;

use super::*;

fn after_update(update: UpdatePosition) -> Observation {
    let session = ReadingSession::fold(&updated_log());
    let events = session
        .decide(SessionCommand::UpdatePosition(update), Rules::default())
        .unwrap();
    let session = ReadingSession::fold(updated_log().iter().chain(&events));
    session.started().unwrap().progress.latest.clone()
}

fn expect(command: UpdatePosition, event: PositionUpdated) {
    given(updated_log())
        .when(SessionCommand::UpdatePosition(command))
        .then_expect_events(vec![SessionEvent::PositionUpdated(event)]);
}

/// The update one minute after [`updated`].
fn next() -> PositionUpdated {
    PositionUpdated {
        occurred_at: at(120),
        position: percent(30.0),
        locator: None,
        previous_at: at(60),
        previous_position: percent(20.0),
        active_ms: 120_000,
        furthest_position: percent(30.0),
        ..updated()
    }
}

/// An update with an earlier time than [`updated`] that arrives after it.
fn late() -> PositionUpdated {
    PositionUpdated {
        occurred_at: at(40),
        position: percent(15.0),
        locator: None,
        applied: false,
        previous_at: at(60),
        previous_position: percent(20.0),
        credited_ms: 0,
        ..updated()
    }
}

#[test]
fn update_records_position_and_active_time() {
    given(started_log())
        .when(SessionCommand::UpdatePosition(update()))
        .then_expect_events(vec![SessionEvent::PositionUpdated(updated())]);
    let session = ReadingSession::fold(&updated_log());
    let session = session.started().unwrap();
    assert!(session.is_active());
    assert_eq!(session.duration(), TimeDelta::seconds(60));
    assert_eq!(session.progress.active_ms, 60_000);
    assert_eq!(session.progress.latest.position, percent(20.0));
}

#[test]
fn second_update_continues_from_the_first() {
    let command = UpdatePosition {
        position: percent(30.0),
        locator: None,
        occurred: timed(120),
    };
    expect(command, next());
}

#[test]
fn backward_update_keeps_the_furthest_position() {
    let command = UpdatePosition {
        position: percent(5.0),
        locator: None,
        occurred: timed(120),
    };
    let event = PositionUpdated {
        position: percent(5.0),
        furthest_position: percent(20.0),
        ..next()
    };
    expect(command, event);
}

#[test]
fn late_update_is_recorded_but_not_applied() {
    let command = UpdatePosition {
        position: percent(15.0),
        locator: None,
        occurred: delayed(40, 70),
    };
    expect(command.clone(), late());
    assert_eq!(
        after_update(command),
        Observation {
            at: at(60),
            position: percent(20.0),
            locator: Some("chapter 2".into()),
        }
    );
}

#[test]
fn late_update_can_raise_the_furthest_position() {
    let command = UpdatePosition {
        position: percent(50.0),
        locator: Some("the end of a leap".into()),
        occurred: delayed(40, 70),
    };
    let event = PositionUpdated {
        position: percent(50.0),
        locator: Some("the end of a leap".into()),
        furthest_position: percent(50.0),
        ..late()
    };
    expect(command.clone(), event);
    assert_eq!(after_update(command).position, percent(20.0));
}

#[test]
fn update_from_before_the_start_is_not_applied() {
    let command = UpdatePosition {
        position: percent(15.0),
        locator: None,
        occurred: delayed(-3_600, 70),
    };
    let event = PositionUpdated {
        occurred_at: at(-3_600),
        ..late()
    };
    expect(command, event);
}

#[test]
fn late_update_does_not_change_the_start_of_the_next_gap() {
    given(updated_log())
        .and(vec![SessionEvent::PositionUpdated(late())])
        .when(SessionCommand::UpdatePosition(UpdatePosition {
            position: percent(30.0),
            locator: None,
            occurred: timed(120),
        }))
        .then_expect_events(vec![SessionEvent::PositionUpdated(next())]);
}

#[rstest]
#[case::further(21.0, Some("chapter 1"), true)]
#[case::not_as_far(19.0, Some("chapter 9"), false)]
#[case::the_same_observation(20.0, Some("chapter 2"), false)]
#[case::the_same_position_with_a_greater_locator(20.0, Some("chapter 3"), true)]
#[case::the_same_position_without_a_locator(20.0, None, false)]
fn equal_times_are_ordered_by_position_then_locator(
    #[case] position: f64,
    #[case] locator: Option<&str>,
    #[case] applied: bool,
) {
    let command = UpdatePosition {
        position: percent(position),
        locator: locator.map(str::to_owned),
        occurred: timed(60),
    };
    let event = PositionUpdated {
        occurred_at: at(60),
        position: command.position,
        locator: command.locator.clone(),
        applied,
        furthest_position: percent(position.max(20.0)),
        ..late()
    };
    expect(command, event);
}

#[rstest]
#[case::in_order(120, 120, 60_000)]
#[case::at_the_same_time(60, 60, 0)]
#[case::server_clock_behind(50, 60, 0)]
fn update_without_client_time_applies_in_arrival_order(
    #[case] received: i64,
    #[case] occurred_at: i64,
    #[case] credited_ms: i64,
) {
    let command = UpdatePosition {
        position: percent(1.0),
        locator: None,
        occurred: untimed(received),
    };
    let event = PositionUpdated {
        occurred_at: at(occurred_at),
        position: percent(1.0),
        credited_ms,
        active_ms: 60_000 + credited_ms,
        furthest_position: percent(20.0),
        ..next()
    };
    expect(command.clone(), event);
    assert_eq!(after_update(command).position, percent(1.0));
}

#[rstest]
#[case::later(timed(120))]
#[case::late(delayed(70, 120))]
#[case::untimed(untimed(120))]
fn update_after_the_end_is_refused(#[case] occurred: Occurrence) {
    given(ended_log())
        .when(SessionCommand::UpdatePosition(UpdatePosition {
            occurred,
            ..update()
        }))
        .then_expect_error(SessionError::Inactive);
}

#[rstest]
#[case(0, 0)]
#[case(1, 1)]
#[case(119_999, 119_999)]
#[case(120_000, 120_000)]
#[case(120_001, 120_000)]
#[case::a_book_left_open_overnight(8 * 3_600_000, 120_000)]
fn gap_is_credited_up_to_two_minutes(#[case] gap_ms: i64, #[case] credited_ms: i64) {
    let occurred_at = at(60) + TimeDelta::milliseconds(gap_ms);
    let command = UpdatePosition {
        position: percent(30.0),
        locator: None,
        occurred: Occurrence::new(Some(occurred_at), occurred_at).unwrap(),
    };
    let event = PositionUpdated {
        occurred_at,
        credited_ms,
        active_ms: 60_000 + credited_ms,
        ..next()
    };
    expect(command, event);
}

#[rstest]
#[case(TimeDelta::zero(), 0)]
#[case(TimeDelta::seconds(10), 10_000)]
#[case(TimeDelta::hours(1), 60_000)]
fn credited_gap_is_limited_by_the_configured_rules(
    #[case] active_gap: TimeDelta,
    #[case] credited_ms: i64,
) {
    let event = PositionUpdated {
        credited_ms,
        active_ms: credited_ms,
        ..updated()
    };
    given_with(Rules { active_gap }, started_log())
        .when(SessionCommand::UpdatePosition(update()))
        .then_expect_events(vec![SessionEvent::PositionUpdated(event)]);
}

#[test]
fn update_replaces_the_locator() {
    let update = |locator| UpdatePosition {
        position: percent(20.0),
        locator,
        occurred: timed(61),
    };
    assert_eq!(
        after_update(update(Some("chapter 3".into()))).locator,
        Some("chapter 3".into())
    );
    assert_eq!(after_update(update(None)).locator, None);
}
