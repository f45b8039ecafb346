//! Position updates in chronological order: active time, equal times, updates without
//! a client's time, updates that change whether the session is active, locators.

use rstest::rstest;

use super::*;

fn after_update(update: UpdatePosition) -> Observation {
    progress(&after(
        updated_log(),
        SessionCommand::UpdatePosition(update),
    ))
    .latest
}

fn expect(command: UpdatePosition, event: PositionUpdated) {
    given(updated_log())
        .when(SessionCommand::UpdatePosition(command))
        .then_expect_events(vec![SessionEvent::PositionUpdated(event)]);
}

/// The command of [`next`].
fn update_next() -> UpdatePosition {
    UpdatePosition {
        position: percent(30.0),
        locator: None,
        occurred: timed(120),
        standing: Standing::Active,
    }
}

/// The update one minute after [`updated`].
fn next() -> PositionUpdated {
    PositionUpdated {
        occurred_at: at(120),
        position: percent(30.0),
        locator: None,
        intervals: intervals(&[(60, 120)]),
        active_ms: 120_000,
        furthest_position: percent(30.0),
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
    expect(update_next(), next());
}

#[test]
fn newest_update_needs_no_timeline() {
    for occurred in [timed(120), untimed(120)] {
        let command = UpdatePosition {
            occurred,
            ..update_next()
        };
        let decided = ReadingSession::fold(&updated_log()).decide(
            SessionCommand::UpdatePosition(command),
            Rules::default(),
            None,
        );
        assert_eq!(decided, Ok(vec![SessionEvent::PositionUpdated(next())]));
    }
}

#[test]
fn newest_update_by_a_wrong_clock_needs_no_timeline() {
    let events = run([
        SessionCommand::Start(StartSession {
            occurred: shifted(0),
            ..start()
        }),
        SessionCommand::UpdatePosition(UpdatePosition {
            occurred: shifted(60),
            ..update()
        }),
    ]);
    let command = UpdatePosition {
        occurred: shifted(120),
        ..update_next()
    };
    let decided = ReadingSession::fold(&events).decide(
        SessionCommand::UpdatePosition(command),
        Rules::default(),
        None,
    );
    let event = PositionUpdated {
        device_time: Some(at(120 + CLOCK_AHEAD)),
        ..next()
    };
    assert_eq!(decided, Ok(vec![SessionEvent::PositionUpdated(event)]));
}

#[test]
fn backward_update_keeps_the_furthest_position() {
    let command = UpdatePosition {
        position: percent(5.0),
        ..update_next()
    };
    let event = PositionUpdated {
        position: percent(5.0),
        furthest_position: percent(20.0),
        ..next()
    };
    expect(command, event);
}

#[rstest]
#[case::further(21.0, Some("chapter 1"))]
#[case::not_as_far(19.0, Some("chapter 9"))]
#[case::the_same_position_with_another_locator(20.0, Some("chapter 1"))]
#[case::the_same_position_without_a_locator(20.0, None)]
fn of_two_updates_with_the_same_time_the_later_one_counts(
    #[case] position: f64,
    #[case] locator: Option<&str>,
) {
    let command = UpdatePosition {
        position: percent(position),
        locator: locator.map(str::to_owned),
        occurred: delayed(60, 70),
        standing: Standing::Active,
    };
    let event = PositionUpdated {
        position: command.position,
        locator: command.locator.clone(),
        intervals: Vec::new(),
        furthest_position: percent(position.max(20.0)),
        ..updated()
    };
    expect(command.clone(), event);
    assert_eq!(after_update(command).position, percent(position));
}

#[test]
fn update_at_the_start_time_replaces_the_start_position() {
    let command = UpdatePosition {
        occurred: timed(0),
        ..update()
    };
    given(started_log())
        .when(SessionCommand::UpdatePosition(command))
        .then_expect_events(vec![SessionEvent::PositionUpdated(PositionUpdated {
            occurred_at: at(0),
            intervals: Vec::new(),
            active_ms: 0,
            ..updated()
        })]);
}

#[rstest]
#[case::in_order(120, 120)]
#[case::at_the_same_time(60, 60)]
#[case::server_clock_behind(50, 60)]
fn update_without_client_time_applies_in_arrival_order(
    #[case] received: i64,
    #[case] occurred_at: i64,
) {
    let command = UpdatePosition {
        position: percent(1.0),
        occurred: untimed(received),
        ..update_next()
    };
    let added: &[_] = if occurred_at > 60 {
        &[(60, occurred_at)]
    } else {
        &[]
    };
    let event = PositionUpdated {
        occurred_at: at(occurred_at),
        position: percent(1.0),
        intervals: intervals(added),
        active_ms: occurred_at * 1_000,
        furthest_position: percent(20.0),
        ..next()
    };
    expect(command.clone(), event);
    assert_eq!(after_update(command).position, percent(1.0));
}

#[test]
fn equal_updates_without_client_time_are_two_observations() {
    let command = UpdatePosition {
        occurred: untimed(120),
        ..update_next()
    };
    let events = after(
        updated_log(),
        SessionCommand::UpdatePosition(command.clone()),
    );
    given(events)
        .when(SessionCommand::UpdatePosition(command))
        .then_expect_events(vec![SessionEvent::PositionUpdated(PositionUpdated {
            intervals: Vec::new(),
            ..next()
        })]);
}

#[rstest]
fn update_of_a_session_that_is_not_active_moves_its_end(
    #[values(updated_log(), superseded_log())] events: Vec<SessionEvent>,
) {
    let command = UpdatePosition {
        standing: Standing::Superseded,
        ..update_next()
    };
    let event = SessionEvent::PositionUpdated(PositionUpdated {
        ended_at: Some(at(120)),
        end_reason: Some(EndReason::Superseded),
        ..next()
    });
    given(events.clone())
        .when(SessionCommand::UpdatePosition(command.clone()))
        .then_expect_events(vec![event]);
    let ended = progress(&after(events, SessionCommand::UpdatePosition(command))).ended;
    assert_eq!(
        ended,
        Some(Ending {
            at: at(120),
            reason: EndReason::Superseded,
        })
    );
}

#[rstest]
#[case::timed(timed(120))]
#[case::untimed(untimed(120))]
fn newest_update_makes_a_superseded_session_active_again(#[case] occurred: Occurrence) {
    let command = SessionCommand::UpdatePosition(UpdatePosition {
        occurred,
        ..update_next()
    });
    given(superseded_log())
        .when(command.clone())
        .then_expect_events(vec![SessionEvent::PositionUpdated(next())]);
    let session = ReadingSession::fold(&after(superseded_log(), command));
    assert!(session.started().unwrap().is_active());
}

/// A log with an end of version 2, which credited the time from the latest observation
/// to the start of the next session.
fn log_with_a_credited_end() -> Vec<SessionEvent> {
    let mut events = updated_log();
    events.push(SessionEvent::SessionEnded(SessionEnded {
        ended_at: at(90),
        elapsed_ms: 90_000,
        position_at: Some(at(60)),
        intervals: intervals(&[(60, 90)]),
        active_ms: 90_000,
        ..superseded()
    }));
    events
}

#[test]
fn session_with_a_credited_end_lasts_up_to_it() {
    let session = ReadingSession::fold(&log_with_a_credited_end());
    let session = session.started().unwrap();
    assert_eq!(session.duration(), TimeDelta::seconds(90));
    assert_eq!(session.progress.last_activity_at(), at(60));
}

#[rstest]
#[case::later(120, &[(90, 120)])]
#[case::within_the_credited_time(80, &[])]
#[case::long_after_the_credited_time(3_600, &[(90, 180)])]
fn update_counts_the_time_of_a_credited_end_once(#[case] time: i64, #[case] added: &[(i64, i64)]) {
    let command = UpdatePosition {
        occurred: timed(time),
        ..update_next()
    };
    let intervals = intervals(added);
    let event = PositionUpdated {
        occurred_at: at(time),
        active_ms: 90_000 + intervals.iter().map(|interval| interval.ms).sum::<i64>(),
        intervals,
        ..next()
    };
    given(log_with_a_credited_end())
        .when(SessionCommand::UpdatePosition(command))
        .then_expect_events(vec![SessionEvent::PositionUpdated(event)]);
}

/// The session stays superseded, so each update reaches a session with the credited end.
#[test]
fn two_updates_count_the_time_of_a_credited_end_once() {
    let mut events = log_with_a_credited_end();
    for time in [70, 80] {
        let command = UpdatePosition {
            occurred: delayed(time, 200),
            standing: Standing::Superseded,
            ..update_next()
        };
        events = after(events, SessionCommand::UpdatePosition(command));
    }
    let progress = progress(&events);
    assert_eq!(progress.active_ms, 90_000);
    assert_eq!(progress.ended.map(|ending| ending.at), Some(at(90)));
}

#[rstest]
#[case::later(120, 120_000)]
#[case::at_the_credited_end(90, 90_000)]
#[case::within_the_credited_time(80, 80_000)]
#[case::long_after_the_credited_time(3_600, 180_000)]
fn end_counts_the_time_of_a_credited_end_once(#[case] time: i64, #[case] active_ms: i64) {
    let command = EndSession {
        occurred: timed(time),
        ..end()
    };
    let events = after(log_with_a_credited_end(), SessionCommand::End(command));
    assert_eq!(progress(&events).active_ms, active_ms);
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
        occurred: Occurrence::new(Some(occurred_at), None, occurred_at).unwrap(),
        ..update_next()
    };
    let added = Interval {
        from: at(60),
        ms: credited_ms,
    };
    let event = PositionUpdated {
        occurred_at,
        intervals: Some(added)
            .filter(|added| added.ms > 0)
            .into_iter()
            .collect(),
        active_ms: 60_000 + credited_ms,
        ..next()
    };
    expect(command, event);
}

#[rstest]
#[case(TimeDelta::zero(), &[])]
#[case(TimeDelta::seconds(10), &[(0, 10)])]
#[case(TimeDelta::hours(1), &[(0, 60)])]
fn credited_gap_is_limited_by_the_configured_rules(
    #[case] active_gap: TimeDelta,
    #[case] added: &[(i64, i64)],
) {
    let rules = Rules { active_gap };
    let intervals = intervals(added);
    let event = PositionUpdated {
        active_ms: intervals.iter().map(|interval| interval.ms).sum(),
        intervals,
        ..updated()
    };
    given_with(rules, started_log())
        .when(SessionCommand::UpdatePosition(update()))
        .then_expect_events(vec![SessionEvent::PositionUpdated(event)]);
}

#[test]
fn update_replaces_the_locator() {
    let update = |locator| UpdatePosition {
        locator,
        occurred: timed(61),
        ..update()
    };
    assert_eq!(
        after_update(update(Some("chapter 3".into()))).locator,
        Some("chapter 3".into())
    );
    assert_eq!(after_update(update(None)).locator, None);
}
