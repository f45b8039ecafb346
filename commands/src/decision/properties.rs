//! Random histories of one reader with several sessions and devices. Whatever the order
//! and the grouping in which they arrive, the sessions are the same, and so is the active
//! one.

use std::collections::BTreeMap;

use chrono::DateTime;
use domain::{Position, ReadingSession, RecentTimes, UpdatePosition, ZoneName};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use super::*;
use crate::command::{BatchUpdate, SyncSession};

/// All times are within an hour, so that no session is idle.
const NOW: i64 = 3_600;

fn at(seconds: i64) -> Timestamp {
    DateTime::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
}

fn reader() -> ReaderId {
    Uuid::from_u128(1).into()
}

fn session_id(session: usize) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(100 + session as u128))
}

fn occurred(seconds: i64) -> domain::clock::Occurrence {
    domain::clock::Occurrence::new(Some(at(seconds)), None, at(NOW)).unwrap()
}

fn position(steps: i32) -> Position {
    Position::from_steps(steps).unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    Start,
    Observation(i64, i32),
    End(i64, Option<i32>),
}

/// The actions of one reader: the time of each session's start, and the facts about all
/// sessions in the order of their arrival. A fact can arrive twice.
#[derive(Clone, Debug)]
struct History {
    starts: Vec<i64>,
    arrivals: Vec<(usize, Fact)>,
    /// How many consecutive facts one call contains.
    groups: Vec<usize>,
    /// Whether a call is a sync, if it can be one.
    syncs: Vec<bool>,
}

fn histories() -> impl Strategy<Value = History> {
    let observations = vec((0..4_usize, 0..9_i32), 0..25);
    // Some ends precede observations of their session.
    let ends = vec(
        option::weighted(0.4, (-1_500..60_i64, option::of(0..9_i32))),
        4,
    );
    // In half of the histories, some observations of different sessions have equal times.
    let times = Just((0..3_000_i64).step_by(7).collect::<Vec<_>>()).prop_shuffle();
    let precision = prop_oneof![Just(7), Just(210)];
    (1..5_usize, observations, ends, times, precision).prop_flat_map(
        |(sessions, observations, ends, mut times, precision)| {
            for time in &mut times {
                *time -= *time % precision;
            }
            let starts: Vec<i64> = (0..sessions).filter_map(|_| times.pop()).collect();
            let mut facts: Vec<(usize, Fact)> = (0..sessions).map(|id| (id, Fact::Start)).collect();
            for (session, steps) in observations {
                let time = times.pop().unwrap();
                facts.push((session % sessions, Fact::Observation(time, steps)));
            }
            for (session, end) in ends.into_iter().enumerate().take(sessions) {
                let Some((after, steps)) = end else { continue };
                let observed = facts.iter().filter_map(|(id, fact)| match fact {
                    Fact::Observation(time, _) if *id == session => Some(*time),
                    _ => None,
                });
                let last = observed.fold(starts[session], i64::max);
                let ended_at = (last + after).max(starts[session]);
                facts.push((session, Fact::End(ended_at, steps)));
            }
            let count = facts.len();
            let repeats = vec(any::<Index>(), 0..6);
            let repeats = repeats.prop_map(move |all| all.iter().map(|i| i.index(count)).collect());
            let order = (Just((0..count).collect::<Vec<_>>()).prop_shuffle(), repeats);
            let grouping = (vec(1..6_usize, 40), vec(any::<bool>(), 40));
            (Just((starts, facts)), order, grouping).prop_map(
                |((starts, facts), (order, repeats), (groups, syncs)): (
                    _,
                    (Vec<usize>, Vec<usize>),
                    _,
                )| {
                    let order = order.iter().chain(&repeats);
                    History {
                        starts,
                        arrivals: order.map(|index| facts[*index]).collect(),
                        groups,
                        syncs,
                    }
                },
            )
        },
    )
}

/// The log of one reader in memory. It loads what a decision misses, as
/// [`crate::pending`] does.
#[derive(Default)]
struct Log {
    sessions: BTreeMap<SessionId, Vec<SessionEvent>>,
    activity: ReaderActivity,
}

