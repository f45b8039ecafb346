//! Observations that arrive after later ones, or after the end of the session.

use rstest::rstest;

use super::*;
use crate::{Observation, TimelineBuilder};

/// The command of [`late`].
fn update_late() -> UpdatePosition {
    UpdatePosition {
        position: percent(15.0),
        locator: None,
        occurred: delayed(40, 200),
        standing: Standing::Active,
    }
}

/// An observation between the start and [`updated`]. It adds no active time, because
/// the time between them counts already.
fn late() -> PositionUpdated {
    PositionUpdated {
        occurred_at: at(40),
        position: percent(15.0),
        locator: None,
        applied: false,
        intervals: Vec::new(),
        ..updated()
    }
}

/// [`update_late`] at another time.
fn late_at(seconds: i64) -> UpdatePosition {
    UpdatePosition {
        occurred: delayed(seconds, 5_000),
        ..update_late()
    }
}

fn expect(events: Vec<SessionEvent>, command: UpdatePosition, event: PositionUpdated) {
    given(events)
        .when(SessionCommand::UpdatePosition(command))
        .then_expect_events(vec![SessionEvent::PositionUpdated(event)]);
}

/// A start, and an update after a gap of 1,000 seconds, of which two minutes count.
fn log_with_a_gap() -> Vec<SessionEvent> {
    let command = UpdatePosition {
        occurred: timed(1_000),
        ..update()
    };
    after(started_log(), SessionCommand::UpdatePosition(command))
}

#[test]
fn late_observation_is_recorded_but_not_applied() {
    expect(updated_log(), update_late(), late());
    let command = SessionCommand::UpdatePosition(update_late());
    assert_eq!(
        progress(&after(updated_log(), command)).latest,
        progress(&updated_log()).latest
    );
}

#[test]
fn late_observation_needs_the_timeline() {
    let decided = ReadingSession::fold(&updated_log()).decide(
        SessionCommand::UpdatePosition(update_late()),
        Rules::default(),
        None,
    );
    assert_eq!(decided, Err(DecideError::TimelineNeeded));
}

#[test]
fn late_observation_can_raise_the_furthest_position() {
    let command = UpdatePosition {
        position: percent(50.0),
        locator: Some("the end of a leap".into()),
        ..update_late()
    };
    let event = PositionUpdated {
        position: percent(50.0),
        locator: Some("the end of a leap".into()),
        furthest_position: percent(50.0),
        ..late()
    };
    expect(updated_log(), command, event);
}

#[rstest]
#[case::all_of_its_gap(500, &[(500, 620)])]
#[case::part_of_its_gap_is_covered(50, &[(120, 170)])]
#[case::up_to_the_next_observation(950, &[(950, 1_000)])]
#[case::at_an_observation(1_000, &[])]
fn late_observation_adds_the_time_that_is_not_covered(
    #[case] time: i64,
    #[case] added: &[(i64, i64)],
) {
    let intervals = intervals(added);
    let event = PositionUpdated {
        occurred_at: at(time),
        active_ms: 120_000 + intervals.iter().map(|interval| interval.ms).sum::<i64>(),
        intervals,
        // The observation that was sent later counts if two times are equal.
        applied: time == 1_000,
        ..late()
    };
    expect(log_with_a_gap(), late_at(time), event);
}

#[test]
fn minute_by_minute_queue_fills_the_gap_in_any_order() {
    let minutes: Vec<i64> = (1..=16).map(|minute| minute * 60).collect();
    let queue = |minutes: &mut dyn Iterator<Item = &i64>| {
        let updates = minutes.map(|minute| SessionCommand::UpdatePosition(late_at(*minute)));
        updates.fold(log_with_a_gap(), after)
    };
    let in_order = progress(&queue(&mut minutes.iter()));
    assert_eq!(in_order.active_ms, 1_000_000);
    assert_eq!(in_order.latest, progress(&log_with_a_gap()).latest);
    assert_eq!(progress(&queue(&mut minutes.iter().rev())), in_order);
}

