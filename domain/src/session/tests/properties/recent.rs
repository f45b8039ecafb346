//! The latest observation times decide a late observation like the whole timeline.

use super::*;
use crate::RecentTimes;

/// An update by the client's time, and perhaps by a clock that the service has shifted.
fn observed(ms: i64, is_shifted: bool, standing: Standing) -> SessionCommand {
    SessionCommand::UpdatePosition(UpdatePosition {
        position: Position::default(),
        locator: None,
        occurred: Occurrence {
            client: Some(at_ms(ms)),
            device_time: is_shifted.then(|| at_ms(ms - 7)),
            received: at_ms(1_000_000),
        },
        standing,
    })
}

/// Mostly updates, so that some sessions have more times than are kept.
fn facts() -> impl Strategy<Value = SessionCommand> {
    let updates = (0..400_i64, prop::bool::weighted(0.005), standings());
    prop_oneof![
        200 => updates.prop_map(|(ms, is_shifted, standing)| observed(ms, is_shifted, standing)),
        1 => select(vec![EndReason::Idle, EndReason::Superseded]).prop_map(SessionCommand::Deactivate),
        1 => ends().prop_map(SessionCommand::End),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn neighbours_decide_like_the_timeline(
        start in starts(),
        facts in vec(facts(), 1..200),
        known_after in any::<Index>(),
        late in vec(0..400_i64, 10),
        rules in rules(),
    ) {
        let known_after = known_after.index(facts.len());
        let mut complete = CompleteSession::default();
        let mut recent = None;
        let commands = std::iter::once(SessionCommand::Start(start)).chain(facts);
        for (n, command) in commands.enumerate() {
            for event in complete.decide(command, rules).unwrap_or_default() {
                complete.apply(&event);
                recent = recent.and_then(|recent: RecentTimes| recent.after(&event));
            }
            if n == known_after {
                recent = RecentTimes::new(&complete.timeline);
            }
        }
        for ms in late {
            let command = observed(ms, false, Standing::Active);
            let neighbours = recent.as_ref().and_then(|recent| recent.neighbours(&command));
            if let Some(neighbours) = neighbours {
                let decided = complete.session.decide(command.clone(), rules, Some(&neighbours));
                let expected = complete.session.decide(command, rules, Some(&complete.timeline));
                prop_assert_eq!(decided, expected);
            }
        }
    }
}

#[test]
fn times_decide_until_a_shifted_observation_or_an_end() {
    let rules = Rules::default();
    let seconds = |seconds: i64| observed(1_000 * seconds, false, Standing::Active);
    let mut complete = CompleteSession::default();
    for command in [
        SessionCommand::Start(start()),
        seconds(10),
        seconds(20),
        seconds(30),
    ] {
        for event in complete.decide(command, rules).unwrap() {
            complete.apply(&event);
        }
    }
    let recent = RecentTimes::new(&complete.timeline).unwrap();
    assert!(recent.neighbours(&seconds(15)).is_some());
    // A repeat, and an observation without a later one.
    assert_eq!(recent.neighbours(&seconds(20)), None);
    assert_eq!(recent.neighbours(&seconds(31)), None);
    let after = |command| {
        let events = complete.decide(command, rules).unwrap();
        events.iter().try_fold(recent.clone(), RecentTimes::after)
    };
    assert!(after(SessionCommand::Deactivate(EndReason::Idle)).is_some());
    assert!(after(seconds(15)).is_some());
    assert_eq!(after(observed(40_000, true, Standing::Active)), None);
    assert_eq!(after(SessionCommand::End(end())), None);
}