impl Log {
    fn execute(&mut self, command: &Command) -> Result<Decision, SessionError> {
        let mut known = Known::default();
        for _ in 0..20 {
            match decide(&known, reader(), command, Rules::default()) {
                Ok(decision) => {
                    self.append(&decision);
                    return Ok(decision);
                }
                Err(Undecided::Refused(refusal)) => return Err(refusal),
                Err(Undecided::Missing(missing)) => self.load(&mut known, missing),
                Err(Undecided::Outdated) => panic!("the log has one writer"),
            }
        }
        panic!("the decision needs more and more");
    }

    fn load(&self, known: &mut Known, missing: Missing) {
        let events = |id: SessionId| self.sessions.get(&id).map_or(&[][..], Vec::as_slice);
        match missing {
            Missing::Session(id) | Missing::NewestSession(id) => {
                let events = events(id);
                let session = VersionedSession {
                    session: ReadingSession::fold(events),
                    sequence: i64::try_from(events.len()).unwrap(),
                    global_position: 0,
                    recent: RecentTimes::new(&Timeline::fold(events)),
                };
                known.sessions.insert(id, Arc::new(session));
                if missing == Missing::NewestSession(id) {
                    known.newest.insert(id);
                }
            }
            Missing::Timeline(id) => {
                known.timelines.insert(id, Timeline::fold(events(id)));
            }
            Missing::Activity => known.activity = Some(self.activity),
            Missing::LastZone => known.last_zone = Some(ZoneName::UTC),
        }
    }

    /// Appends as Postgres does: under the same conditions.
    fn append(&mut self, decision: &Decision) {
        for (id, sequence, event) in &decision.events {
            let events = self.sessions.entry(*id).or_default();
            assert_eq!(i64::try_from(events.len()).unwrap() + 1, *sequence);
            events.push(event.clone());
        }
        if let Some(claim) = decision.claim() {
            assert_eq!(self.activity.active, claim.expected);
            if claim.expected.is_none() {
                assert_eq!(self.activity.newest, claim.expected_newest);
            }
            self.activity.active = claim.next;
            self.activity.newest = self.activity.newest.max(claim.next_newest);
        }
    }

    fn started(&self, id: SessionId) -> StartedSession {
        let session = ReadingSession::fold(&self.sessions[&id]);
        session.started().unwrap().clone()
    }

    /// The sessions with the newest observation, even if it is after the session's end.
    fn newest(&self) -> Vec<SessionId> {
        let newest_of = |events: &Vec<SessionEvent>| {
            let observations = events.iter().filter(|event| {
                matches!(
                    event,
                    SessionEvent::SessionStarted(_) | SessionEvent::PositionUpdated(_)
                )
            });
            observations.map(SessionEvent::occurred_at).max()
        };
        let newest = self.sessions.values().map(newest_of).max().unwrap();
        let sessions = self.sessions.iter();
        sessions
            .filter(|(_, events)| newest_of(events) == newest)
            .map(|(id, _)| *id)
            .collect()
    }

    fn active(&self) -> Vec<SessionId> {
        let ids = self.sessions.keys().copied();
        ids.filter(|id| self.started(*id).is_active()).collect()
    }
}

impl History {
    fn start(&self, session: usize) -> StartSession {
        StartSession {
            reader_id: reader(),
            book_id: Uuid::from_u128(session as u128).into(),
            position: Position::START,
            device_type: None,
            device_id: None,
            time_zone: None,
            locator: None,
            book: None,
            occurred: occurred(self.starts[session]),
            standing: Standing::Active,
        }
    }

    /// Delivers all facts. A session's start arrives with its first fact at the latest.
    fn deliver(&self) -> Log {
        let mut log = Log::default();
        let mut arrivals = self.arrivals.as_slice();
        let mut calls = self.groups.iter().zip(&self.syncs).cycle();
        while let Some(&(session, fact)) = arrivals.first() {
            let (size, is_sync) = calls.next().unwrap();
            let group = &arrivals[..(*size).min(arrivals.len())];
            let same = group
                .iter()
                .take_while(|(other, _)| *other == session)
                .count();
            let is_observation = |fact: &(usize, Fact)| matches!(fact.1, Fact::Observation(..));
            let observations = group.iter().take_while(|fact| is_observation(fact)).count();
            let is_started = log.sessions.contains_key(&session_id(session));
            let count = if *is_sync {
                let _ = log.execute(&Command::Sync(Box::new(self.sync(session, &group[..same]))));
                same
            } else if !is_started || fact == Fact::Start {
                log.execute(&Command::Start {
                    session_id: session_id(session),
                    start: self.start(session),
                })
                .unwrap();
                usize::from(fact == Fact::Start)
            } else if let Fact::End(time, steps) = fact {
                let _ = log.execute(&Command::End {
                    session_id: session_id(session),
                    end: end(time, steps),
                });
                1
            } else if observations == 1 {
                let (_, update) = update(group[0]);
                let _ = log.execute(&Command::UpdatePosition {
                    session_id: session_id(session),
                    update,
                });
                1
            } else {
                let updates = group[..observations].iter();
                // A batch does not start sessions.
                let updates = updates
                    .take_while(|(id, _)| log.sessions.contains_key(&session_id(*id)))
                    .map(|fact| update(*fact))
                    .map(|(session_id, update)| BatchUpdate { session_id, update })
                    .collect::<Vec<_>>();
                let count = updates.len();
                log.execute(&Command::UpdateBatch(updates)).unwrap();
                count
            };
            assert!(log.active().len() <= 1, "a reader has one active session");
            assert_eq!(log.active().first().copied(), log.activity.active);
            arrivals = &arrivals[count..];
        }
        log
    }

