//! Splits a [`Plan`] into calls of the API: in any order, with repeats, and into
//! `start`, `update`, `end`, `batch-update` and `sync`.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::call::{Call, Seen, SyncedSession};
use super::plan::Plan;
use crate::random_history::Random;

/// The largest batch that the API accepts.
const MAX_BATCH: usize = 50;

/// The order in which the parts of a plan arrive.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// As a device that is always online sends them.
    Chronological,
    /// The newest first.
    Reversed,
    Shuffled,
    /// Chronological, except that one session arrives after all others.
    OneSessionLate,
}

impl Order {
    pub const ALL: [Self; 4] = [
        Self::Chronological,
        Self::Reversed,
        Self::Shuffled,
        Self::OneSessionLate,
    ];
}

/// The smallest part of a delivery. Numbers are the indices of a session and of an
/// observation in the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Start(usize),
    /// The observations of one instant stay together: their order decides.
    Observed(usize, Vec<usize>),
    AfterEnd(usize, usize),
    End(usize),
}

/// A random delivery of the whole plan.
#[must_use]
pub fn calls(plan: &Plan, random: &mut Random, order: Order) -> Vec<Call> {
    let mut parts = parts(plan);
    match order {
        Order::Chronological => {}
        Order::Reversed => parts.reverse(),
        Order::Shuffled => shuffle(&mut parts, random),
        Order::OneSessionLate => {
            let sessions = u64::try_from(plan.sessions.len()).expect("few sessions");
            let late = usize::try_from(random.below(sessions)).expect("few sessions");
            parts.sort_by_key(|part| part.session() == late);
        }
    }
    repeat_some(&mut parts, random);
    pack(plan, &parts, random)
}

impl Part {
    fn session(&self) -> usize {
        match self {
            Self::Start(session)
            | Self::Observed(session, _)
            | Self::AfterEnd(session, _)
            | Self::End(session) => *session,
        }
    }
}

/// All parts, in chronological order.
fn parts(plan: &Plan) -> Vec<Part> {
    let mut parts: Vec<(DateTime<Utc>, Part)> = Vec::new();
    for (number, session) in plan.sessions.iter().enumerate() {
        parts.push((session.start.at, Part::Start(number)));
        let all = &session.observations;
        let groups = all.chunk_by(|one, next| one.at == next.at);
        let mut index = 0;
        for group in groups {
            let indices = (index..index + group.len()).collect();
            index += group.len();
            parts.push((group[0].at, Part::Observed(number, indices)));
        }
        if let Some(end) = &session.end {
            parts.push((end.at, Part::End(number)));
        }
        for (index, observation) in session.after_end.iter().enumerate() {
            parts.push((observation.at, Part::AfterEnd(number, index)));
        }
    }
    parts.sort_by_key(|(at, _)| *at);
    parts.into_iter().map(|(_, part)| part).collect()
}

fn shuffle(parts: &mut [Part], random: &mut Random) {
    for index in (1..parts.len()).rev() {
        parts.swap(index, below(random, index + 1));
    }
}

/// Inserts repeats of some parts at random places after them.
fn repeat_some(parts: &mut Vec<Part>, random: &mut Random) {
    for _ in 0..parts.len() / 5 {
        let index = below(random, parts.len());
        let repeated = parts[index].clone();
        let place = index + 1 + below(random, parts.len() - index);
        parts.insert(place, repeated);
    }
}

fn below(random: &mut Random, bound: usize) -> usize {
    let bound = u64::try_from(bound).expect("small");
    usize::try_from(random.below(bound)).expect("small")
}

/// Puts consecutive parts into calls. Each session starts before its other parts.
fn pack(plan: &Plan, parts: &[Part], random: &mut Random) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut started = BTreeSet::new();
    let mut rest = parts;
    while !rest.is_empty() {
        let size = match random.below(4) {
            0 | 1 => 1,
            2 => 1 + below(random, 8),
            _ => 1 + below(random, 40),
        };
        let (chunk, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        if random.below(3) == 0 {
            sync(plan, chunk, &mut started, &mut calls);
        } else {
            let batched = random.below(2) == 0;
            single(chunk, batched, &mut started, &mut calls);
        }
    }
    calls
}

/// One call of `sync` for all sessions of a chunk. What `sync` cannot express follows: ends
/// with a position in calls of their own, because as an observation it would be one that
/// decides which session is active, and some observations in a batch.
fn sync(plan: &Plan, chunk: &[Part], started: &mut BTreeSet<usize>, calls: &mut Vec<Call>) {
    let mut synced: Vec<SyncedSession> = Vec::new();
    let (mut ends, mut others) = (Vec::new(), Vec::new());
    for part in chunk {
        let session = part.session();
        let found = synced.iter().position(|one| one.session == session);
        let found = found.unwrap_or_else(|| {
            synced.push(SyncedSession {
                session,
                observations: Vec::new(),
                ended: false,
            });
            synced.len() - 1
        });
        started.insert(session);
        match part {
            Part::Start(_) => {}
            Part::Observed(_, indices) => {
                let planned = &plan.sessions[session];
                if planned.observations[indices[0]].at < planned.start.at {
                    others.extend(indices.iter().map(|index| Seen::Counted(session, *index)));
                } else {
                    synced[found].observations.extend(indices);
                }
            }
            Part::AfterEnd(_, index) => others.push(Seen::AfterEnd(session, *index)),
            Part::End(_) => {
                let end = plan.sessions[session].end.as_ref();
                if end.is_some_and(|end| end.position.is_some()) {
                    ends.push(Call::End(session));
                } else {
                    synced[found].ended = true;
                }
            }
        }
    }
    calls.push(Call::Sync(synced));
    calls.extend(ends);
    push_batches(&others, calls);
}