#[rstest]
#[case::within_the_gap(-30, &[(-30, 0)])]
#[case::long_before(-3_600, &[(-3_600, -3_480)])]
fn observation_before_the_start_moves_the_start(#[case] time: i64, #[case] added: &[(i64, i64)]) {
    let intervals = intervals(added);
    let event = PositionUpdated {
        occurred_at: at(time),
        active_ms: 60_000 + intervals[0].ms,
        intervals,
        started_at: Some(at(time)),
        start_position: Some(percent(15.0)),
        ..late()
    };
    expect(updated_log(), late_at(time), event);

    let events = after(updated_log(), SessionCommand::UpdatePosition(late_at(time)));
    let session = ReadingSession::fold(&events);
    let session = session.started().unwrap();
    assert_eq!(session.first().at, at(time));
    assert_eq!(session.duration(), TimeDelta::seconds(60 - time));
    assert_eq!(session.first().position, percent(15.0));
}

#[test]
fn later_events_keep_the_moved_start() {
    let events = after(updated_log(), SessionCommand::UpdatePosition(late_at(-30)));
    let command = UpdatePosition {
        position: percent(30.0),
        locator: None,
        occurred: timed(120),
        standing: Standing::Active,
    };
    let event = PositionUpdated {
        occurred_at: at(120),
        position: percent(30.0),
        locator: None,
        intervals: intervals(&[(60, 120)]),
        active_ms: 150_000,
        furthest_position: percent(30.0),
        started_at: Some(at(-30)),
        start_position: Some(percent(15.0)),
        ..updated()
    };
    expect(events.clone(), command, event);
    given(events)
        .when(SessionCommand::End(end()))
        .then_expect_events(vec![SessionEvent::SessionEnded(SessionEnded {
            started_at: at(-30),
            start_position: percent(15.0),
            elapsed_ms: 120_000,
            active_ms: 120_000,
            ..ended()
        })]);
}

#[test]
fn late_observation_of_a_session_that_is_not_active_keeps_its_end() {
    let command = UpdatePosition {
        standing: Standing::Superseded,
        ..update_late()
    };
    let event = PositionUpdated {
        ended_at: Some(at(60)),
        end_reason: Some(EndReason::Superseded),
        ..late()
    };
    expect(superseded_log(), command, event);
}

#[test]
fn late_observation_of_an_idle_session_keeps_the_reason() {
    let idle = after(updated_log(), SessionCommand::Deactivate(EndReason::Idle));
    let command = SessionCommand::UpdatePosition(UpdatePosition {
        standing: Standing::Superseded,
        ..update_late()
    });
    let ended = progress(&after(idle, command)).ended;
    assert_eq!(ended.map(|ending| ending.reason), Some(EndReason::Idle));
}

/// A closing app sends both at the same time.
#[test]
fn observation_that_equals_the_end_counts_in_both_orders() {
    let update = SessionCommand::UpdatePosition(UpdatePosition {
        locator: None,
        ..update()
    });
    let end = SessionCommand::End(EndSession {
        position: Some(percent(20.0)),
        locator: None,
        occurred: timed(60),
    });
    let correction = SessionCommand::Correct(CorrectSession {
        ended_at: Some(at(300)),
        received: at(300),
        ..CorrectSession::default()
    });
    let corrected = |commands: [SessionCommand; 2]| {
        let events = commands.into_iter().fold(started_log(), after);
        progress(&after(events, correction.clone()))
    };
    let end_first = corrected([end.clone(), update.clone()]);
    assert_eq!(end_first, corrected([update, end]));
    assert_eq!(end_first.active_ms, 180_000);
}

#[test]
fn update_of_a_finished_session_needs_the_timeline() {
    let command = SessionCommand::UpdatePosition(late_at(80));
    let decided = ReadingSession::fold(&ended_log()).decide(command, Rules::default(), None);
    assert_eq!(decided, Err(DecideError::TimelineNeeded));
}