    fn sync(&self, session: usize, facts: &[(usize, Fact)]) -> SyncSession {
        let mut ends = facts.iter().filter_map(|(_, fact)| match fact {
            // A sync has no position of the end.
            Fact::End(time, None) => Some(end(*time, None)),
            _ => None,
        });
        SyncSession {
            session_id: session_id(session),
            start: self.start(session),
            start_position: Some(Position::START),
            observations: facts
                .iter()
                .filter(|(_, fact)| matches!(fact, Fact::Observation(..)))
                .map(|fact| update(*fact).1)
                .collect(),
            end: ends.next_back(),
        }
    }

    /// The facts about a session that a sync cannot deliver are left out: only those that
    /// reached the log count.
    fn observations(&self, session: usize) -> Vec<(i64, i32)> {
        let mut all: Vec<(i64, i32)> = self
            .arrivals
            .iter()
            .filter_map(|(id, fact)| match fact {
                Fact::Observation(time, steps) if *id == session => Some((*time, *steps)),
                _ => None,
            })
            .collect();
        all.push((self.starts[session], 0));
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Two minutes after each observation count, up to the next one.
fn active_ms(observations: &[(i64, i32)]) -> i64 {
    let gaps = observations.windows(2).map(|pair| pair[1].0 - pair[0].0);
    gaps.map(|gap| gap.min(120) * 1_000).sum()
}

fn update((session, fact): (usize, Fact)) -> (SessionId, UpdatePosition) {
    let Fact::Observation(time, steps) = fact else {
        panic!("{fact:?} is no observation")
    };
    let update = UpdatePosition {
        position: position(steps),
        locator: None,
        occurred: occurred(time),
        standing: Standing::Active,
    };
    (session_id(session), update)
}

fn end(time: i64, steps: Option<i32>) -> EndSession {
    EndSession {
        position: steps.map(position),
        locator: None,
        occurred: occurred(time),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(10_000)
    })]

    #[test]
    fn active_session_has_the_newest_observation_in_any_order(history in histories()) {
        let log = history.deliver();
        let newest = log.newest();
        for session in 0..history.starts.len() {
            let id = session_id(session);
            let found = log.started(id);
            let observations = history.observations(session);
            let (last, steps) = *observations.last().unwrap();
            let furthest = observations.iter().map(|(_, steps)| *steps).max().unwrap();
            prop_assert_eq!(found.first().at, at(observations[0].0));
            // The later arrival counts if times are equal.
            let is_alone = |time| observations.iter().filter(|other| other.0 == time).count() == 1;
            if found.is_finished() {
                prop_assert!(!found.is_active());
            } else {
                prop_assert_eq!(found.progress.latest.at, at(last));
                if is_alone(last) {
                    prop_assert_eq!(found.progress.latest.position, position(steps));
                }
                prop_assert_eq!(found.progress.active_ms, active_ms(&observations));
                prop_assert_eq!(found.progress.furthest_position, position(furthest));
                if newest.len() == 1 {
                    prop_assert_eq!(found.is_active(), newest[0] == id);
                } else {
                    prop_assert!(!found.is_active() || newest.contains(&id));
                }
                if let Some(ending) = found.progress.ended {
                    prop_assert_eq!((ending.at, ending.reason), (at(last), EndReason::Superseded));
                }
            }
        }
    }
}
