//! Properties of every sequence of commands, and of every order of arrival.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::{Intervals, SessionErased, Timeline};

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

/// Facts about one session, in seconds after the start and steps. The numbers are
/// small, so that equal times and positions occur often.
#[derive(Clone, Debug)]
struct Facts {
    observations: Vec<(i64, i32)>,
    end: Option<(i64, Option<i32>)>,
    active_gap: i64,
}

/// The state that the facts determine.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    started_at: i64,
    start_position: i32,
    last_activity_at: i64,
    latest: i32,
    furthest: i32,
    active_seconds: i64,
    ended_at: Option<i64>,
}

impl Facts {
    /// A slow reference: sorts all facts, then looks at each second.
    fn expected(&self) -> Expected {
        let end = self.end.map(|(at, position)| (at.max(0), position));
        let mut seen = vec![(0, 0)];
        seen.extend(&self.observations);
        seen.retain(|(at, _)| end.is_none_or(|(end, _)| *at <= end));
        // Stable: of equal times, the one sent later comes last.
        seen.sort_by_key(|(at, _)| *at);
        let mut times: Vec<i64> = seen.iter().map(|(at, _)| *at).collect();
        times.extend(end.map(|(end, _)| end));
        let (first, last) = (times[0], *times.last().unwrap());
        let is_active = |second: &i64| {
            times
                .iter()
                .any(|at| *at <= *second && *second < at + self.active_gap)
        };
        let final_position = end.and_then(|(_, position)| position);
        let latest = final_position.unwrap_or(seen.last().unwrap().1);
        Expected {
            started_at: first,
            start_position: seen[0].1,
            last_activity_at: last,
            latest,
            furthest: seen
                .iter()
                .map(|(_, steps)| *steps)
                .max()
                .unwrap()
                .max(latest),
            active_seconds: i64::try_from((first..last).filter(is_active).count()).unwrap(),
            ended_at: end.map(|(end, _)| end),
        }
    }

    fn commands(&self) -> Vec<SessionCommand> {
        let position = |steps| Position::from_steps(steps).unwrap();
        let observations = self.observations.iter().map(|(seconds, steps)| {
            SessionCommand::UpdatePosition(UpdatePosition {
                position: position(*steps),
                locator: None,
                occurred: delayed(*seconds, *seconds),
                standing: Standing::Active,
            })
        });
        let end = self.end.iter().map(|(seconds, steps)| {
            SessionCommand::End(EndSession {
                position: steps.map(position),
                locator: None,
                occurred: delayed(*seconds, *seconds),
            })
        });
        observations.chain(end).collect()
    }
}

fn facts() -> impl Strategy<Value = Facts> {
    let seconds = || prop_oneof![-5..15_i64, -300..900_i64];
    (
        vec((seconds(), 0..4_i32), 0..14),
        option::of((seconds(), option::of(0..4_i32))),
        prop_oneof![Just(120_i64), 0..200_i64],
    )
        .prop_map(|(observations, end, active_gap)| {
            // The second one of two equal observations is a repeat.
            let mut known = BTreeSet::from([(0, 0)]);
            Facts {
                observations: observations
                    .into_iter()
                    .filter(|observation| known.insert(*observation))
                    .collect(),
                end,
                active_gap,
            }
        })
}

/// The indexes of deliveries of `count` commands: each at least once, in any order. Of
/// observations with equal times, the first deliveries keep their order.
fn deliveries(facts: &Facts) -> impl Strategy<Value = Vec<usize>> + use<> {
    let count = facts.observations.len() + usize::from(facts.end.is_some());
    let times: Vec<i64> = facts.observations.iter().map(|(at, _)| *at).collect();
    let repeats = vec(any::<Index>(), if count == 0 { 0..1 } else { 0..8 });
    let repeats = repeats.prop_map(move |repeats| {
        let indexes = repeats.iter().filter(|_| count > 0);
        indexes.map(|index| index.index(count)).collect::<Vec<_>>()
    });
    let once = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
    (once, repeats).prop_map(move |(mut order, repeats)| {
        // Sorts the observations of each time among their places.
        for time in times.iter().collect::<BTreeSet<_>>() {
            let places: Vec<usize> = (0..order.len())
                .filter(|place| times.get(order[*place]) == Some(time))
                .collect();
            let mut indexes: Vec<usize> = places.iter().map(|place| order[*place]).collect();
            indexes.sort_unstable();
            for (place, index) in places.into_iter().zip(indexes) {
                order[place] = index;
            }
        }
        order.extend(repeats);
        order
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..config() })]

    #[test]
    fn state_depends_on_the_facts_and_not_on_their_order(
        (facts, order, deactivations) in facts().prop_flat_map(|facts| {
            let order = deliveries(&facts);
            (Just(facts), order, vec(any::<Index>(), 0..3))
        }),
    ) {
        let rules = Rules {
            active_gap: TimeDelta::seconds(facts.active_gap),
        };
        let all = facts.commands();
        let mut commands: Vec<SessionCommand> = order.iter().map(|index| all[*index].clone()).collect();
        // The service may end the session provisionally at any time.
        for index in deactivations {
            let index = index.index(commands.len() + 1);
            commands.insert(index, SessionCommand::Deactivate(EndReason::Superseded));
        }
        let start = StartSession {
            position: Position::START,
            locator: None,
            ..start()
        };
        commands.insert(0, SessionCommand::Start(start));
        let (log, complete) = run(&commands, rules);

        let session = complete.session.started().unwrap();
        let progress = &session.progress;
        let seconds = |time: Timestamp| (time - at(0)).num_seconds();
        let found = Expected {
            started_at: seconds(session.first().at),
            start_position: session.first().position.steps(),
            last_activity_at: seconds(progress.last_activity_at()),
            latest: progress.latest.position.steps(),
            furthest: progress.furthest_position.steps(),
            active_seconds: progress.active_ms / 1_000,
            ended_at: progress
                .ended
                .filter(|ending| ending.is_final())
                .map(|ending| seconds(ending.at)),
        };
        prop_assert_eq!(found, facts.expected());
        if let Some(ending) = progress.ended {
            prop_assert_eq!(ending.at, progress.last_activity_at());
        }
        let reported = reported_intervals(&log);
        prop_assert_eq!(&reported, &complete.timeline.active(rules.active_gap));
        prop_assert_eq!(reported.total_ms(), progress.active_ms);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn folding_the_log_restores_the_state((log, complete) in histories()) {
        prop_assert_eq!(&ReadingSession::fold(&log), &complete.session);
        prop_assert_eq!(&Timeline::fold(&log), &complete.timeline);
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
