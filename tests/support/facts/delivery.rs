//! Splits a [`Plan`] into calls of the API: in any order, with repeats, and into
//! `start`, `update`, `end`, `batch-update` and `sync`.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use eventlog::clock;
use reqwest::Method;
use serde_json::{Value, json};

use super::plan::{Observation, Plan};
use super::view::Ids;
use crate::random_history::Random;
use crate::reader::ApiResponse;

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

/// The clock of the devices.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// How far the clock is ahead. `None` if it is right; only `sync` then contains
    /// `sent_at`.
    pub ahead: Option<TimeDelta>,
}

impl Device {
    pub const PUNCTUAL: Self = Self { ahead: None };

    /// A time by this clock.
    fn time(self, at: DateTime<Utc>) -> DateTime<Utc> {
        at + self.ahead.unwrap_or_default()
    }

    /// Adds `sent_at` to a body.
    fn sign(self, mut body: Value) -> Value {
        body["sent_at"] = json!(self.time(clock::now()));
        body
    }
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

/// An observation of a plan.
#[derive(Clone, Copy, Debug)]
pub enum Seen {
    Counted(usize, usize),
    AfterEnd(usize, usize),
}

#[derive(Clone, Debug)]
pub enum Call {
    Start(usize),
    Update(Seen),
    Batch(Vec<Seen>),
    End(usize),
    Sync(Vec<SyncedSession>),
}

/// A part of a session in a call of `sync`.
#[derive(Clone, Debug)]
pub struct SyncedSession {
    pub session: usize,
    pub observations: Vec<usize>,
    /// Whether the call contains the end.
    pub ended: bool,
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

impl Seen {
    fn find<'a>(&self, plan: &'a Plan) -> (usize, &'a Observation) {
        match *self {
            Self::Counted(session, index) => (session, &plan.sessions[session].observations[index]),
            Self::AfterEnd(session, index) => (session, &plan.sessions[session].after_end[index]),
        }
    }

    fn body(&self, plan: &Plan, device: Device) -> Value {
        observed(self.find(plan).1, device)
    }

    /// Whether the service may refuse it: after the reader's end has arrived.
    fn may_be_refused(&self) -> bool {
        matches!(self, Self::AfterEnd(..))
    }
}

fn percent(position: i64) -> Value {
    let position = i32::try_from(position).expect("at most a million");
    json!(f64::from(position) / 10_000.0)
}

fn observed(observation: &Observation, device: Device) -> Value {
    let mut body = json!({
        "current_position": percent(observation.position),
        "occurred_at": device.time(observation.at),
    });
    if let Some(locator) = &observation.locator {
        body["locator"] = json!(locator);
    }
    body
}

impl Call {
    /// The request of this call.
    #[must_use]
    pub fn request(&self, plan: &Plan, ids: &Ids, device: Device) -> (Method, String, Value) {
        let (method, path, body) = match self {
            Self::Start(number) => {
                let session = &plan.sessions[*number];
                let body = json!({
                    "session_id": ids.0[*number], "book_id": session.book,
                    "start_position": percent(session.start.position),
                    "occurred_at": device.time(session.start.at),
                    "device_id": session.device_id, "device_type": session.device_type,
                    "time_zone": session.zone,
                });
                (Method::POST, "/start".to_owned(), body)
            }
            Self::Update(seen) => {
                let session = ids.0[seen.find(plan).0];
                let path = format!("/{session}/update");
                (Method::PUT, path, seen.body(plan, device))
            }
            Self::Batch(all) => {
                let updates: Vec<Value> = all
                    .iter()
                    .map(|seen| {
                        let mut body = seen.body(plan, device);
                        body["session_id"] = json!(ids.0[seen.find(plan).0]);
                        body
                    })
                    .collect();
                let body = json!({ "updates": updates });
                (Method::POST, "/batch-update".to_owned(), body)
            }
            Self::End(number) => {
                let end = plan.sessions[*number].end.as_ref().expect("it has an end");
                let mut body = json!({ "occurred_at": device.time(end.at) });
                if let Some((position, locator)) = &end.position {
                    body["end_position"] = percent(*position);
                    if let Some(locator) = locator {
                        body["locator"] = json!(locator);
                    }
                }
                (Method::PUT, format!("/{}/end", ids.0[*number]), body)
            }
            Self::Sync(sessions) => {
                let sessions: Vec<Value> = sessions
                    .iter()
                    .map(|session| session.body(plan, ids, device))
                    .collect();
                let body = json!({ "sessions": sessions });
                (Method::POST, "/sync".to_owned(), body)
            }
        };
        let signed = device.ahead.is_some() || matches!(self, Self::Sync(_));
        let body = if signed { device.sign(body) } else { body };
        (method, path, body)
    }

    /// Checks that the service took what it must take.
    ///
    /// # Panics
    /// If it refused something else than a repeated end or an observation after the
    /// end.
    #[track_caller]
    pub fn check(&self, response: &ApiResponse) {
        let refused = response.status == 400;
        let allowed = match self {
            Self::Start(_) => response.status == 201,
            Self::Update(seen) => response.status == 200 || refused && seen.may_be_refused(),
            // A repeat, or the end was part of a sync.
            Self::End(_) => {
                response.status == 200
                    || refused && response.body["code"] == "session_already_ended"
            }
            Self::Batch(all) => {
                let results = response.body["results"].as_array();
                response.status == 200
                    && results.is_some_and(|results| {
                        let mut pairs = results.iter().zip(all);
                        pairs.all(|(result, seen)| {
                            result["success"] == true || seen.may_be_refused()
                        })
                    })
            }
            Self::Sync(sessions) => {
                let results = response.body["results"].as_array();
                response.status == 200
                    && results.is_some_and(|results| {
                        results.len() == sessions.len()
                            && results.iter().all(|result| {
                                result["success"] == true && result["refused"] == json!([])
                            })
                    })
            }
        };
        assert!(allowed, "{self:?}: {} {}", response.status, response.body);
    }
}

impl SyncedSession {
    fn body(&self, plan: &Plan, ids: &Ids, device: Device) -> Value {
        let session = &plan.sessions[self.session];
        let all = &session.observations;
        let mut observations: Vec<Value> = self
            .observations
            .iter()
            .map(|index| observed(&all[*index], device))
            .collect();
        let mut body = json!({
            "session_id": ids.0[self.session], "book_id": session.book,
            "started_at": device.time(session.start.at),
            "start_position": percent(session.start.position),
            "device_id": session.device_id, "device_type": session.device_type,
            "time_zone": session.zone,
        });
        if let Some(end) = session.end.as_ref().filter(|_| self.ended) {
            body["ended_at"] = json!(device.time(end.at));
            if let Some((position, locator)) = &end.position {
                // A sync has no position of the end, but the observation at that time.
                let last = Observation {
                    at: end.at,
                    position: *position,
                    locator: locator.clone(),
                };
                observations.push(observed(&last, device));
            }
        }
        body["observations"] = json!(observations);
        body
    }
}

#[cfg(test)]
mod tests {
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
