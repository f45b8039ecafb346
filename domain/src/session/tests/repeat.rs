//! Observations that arrive twice produce no event.

use rstest::rstest;

use super::*;

/// A second update, one minute after [`update`].
fn second() -> UpdatePosition {
    UpdatePosition {
        position: percent(30.0),
        locator: None,
        occurred: timed(120),
        standing: Standing::Active,
    }
}

fn two_updates() -> Vec<SessionEvent> {
    after(updated_log(), SessionCommand::UpdatePosition(second()))
}

fn expect_none(events: Vec<SessionEvent>, command: UpdatePosition) {
    given(events)
        .when(SessionCommand::UpdatePosition(command))
        .then_expect_events(vec![]);
}

/// The start as an observation.
fn start_again() -> UpdatePosition {
    UpdatePosition {
        position: percent(10.0),
        locator: Some("chapter 1".into()),
        occurred: delayed(0, 500),
        standing: Standing::Active,
    }
}

#[test]
fn repeat_of_the_latest_observation_needs_no_timeline() {
    let decided = ReadingSession::fold(&updated_log()).decide(
        SessionCommand::UpdatePosition(update()),
        Rules::default(),
        None,
    );
    assert_eq!(decided, Ok(Vec::new()));
}

#[rstest]
#[case::of_the_latest(second())]
#[case::of_an_earlier_one(update())]
#[case::of_the_start(start_again())]
fn repeat_produces_no_event(
    #[case] command: UpdatePosition,
    #[values(60, 120, 500)] received: i64,
) {
    let client = command.occurred.client;
    let received = at(received).max(command.occurred.at());
    let occurred = Occurrence::new(client, None, received).unwrap();
    expect_none(
        two_updates(),
        UpdatePosition {
            occurred,
            ..command
        },
    );
}

#[test]
fn repeat_in_a_session_that_is_not_active_produces_no_event() {
    for standing in [Standing::Active, Standing::Superseded] {
        let command = UpdatePosition {
            standing,
            ..update()
        };
        expect_none(superseded_log(), command);
    }
}

#[rstest]
#[case::ended_with_a_position(ended_log())]
#[case::ended_without_a_position(ended_in_place_log())]
fn repeat_in_a_finished_session_produces_no_event(#[case] events: Vec<SessionEvent>) {
    expect_none(events.clone(), update());
    expect_none(events, start_again());
}

#[rstest]
#[case::another_position(UpdatePosition { position: percent(20.5), ..update() })]
#[case::another_locator(UpdatePosition { locator: Some("chapter 3".into()), ..update() })]
#[case::no_locator(UpdatePosition { locator: None, ..update() })]
#[case::another_time(UpdatePosition { occurred: delayed(61, 200), ..update() })]
fn observation_that_differs_is_no_repeat(#[case] command: UpdatePosition) {
    let events = after(two_updates(), SessionCommand::UpdatePosition(command));
    assert_eq!(events.len(), two_updates().len() + 1);
}

/// The session of a device whose clock is ahead. The service places each observation
/// at the arrival of its command.
fn shifted_log() -> Vec<SessionEvent> {
    run([
        SessionCommand::Start(StartSession {
            occurred: shifted(0),
            ..start()
        }),
        SessionCommand::UpdatePosition(UpdatePosition {
            occurred: shifted(60),
            ..update()
        }),
        SessionCommand::UpdatePosition(UpdatePosition {
            occurred: shifted(120),
            ..second()
        }),
    ])
}

/// A repeat that the service shifts by another amount, to `placed`.
fn shifted_repeat(of: &UpdatePosition, placed: i64) -> UpdatePosition {
    UpdatePosition {
        occurred: Occurrence {
            client: Some(at(placed)),
            device_time: Some(of.occurred.at() + TimeDelta::seconds(CLOCK_AHEAD)),
            received: at(5_000),
        },
        ..of.clone()
    }
}

#[rstest]
#[case::placed_at_the_same_time(0)]
#[case::placed_earlier(-1)]
#[case::placed_later(1)]
#[case::placed_at_its_arrival(4_000)]
fn shifted_repeat_produces_no_event(#[case] later: i64) {
    expect_none(shifted_log(), shifted_repeat(&second(), 120 + later));
    expect_none(shifted_log(), shifted_repeat(&update(), 60 + later));
    expect_none(shifted_log(), shifted_repeat(&start_again(), later));
}

#[test]
fn shifted_repeat_is_found_behind_an_observation_of_another_device() {
    for occurred in [timed(180), untimed(180)] {
        let command = UpdatePosition {
            position: percent(40.0),
            occurred,
            ..second()
        };
        let events = after(shifted_log(), SessionCommand::UpdatePosition(command));
        expect_none(events, shifted_repeat(&update(), 4_000));
    }
}

#[test]
fn repeat_that_was_once_ahead_of_the_service_produces_no_event() {
    let time = 120 + CLOCK_AHEAD;
    let command = UpdatePosition {
        occurred: delayed(time, time + 10),
        ..second()
    };
    expect_none(shifted_log(), command);
}