/// [`late`], recorded in [`ended_log`] or [`ended_in_place_log`].
fn late_in_finished() -> PositionUpdated {
    PositionUpdated {
        active_ms: 90_000,
        ended_at: Some(at(90)),
        end_reason: Some(EndReason::Finished),
        ..late()
    }
}

#[rstest]
#[case::between_observations(40)]
#[case::after_the_latest_observation(80)]
#[case::at_the_end(90)]
fn finished_session_keeps_the_position_of_its_end(#[case] time: i64) {
    let event = PositionUpdated {
        occurred_at: at(time),
        furthest_position: percent(25.0),
        ..late_in_finished()
    };
    expect(ended_log(), late_at(time), event);
}

#[rstest]
#[case::between_observations(40, false)]
#[case::at_the_latest_observation(60, true)]
#[case::after_the_latest_observation(80, true)]
#[case::at_the_end(90, true)]
fn end_without_a_position_takes_it_from_the_latest_observation(
    #[case] time: i64,
    #[case] applied: bool,
) {
    let event = PositionUpdated {
        occurred_at: at(time),
        applied,
        ..late_in_finished()
    };
    expect(ended_in_place_log(), late_at(time), event);

    let command = SessionCommand::UpdatePosition(late_at(time));
    let progress = progress(&after(ended_in_place_log(), command));
    let expected = if applied { 15.0 } else { 20.0 };
    assert_eq!(progress.latest.position, percent(expected));
    assert_eq!(
        progress.ended,
        Some(Ending {
            at: at(90),
            reason: EndReason::Finished,
        })
    );
}

#[rstest]
#[case::timed(timed(91))]
#[case::late(delayed(91, 5_000))]
#[case::untimed(untimed(120))]
#[case::server_clock_behind(untimed(80))]
fn update_after_the_end_of_a_finished_session_is_refused(
    #[values(ended_log(), ended_in_place_log())] events: Vec<SessionEvent>,
    #[case] occurred: Occurrence,
) {
    given(events)
        .when(SessionCommand::UpdatePosition(UpdatePosition {
            occurred,
            ..update()
        }))
        .then_expect_error(SessionError::Inactive);
}

#[test]
fn observations_after_the_end_command_fill_the_gap_before_the_end() {
    let end_first = run([
        SessionCommand::Start(start()),
        SessionCommand::End(EndSession {
            occurred: timed(1_000),
            ..end()
        }),
    ]);
    assert_eq!(progress(&end_first).active_ms, 120_000);
    let events = (1..=16).fold(end_first, |events, minute| {
        after(events, SessionCommand::UpdatePosition(late_at(minute * 60)))
    });
    let progress = progress(&events);
    assert_eq!(progress.active_ms, 1_000_000);
    assert_eq!(progress.latest.position, percent(25.0));
}

#[test]
fn timeline_of_a_long_session_contains_a_bounded_size_of_locators() {
    let locator = "x".repeat(8_192);
    let most = TimelineBuilder::MAX_LOCATOR_BYTES / locator.len();
    let mut builder = TimelineBuilder::default();
    builder.apply(&SessionEvent::SessionStarted(SessionStarted {
        locator: None,
        ..started()
    }));
    // The newest observations come first.
    for nth in 0..i64::try_from(most).unwrap() + 100 {
        builder.apply(&SessionEvent::PositionUpdated(PositionUpdated {
            occurred_at: at(10_000 - nth),
            locator: Some(locator.clone()),
            ..updated()
        }));
    }
    let timeline = builder.build();
    let observation = |seconds, locator: Option<&String>| Observation {
        at: at(seconds),
        device_time: None,
        position: percent(20.0),
        locator: locator.cloned(),
    };
    assert!(timeline.contains(&observation(10_000, Some(&locator))));
    assert!(!timeline.contains(&observation(9_400, Some(&locator))));
    assert!(timeline.contains(&observation(9_400, None)));
}
