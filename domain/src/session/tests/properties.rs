//! Properties of every sequence of commands, in chronological order or not.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::SessionErased;

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(256)
    }
}

fn at_ms(ms: i64) -> Timestamp {
    at(0) + TimeDelta::milliseconds(ms)
}

/// Milliseconds after the start, in a range so narrow that some values repeat.
fn instants() -> impl Strategy<Value = i64> {
    prop_oneof![0..4_i64, -600_000..3_600_000_i64]
}

fn occurrences() -> impl Strategy<Value = Occurrence> {
    let offsets = prop_oneof![Just(0), -600_000..600_000_i64];
    (instants(), option::of(offsets)).prop_map(|(received, offset)| {
        let client = offset.map(|offset| at_ms(received + offset));
        Occurrence::new(client, at_ms(received)).unwrap()
    })
}

fn positions() -> impl Strategy<Value = Position> {
    prop_oneof![0..4_i32, 0..=1_000_000_i32].prop_map(|steps| Position::from_steps(steps).unwrap())
}

fn locators() -> impl Strategy<Value = Option<String>> {
    option::of("[ab]|\\PC{0,8}")
}

fn books() -> impl Strategy<Value = Book> {
    (
        option::of("\\PC{0,8}"),
        option::of("\\PC{0,8}"),
        option::of(any::<u32>()),
    )
        .prop_map(|(title, author, total_pages)| Book {
            title,
            author,
            total_pages,
        })
}

fn starts() -> impl Strategy<Value = StartSession> {
    let devices = [DeviceType::Mobile, DeviceType::Tablet, DeviceType::Desktop];
    let required = (1..3_u128, positions(), occurrences());
    let optional = (
        option::of(select(devices.to_vec())),
        locators(),
        select(vec![Tz::UTC, ZONE]),
        option::of(books()),
    );
    (required, optional, locators()).prop_map(
        |((reader, position, occurred), (device_type, device_id, time_zone, book), locator)| {
            StartSession {
                reader_id: Uuid::from_u128(reader).into(),
                book_id: self::book(),
                position,
                device_type,
                device_id,
                time_zone,
                locator,
                book,
                occurred,
            }
        },
    )
}

fn updates() -> impl Strategy<Value = UpdatePosition> {
    (positions(), locators(), occurrences()).prop_map(|(position, locator, occurred)| {
        UpdatePosition {
            position,
            locator,
            occurred,
        }
    })
}

fn ends() -> impl Strategy<Value = EndSession> {
    let reasons = vec![EndReason::Finished, EndReason::Superseded, EndReason::Idle];
    (option::of(positions()), select(reasons), occurrences()).prop_map(
        |(position, reason, occurred)| EndSession {
            position,
            reason,
            occurred,
        },
    )
}

