//! Ends by the service, which later observations and ends can undo.

use rstest::rstest;

use super::*;

#[rstest]
fn service_ends_a_session_at_its_latest_observation(
    #[values(EndReason::Superseded, EndReason::Idle)] reason: EndReason,
) {
    given(updated_log())
        .when(SessionCommand::Deactivate(reason))
        .then_expect_events(vec![SessionEvent::SessionEnded(SessionEnded {
            reason,
            ..superseded()
        })]);
}

#[test]
fn session_without_an_update_ends_at_its_start() {
    given(started_log())
        .when(SessionCommand::Deactivate(EndReason::Idle))
        .then_expect_events(vec![SessionEvent::SessionEnded(SessionEnded {
            reason: EndReason::Idle,
            ended_at: at(0),
            elapsed_ms: 0,
            position: percent(10.0),
            locator: Some("chapter 1".into()),
            active_ms: 0,
            furthest_position: percent(10.0),
            ..superseded()
        })]);
}

#[test]
fn end_by_the_service_changes_nothing_but_the_end() {
    let before = progress(&updated_log());
    let after = progress(&superseded_log());
    assert_eq!(
        after,
        SessionProgress {
            ended: Some(Ending {
                at: at(60),
                reason: EndReason::Superseded,
            }),
            ..before
        }
    );
    assert!(!after.ended.unwrap().is_final());
    let timeline = |events| Timeline::fold(events);
    assert_eq!(timeline(&superseded_log()), timeline(&updated_log()));
}

#[rstest]
#[case::finished(ended_log())]
#[case::superseded(superseded_log())]
fn session_that_is_not_active_is_not_ended_by_the_service(#[case] events: Vec<SessionEvent>) {
    given(events)
        .when(SessionCommand::Deactivate(EndReason::Idle))
        .then_expect_error(SessionError::AlreadyEnded);
}

#[test]
fn end_by_the_service_keeps_the_time_of_a_wrong_clock() {
    let command = UpdatePosition {
        occurred: shifted(60),
        ..update()
    };
    let events = after(started_log(), SessionCommand::UpdatePosition(command));
    given(events)
        .when(SessionCommand::Deactivate(EndReason::Superseded))
        .then_expect_events(vec![SessionEvent::SessionEnded(SessionEnded {
            device_time: Some(at(60 + CLOCK_AHEAD)),
            ..superseded()
        })]);
}

#[rstest]
#[case::with_a_position(end(), ended())]
#[case::without_a_position(EndSession { position: None, ..end() }, ended_in_place())]
fn reader_ends_a_session_that_the_service_has_ended(
    #[case] command: EndSession,
    #[case] event: SessionEnded,
) {
    given(superseded_log())
        .when(SessionCommand::End(command))
        .then_expect_events(vec![SessionEvent::SessionEnded(event)]);
}

#[test]
fn start_that_is_not_the_newest_can_be_ended_by_the_reader() {
    let command = StartSession {
        standing: Standing::Superseded,
        ..start()
    };
    let events = run([SessionCommand::Start(command)]);
    let progress = progress(&after(events, SessionCommand::End(end())));
    assert_eq!(progress.active_ms, 90_000);
    assert_eq!(
        progress.ended,
        Some(Ending {
            at: at(90),
            reason: EndReason::Finished,
        })
    );
}

/// An offline device sends its session after the service has ended it.
#[test]
fn end_by_the_service_has_no_effect_on_the_result() {
    let commands = [
        SessionCommand::Start(start()),
        SessionCommand::UpdatePosition(update()),
        SessionCommand::Deactivate(EndReason::Idle),
        SessionCommand::UpdatePosition(UpdatePosition {
            position: percent(22.0),
            occurred: delayed(75, 10_000),
            ..update()
        }),
        SessionCommand::End(EndSession {
            occurred: delayed(90, 10_000),
            ..end()
        }),
    ];
    let with = run(commands.clone());
    let without = run(commands
        .into_iter()
        .filter(|command| !matches!(command, SessionCommand::Deactivate(_))));
    assert_eq!(progress(&with), progress(&without));
    assert_eq!(progress(&with).active_ms, 90_000);
}