fn push_batches(seen: &[Seen], calls: &mut Vec<Call>) {
    calls.extend(
        seen.chunks(MAX_BATCH)
            .map(|seen| Call::Batch(seen.to_vec())),
    );
}

/// Calls for single parts. Consecutive observations become one batch if they are to
/// be `batched`, or are of one instant.
fn single(chunk: &[Part], batched: bool, started: &mut BTreeSet<usize>, calls: &mut Vec<Call>) {
    let mut batch: Vec<Seen> = Vec::new();
    for part in chunk {
        let session = part.session();
        if started.insert(session) {
            push_batches(&std::mem::take(&mut batch), calls);
            calls.push(Call::Start(session));
        } else if *part == Part::Start(session) {
            // A repeat.
            calls.push(Call::Start(session));
        }
        match part {
            Part::Start(_) => {}
            Part::Observed(_, indices) => {
                let mut seen = indices.iter().map(|index| Seen::Counted(session, *index));
                if batched || indices.len() > 1 {
                    if batch.len() + indices.len() > MAX_BATCH {
                        push_batches(&std::mem::take(&mut batch), calls);
                    }
                    batch.extend(seen);
                } else {
                    calls.extend(seen.next().map(Call::Update));
                }
            }
            Part::AfterEnd(_, index) => calls.push(Call::Update(Seen::AfterEnd(session, *index))),
            Part::End(_) => {
                push_batches(&std::mem::take(&mut batch), calls);
                calls.push(Call::End(session));
            }
        }
    }
    push_batches(&batch, calls);
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use eventlog::clock;

    use super::*;
    use crate::facts::plan::Shape;

    /// The session of a call of `start`, and what a call contains besides.
    fn contents(call: &Call) -> (Vec<usize>, Vec<(usize, Option<usize>)>) {
        let counted = |seen: &Seen| match *seen {
            Seen::Counted(session, index) => Some((session, Some(index))),
            Seen::AfterEnd(..) => None,
        };
        match call {
            Call::Start(session) => (vec![*session], Vec::new()),
            Call::Update(seen) => (Vec::new(), counted(seen).into_iter().collect()),
            Call::Batch(all) => (Vec::new(), all.iter().filter_map(counted).collect()),
            Call::End(session) => (Vec::new(), vec![(*session, None)]),
            Call::Sync(sessions) => {
                let started = sessions.iter().map(|one| one.session).collect();
                let all = sessions.iter().flat_map(|one| {
                    let seen = one.observations.iter();
                    let seen = seen.map(|index| (one.session, Some(*index)));
                    seen.chain(one.ended.then_some((one.session, None)))
                });
                (started, all.collect())
            }
        }
    }

    #[test]
    fn every_delivery_is_complete_and_starts_each_session_first() {
        for seed in 1..200 {
            let mut random = Random(seed);
            let shape = [Shape::RECENT, Shape::DAYS, Shape::SPACED];
            let shape = shape[usize::try_from(seed % 3).unwrap()];
            let plan = Plan::random(&mut random, clock::now(), shape);
            for order in Order::ALL {
                let mut started = BTreeSet::new();
                let mut delivered = BTreeSet::new();
                for call in calls(&plan, &mut random, order) {
                    let (starts, others) = contents(&call);
                    started.extend(starts);
                    for part in others {
                        assert!(started.contains(&part.0), "{call:?}");
                        delivered.insert(part);
                    }
                }
                let expected: BTreeSet<_> = plan
                    .sessions
                    .iter()
                    .enumerate()
                    .flat_map(|(number, session)| {
                        let all = 0..session.observations.len();
                        let all = all.map(move |index| (number, Some(index)));
                        all.chain(session.end.is_some().then_some((number, None)))
                    })
                    .collect();
                assert_eq!(delivered, expected);
                assert_eq!(started.len(), plan.sessions.len());
            }
        }
    }

    #[test]
    fn times_of_a_plan_are_in_the_past_and_differ() {
        for seed in 1..200 {
            let now = clock::now();
            let plan = Plan::random(&mut Random(seed), now, Shape::RECENT);
            let mut starts = BTreeSet::new();
            for session in &plan.sessions {
                assert!(starts.insert(session.start.at));
                for observation in session.counted().chain(&session.after_end) {
                    assert!(observation.at < now, "{plan:#?}");
                    assert!(observation.at > now - TimeDelta::hours(2), "{plan:#?}");
                }
                let all = session.observations.iter();
                assert!(all.is_sorted_by_key(|observation| observation.at));
                if let Some(end) = &session.end {
                    assert!(
                        session
                            .counted()
                            .all(|observation| observation.at <= end.at)
                    );
                }
            }
        }
    }
}