fn commands() -> impl Strategy<Value = SessionCommand> {
    prop_oneof![
        2 => starts().prop_map(SessionCommand::Start),
        20 => updates().prop_map(SessionCommand::UpdatePosition),
        1 => ends().prop_map(SessionCommand::End),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    prop_oneof![Just(120_000), 0..600_000_i64].prop_map(|ms| Rules {
        active_gap: TimeDelta::milliseconds(ms),
    })
}

/// Runs the commands one after the other; refused commands produce no event.
fn run(commands: &[SessionCommand], rules: Rules) -> (Vec<SessionEvent>, ReadingSession) {
    let mut session = ReadingSession::default();
    let mut log = Vec::new();
    for command in commands {
        for event in session.decide(command.clone(), rules).unwrap_or_default() {
            session.apply(&event);
            log.push(event);
        }
    }
    (log, session)
}

fn histories() -> impl Strategy<Value = (Vec<SessionEvent>, ReadingSession)> {
    (
        vec(commands(), 0..2),
        starts(),
        vec(commands(), 0..40),
        rules(),
    )
        .prop_map(|(mut before, start, after, rules)| {
            before.push(SessionCommand::Start(start));
            before.extend(after);
            run(&before, rules)
        })
}

/// Applies a batch as a projection does: as one merged change to the stored
/// progress.
fn apply_batch(stored: Option<SessionProgress>, batch: &[SessionEvent]) -> Option<SessionProgress> {
    let change = batch
        .iter()
        .filter_map(SessionEvent::progress_change)
        .reduce(|mut all, later| {
            all.merge(later);
            all
        })?;
    let mut progress = stored.or_else(|| {
        Some(SessionProgress {
            latest: change.latest.clone()?,
            furthest_position: Position::START,
            active_ms: 0,
            ended: None,
        })
    })?;
    progress.apply(change);
    Some(progress)
}

fn credit_of(event: &SessionEvent) -> Option<(Timestamp, i64, i64)> {
    match event {
        SessionEvent::SessionStarted(_) | SessionEvent::SessionErased(_) => None,
        SessionEvent::PositionUpdated(event) => {
            Some((event.previous_at, event.credited_ms, event.active_ms))
        }
        SessionEvent::SessionEnded(event) => {
            Some((event.previous_at, event.credited_ms, event.active_ms))
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn folding_the_log_restores_the_state((log, session) in histories()) {
        prop_assert_eq!(ReadingSession::fold(&log), session);
    }

    /// The event log loads these three events only, however long the session is.
    #[test]
    fn first_last_and_last_moving_event_restore_the_state((log, session) in histories()) {
        let moves = |event: &SessionEvent| event.progress_change().is_some_and(|change| change.latest.is_some());
        let three = [Some(0), log.iter().rposition(moves), log.len().checked_sub(1)];
        let three: BTreeSet<usize> = three.into_iter().flatten().collect();
        let three = three.into_iter().filter_map(|n| log.get(n));
        prop_assert_eq!(ReadingSession::fold(three), session);
    }

    #[test]
    fn batches_of_any_size_give_the_same_progress(
        (log, session) in histories(),
        sizes in vec(1..8_usize, 45),
    ) {
        let mut progress = None;
        let mut rest = log.as_slice();
        for size in sizes {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            if !batch.is_empty() {
                progress = apply_batch(progress, batch);
            }
            rest = later;
        }
        prop_assert!(rest.is_empty());
        prop_assert_eq!(progress.as_ref(), session.started().map(|session| &session.progress));
    }

    /// Times and positions are from a small grid, so that equal times occur often
    /// and the order among them is tested too.
    #[test]
    fn order_of_arrival_does_not_change_the_latest_position(
        start in starts(),
        (observations, deliveries) in vec((0..6_i64, 0..3_i32, option::of("[ab]")), 1..10)
            .prop_flat_map(|observations| {
                let once = (0..observations.len()).collect::<Vec<_>>();
                let deliveries = vec(any::<Index>(), 0..10).prop_flat_map(move |twice| {
                    let twice = twice.iter().map(|index| index.index(once.len()));
                    Just(once.iter().copied().chain(twice).collect::<Vec<_>>()).prop_shuffle()
                });
                (Just(observations), deliveries)
            }),
        delays in vec(0..100_000_i64, 20),
    ) {
        let observations: Vec<_> = observations
            .into_iter()
            .map(|(tenths, steps, locator)| Observation {
                at: start.occurred.at() + TimeDelta::milliseconds(100 * (tenths - 1)),
                position: Position::from_steps(start.position.steps().min(999_998) + steps).unwrap(),
                locator,
            })
            .collect();
        let first = Observation {
            at: start.occurred.at(),
            position: start.position,
            locator: start.locator.clone(),
        };
        let mut commands = vec![SessionCommand::Start(start)];
        commands.extend(deliveries.iter().zip(delays).map(|(delivered, delay)| {
            let Observation { at, position, locator } = observations[*delivered].clone();
            let occurred = Occurrence::new(Some(at), at + TimeDelta::milliseconds(delay)).unwrap();
            SessionCommand::UpdatePosition(UpdatePosition { position, locator, occurred })
        }));
        let (_, session) = run(&commands, Rules::default());

        let progress = &session.started().unwrap().progress;
        let all = || observations.iter().chain([&first]);
        prop_assert_eq!(Some(&progress.latest), all().max());
        prop_assert_eq!(
            Some(progress.furthest_position),
            all().map(|observation| observation.position).max()
        );
    }

    #[test]
    fn active_time_is_the_sum_of_disjoint_intervals((log, session) in histories()) {
        let session = session.started().unwrap();
        let mut counted_until = session.start.started_at;
        let mut sum = 0;
        for (from, credited_ms, active_ms) in log.iter().filter_map(credit_of) {
            prop_assert!(credited_ms >= 0);
            sum += credited_ms;
            prop_assert_eq!(sum, active_ms);
            if credited_ms > 0 {
                prop_assert!(from >= counted_until);
                counted_until = from + TimeDelta::milliseconds(credited_ms);
            }
        }
        prop_assert_eq!(sum, session.progress.active_ms);
        prop_assert!(sum <= session.duration().num_milliseconds());
        prop_assert!(counted_until <= session.progress.latest.at);
    }

    /// An erasure overwrites events one by one, so erasure events can be at any
    /// index of the log, and several of them.
    #[test]
    fn partly_overwritten_session_is_erased(
        (log, _) in histories(),
        overwritten in vec(any::<Index>(), 1..10),
        command in commands(),
    ) {
        let erased = SessionEvent::SessionErased(SessionErased {
            reader_id: reader(),
            erased_at: at(0),
        });
        let mut log = log;
        for index in overwritten {
            let index = index.index(log.len());
            log[index] = erased.clone();
        }
        let session = ReadingSession::fold(&log);
        prop_assert_eq!(session.started(), None);
        let refusal = match command {
            SessionCommand::Start(_) => SessionError::AlreadyStarted,
            SessionCommand::UpdatePosition(_) | SessionCommand::End(_) => SessionError::NotFound,
        };
        prop_assert_eq!(session.decide(command, Rules::default()), Err(refusal));
    }

    #[test]
    fn time_and_furthest_position_never_decrease((log, _) in histories()) {
        let states: Vec<SessionProgress> = (1..=log.len())
            .filter_map(|length| Some(ReadingSession::fold(&log[..length]).started()?.progress.clone()))
            .collect();
        for (before, after) in states.iter().zip(&states[1..]) {
            prop_assert!(before.latest.at <= after.latest.at);
            prop_assert!(before.furthest_position <= after.furthest_position);
            prop_assert!(before.active_ms <= after.active_ms);
            prop_assert!(after.latest.position <= after.furthest_position);
            prop_assert!(before.ended.is_none(), "nothing follows the end");
        }
    }

    #[test]
    fn handle_returns_the_events_of_decide_for_any_rules(
        (log, session) in histories(),
        command in commands(),
        rules in rules(),
    ) {
        let decided = session.decide(command.clone(), rules);
        let handled = given_with(rules, log).when(command).inspect_result();
        prop_assert_eq!(handled, decided);
    }

    #[test]
    fn events_and_sessions_round_trip_through_json((log, session) in histories()) {
        for event in &log {
            let json = serde_json::to_string(event).unwrap();
            prop_assert_eq!(&serde_json::from_str::<SessionEvent>(&json).unwrap(), event);
            // The log stores the name in a column too.
            let value = serde_json::to_value(event).unwrap();
            prop_assert_eq!(value["type"].as_str(), Some(event.name()));
            prop_assert_eq!(&serde_json::from_value::<SessionEvent>(value).unwrap(), event);
        }
        let json = serde_json::to_string(&session).unwrap();
        prop_assert_eq!(serde_json::from_str::<ReadingSession>(&json).unwrap(), session);
    }
}
