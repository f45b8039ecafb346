//! Properties of every sequence of commands, and of every order of arrival.

mod order;
mod recent;

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::{Intervals, SessionErased, Timeline, TimelineBuilder};

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
    let clocks = option::of(-600_000..600_000_i64);
    (instants(), option::of(offsets), clocks).prop_map(|(received, offset, sent_at)| {
        let client = offset.map(|offset| at_ms(received + offset));
        let sent_at = sent_at.map(|offset| at_ms(received + offset));
        Occurrence::new(client, sent_at, at_ms(received)).unwrap()
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

fn standings() -> impl Strategy<Value = Standing> {
    select(vec![Standing::Active, Standing::Superseded])
}

fn starts() -> impl Strategy<Value = StartSession> {
    let devices = [DeviceType::Mobile, DeviceType::Tablet, DeviceType::Desktop];
    let required = (1..3_u128, positions(), occurrences(), standings());
    let zones = vec![None, Some(ZoneName::UTC), Some(zone())];
    let optional = (
        option::of(select(devices.to_vec())),
        locators(),
        select(zones),
        option::of(books()),
    );
    (required, optional, locators()).prop_map(
        |(
            (reader, position, occurred, standing),
            (device_type, device_id, time_zone, book),
            locator,
        )| {
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
                standing,
            }
        },
    )
}

fn updates() -> impl Strategy<Value = UpdatePosition> {
    (positions(), locators(), occurrences(), standings()).prop_map(
        |(position, locator, occurred, standing)| UpdatePosition {
            position,
            locator,
            occurred,
            standing,
        },
    )
}

fn ends() -> impl Strategy<Value = EndSession> {
    (option::of(positions()), locators(), occurrences()).prop_map(
        |(position, locator, occurred)| EndSession {
            position,
            locator,
            occurred,
        },
    )
}

fn corrections() -> impl Strategy<Value = CorrectSession> {
    let active = option::of((0..4_000_000_i64).prop_map(TimeDelta::milliseconds));
    (
        option::of(instants()),
        option::of(positions()),
        active,
        instants(),
    )
        .prop_map(|(ended_at, position, active, received)| CorrectSession {
            ended_at: ended_at.map(at_ms),
            position,
            active,
            received: at_ms(received),
        })
}

fn commands() -> impl Strategy<Value = SessionCommand> {
    let reasons = select(vec![EndReason::Superseded, EndReason::Idle]);
    prop_oneof![
        2 => starts().prop_map(SessionCommand::Start),
        20 => updates().prop_map(SessionCommand::UpdatePosition),
        1 => ends().prop_map(SessionCommand::End),
        2 => reasons.prop_map(SessionCommand::Deactivate),
        1 => corrections().prop_map(SessionCommand::Correct),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    prop_oneof![Just(120_000), 0..600_000_i64].prop_map(|ms| Rules {
        active_gap: TimeDelta::milliseconds(ms),
    })
}

/// Runs the commands one after the other; refused commands produce no event.
fn run(commands: &[SessionCommand], rules: Rules) -> (Vec<SessionEvent>, CompleteSession) {
    let mut session = CompleteSession::default();
    let mut log = Vec::new();
    for command in commands {
        for event in session.decide(command.clone(), rules).unwrap_or_default() {
            session.apply(&event);
            log.push(event);
        }
    }
    (log, session)
}

fn histories() -> impl Strategy<Value = (Vec<SessionEvent>, CompleteSession)> {
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
/// session.
fn apply_batch(stored: Option<StartedSession>, batch: &[SessionEvent]) -> Option<StartedSession> {
    let change = batch
        .iter()
        .filter_map(SessionEvent::progress_change)
        .reduce(|mut all, later| {
            all.merge(later);
            all
        })?;
    let mut session = stored.or_else(|| ReadingSession::fold(&batch[..1]).started().cloned())?;
    session.apply(change);
    Some(session)
}

/// The union of the intervals that the events report.
fn reported_intervals(log: &[SessionEvent]) -> Intervals {
    let mut all = Intervals::default();
    for event in log {
        match event {
            SessionEvent::SessionEnded(event) if event.intervals_complete => {
                all = Intervals::union(event.intervals.iter().copied());
            }
            SessionEvent::SessionEnded(event) => all.add(event.intervals.iter().copied()),
            SessionEvent::PositionUpdated(event) => all.add(event.intervals.iter().copied()),
            SessionEvent::SessionStarted(_) | SessionEvent::SessionErased(_) => {}
        }
    }
    all
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn folding_the_log_restores_the_state((log, complete) in histories()) {
        prop_assert_eq!(&ReadingSession::fold(&log), &complete.session);
        prop_assert_eq!(&Timeline::fold(&log), &complete.timeline);
        let mut built = TimelineBuilder::default();
        for event in &log {
            built.apply(event);
        }
        prop_assert_eq!(&built.build(), &complete.timeline);
    }

    /// The event log loads these three events only, however long the session is.
    #[test]
    fn first_last_and_last_moving_event_restore_the_state((log, complete) in histories()) {
        let moves = |event: &SessionEvent| event.progress_change().is_some_and(|change| change.latest.is_some());
        let three = [Some(0), log.iter().rposition(moves), log.len().checked_sub(1)];
        let three: BTreeSet<usize> = three.into_iter().flatten().collect();
        let three = three.into_iter().filter_map(|n| log.get(n));
        prop_assert_eq!(ReadingSession::fold(three), complete.session);
    }

    #[test]
    fn batches_of_any_size_give_the_same_session(
        (log, complete) in histories(),
        sizes in vec(1..8_usize, 45),
    ) {
        let mut session = None;
        let mut rest = log.as_slice();
        for size in sizes {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            if !batch.is_empty() {
                session = apply_batch(session, batch);
            }
            rest = later;
        }
        prop_assert!(rest.is_empty());
        prop_assert_eq!(session.as_ref(), complete.session.started());
    }

    /// Without the timeline, a decision is the same or asks for the timeline.
    #[test]
    fn timeline_does_not_change_a_decision((_, complete) in histories(), command in commands(), rules in rules()) {
        let alone = complete.session.decide(command.clone(), rules, None);
        if alone != Err(DecideError::TimelineNeeded) {
            prop_assert_eq!(alone, complete.session.decide(command, rules, Some(&complete.timeline)));
        }
    }

    #[test]
    fn newest_observation_of_a_session_needs_no_timeline(
        (_, complete) in histories(),
        position in positions(),
        gap in 1..600_000_i64,
    ) {
        let session = complete.session.started().unwrap();
        let latest = session.progress.latest.sent_time().max(session.progress.latest.at);
        let newest = latest + TimeDelta::milliseconds(gap);
        let command = SessionCommand::UpdatePosition(UpdatePosition {
            position,
            locator: None,
            occurred: Occurrence::new(Some(newest), None, newest).unwrap(),
            standing: Standing::Active,
        });
        let decided = complete.session.decide(command, Rules::default(), None);
        prop_assert!(session.is_finished() || decided.is_ok());
    }

    #[test]
    fn active_time_is_the_sum_of_disjoint_intervals((log, complete) in histories()) {
        let session = complete.session.started().unwrap();
        let reported = reported_intervals(&log);
        prop_assert_eq!(reported.total_ms(), session.progress.active_ms);
        prop_assert!(session.progress.active_ms <= session.duration().num_milliseconds());
        for interval in reported.iter() {
            prop_assert!(session.first().at <= interval.from);
            prop_assert!(interval.to() <= session.progress.last_activity_at());
        }
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
            _ => SessionError::NotFound,
        };
        let decided = session.decide(command, Rules::default(), None);
        prop_assert_eq!(decided, Err(refusal.into()));
    }

    #[test]
    fn handle_returns_the_events_of_decide_for_any_rules(
        (log, complete) in histories(),
        command in commands(),
        rules in rules(),
    ) {
        let decided = complete.decide(command.clone(), rules);
        let handled = given_with(rules, log).when(command).inspect_result();
        prop_assert_eq!(handled, decided);
    }

    #[test]
    fn events_and_sessions_round_trip_through_json((log, complete) in histories()) {
        for event in &log {
            let json = serde_json::to_string(event).unwrap();
            prop_assert_eq!(&serde_json::from_str::<SessionEvent>(&json).unwrap(), event);
            // The log stores the name in a column too.
            let value = serde_json::to_value(event).unwrap();
            prop_assert_eq!(value["type"].as_str(), Some(event.name()));
            prop_assert_eq!(&serde_json::from_value::<SessionEvent>(value).unwrap(), event);
        }
        let json = serde_json::to_string(&complete).unwrap();
        prop_assert_eq!(serde_json::from_str::<CompleteSession>(&json).unwrap(), complete);
    }
}
