//! A session does not depend on the order in which its facts arrive. A slow reference
//! determines the expected state.

use super::*;

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
