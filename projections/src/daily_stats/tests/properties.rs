//! Random logs of several sessions give the same rows in batches of any size.

use chrono::TimeDelta;
use domain::command::Occurrence;
use domain::session::{CompleteSession, Rules};
use domain::{
    BookId, CorrectSession, EndSession, Intervals, Position, SessionCommand, SessionErased,
    SessionEvent, SessionId, StartSession, Timestamp, UpdatePosition, ZoneName,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use uuid::Uuid;

use super::*;
use crate::Projection;
use crate::testing::percent;

/// A command to one of three sessions of the reader. Times are in seconds.
#[derive(Clone, Debug)]
struct Step {
    session: u128,
    kind: Kind,
    at: i64,
    position: Option<i32>,
    standing: Standing,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Update,
    End,
    Deactivate,
    Correct,
    Erase,
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        20 => Just(Kind::Update),
        2 => Just(Kind::End),
        2 => Just(Kind::Deactivate),
        2 => Just(Kind::Correct),
        1 => Just(Kind::Erase),
    ]
}

/// Times within three days, close to midnight and to each other.
fn times() -> impl Strategy<Value = i64> {
    let close = prop_oneof![-5..5_i64, -600..600_i64, -10_000..10_000_i64];
    (0..3_i64, close).prop_map(|(day, close)| day * DAY + close)
}

fn standings() -> impl Strategy<Value = Standing> {
    select(vec![Standing::Active, Standing::Superseded])
}

fn steps() -> impl Strategy<Value = Step> {
    let values = (
        1..4_u128,
        kinds(),
        times(),
        option::of(0..100_i32),
        standings(),
    );
    values.prop_map(|(session, kind, at, position, standing)| Step {
        session,
        kind,
        at,
        position,
        standing,
    })
}

fn occurred(seconds: i64) -> Occurrence {
    Occurrence::new(Some(at(seconds)), None, at(seconds)).unwrap()
}

/// Sessions of the domain that record their events.
#[derive(Default)]
struct Log {
    sessions: BTreeMap<u128, CompleteSession>,
    recorded: Vec<RecordedEvent>,
}

impl Log {
    fn start(&mut self, id: u128, zone: &str, seconds: i64, standing: Standing) {
        let start = SessionCommand::Start(StartSession {
            reader_id: reader(),
            book_id: BookId::from(Uuid::from_u128(9)),
            position: percent(50),
            device_type: None,
            device_id: None,
            time_zone: Some(ZoneName::new(zone)),
            locator: None,
            book: None,
            occurred: occurred(seconds),
            standing,
        });
        self.decide(id, start);
    }

    /// Records the events of a command; none if it is refused.
    fn decide(&mut self, id: u128, command: SessionCommand) {
        let session = self.sessions.entry(id).or_default();
        let events = session.decide(command, Rules::default());
        for event in events.unwrap_or_default() {
            self.record(id, event);
        }
    }

    fn record(&mut self, id: u128, event: SessionEvent) {
        self.sessions.entry(id).or_default().apply(&event);
        self.recorded.push(RecordedEvent {
            global_position: i64::try_from(self.recorded.len()).unwrap() + 1,
            session_id: session(id),
            sequence: 1,
            event,
        });
    }

    fn run(&mut self, step: &Step) {
        let position = step.position.map(percent);
        let command = match step.kind {
            Kind::Update => SessionCommand::UpdatePosition(UpdatePosition {
                position: position.unwrap_or_default(),
                locator: None,
                occurred: occurred(step.at),
                standing: step.standing,
            }),
            Kind::End => SessionCommand::End(EndSession {
                position,
                locator: None,
                occurred: occurred(step.at),
            }),
            Kind::Deactivate => SessionCommand::Deactivate(EndReason::Idle),
            Kind::Correct => SessionCommand::Correct(CorrectSession {
                ended_at: Some(at(step.at)),
                position,
                active: (step.standing == Standing::Superseded).then(|| TimeDelta::seconds(100)),
                received: at(step.at),
            }),
            Kind::Erase => {
                let event = SessionEvent::SessionErased(SessionErased {
                    reader_id: reader(),
                    erased_at: at(step.at),
                });
                return self.record(step.session, event);
            }
        };
        self.decide(step.session, command);
    }
}

fn logs() -> impl Strategy<Value = Vec<RecordedEvent>> {
    let zones = select(vec!["UTC", BERLIN, KATHMANDU, "-02:30"]);
    let starts = vec((zones, times(), standings()), 3);
    (starts, vec(steps(), 0..40)).prop_map(|(starts, steps)| {
        let mut log = Log::default();
        for (id, (zone, seconds, standing)) in (1..).zip(starts) {
            log.start(id, zone, seconds, standing);
        }
        for step in &steps {
            log.run(step);
        }
        log.recorded
    })
}

/// The counted part of a row. Observations after the end are stored only if they arrived
/// before it.
type View = (Intervals, Option<Position>, Timestamp, i64, bool);

fn views(tables: &Tables, id: SessionId) -> BTreeMap<NaiveDate, View> {
    let rows = tables.session_days.get(&id).into_iter().flatten();
    let counted = rows.filter(|(_, row)| !row.is_after_end);
    let views = counted.map(|(day, row)| {
        let last_at = row.end.map(|end| end.at);
        let last_at = last_at.or(row.observed.map(|observed| observed.at));
        let view = (
            row.active.clone(),
            row.position(),
            last_at.unwrap_or_default(),
            row.progress,
            row.is_ended,
        );
        (*day, view)
    });
    views.collect()
}

/// A step of a worker.
#[derive(Clone, Copy, Debug)]
enum Action {
    Fold,
    /// Writes the rows of one session.
    Commit(u128),
    Restart,
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => Just(Action::Fold),
        4 => (1..4_u128).prop_map(Action::Commit),
        1 => Just(Action::Restart),
    ]
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(256)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn batches_of_any_size_give_the_same_rows(
        log in logs(),
        sizes in vec(1..8_usize, 45),
    ) {
        let mut tables = Tables::default();
        let mut rest = log.as_slice();
        for size in sizes {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            tables.commit(batch);
            prop_assert_eq!(tables.commit(batch), 0, "again");
            rest = later;
        }
        prop_assert!(rest.is_empty());
        prop_assert_eq!(tables.content(), Tables::of(&log).content());
    }

    /// After a crash, rows can contain events after the checkpoint.
    #[test]
    fn folding_the_end_of_the_log_again_restores_the_rows(
        log in logs(),
        from in any::<Index>(),
        sizes in vec(1..8_usize, 45),
    ) {
        let expected = Tables::of(&log);
        let mut tables = expected.clone();
        let mut rest = &log[from.index(log.len())..];
        for size in sizes {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            tables.commit(batch);
            rest = later;
        }
        prop_assert_eq!(tables.content(), expected.content());
    }

    /// The worker writes the rows of some sessions earlier than others, and restarts from its
    /// checkpoint: the last event before the first one that is not written.
    #[test]
    fn restarts_between_the_commits_of_single_sessions_change_nothing(
        log in logs(),
        actions in vec(actions(), 120),
    ) {
        let expected = Tables::of(&log).content();
        let mut tables = Tables::default();
        // Each session's first event that is not written, and the change from there on.
        let mut pending: BTreeMap<SessionId, (usize, Option<StatsChange>)> = BTreeMap::new();
        let mut next = 0;
        for action in actions {
            match action {
                Action::Fold if next < log.len() => {
                    let event = &log[next];
                    let (_, change) = pending.entry(event.session_id).or_insert((next, None));
                    DailyStats::fold(change, event);
                    next += 1;
                }
                Action::Fold => {}
                Action::Commit(id) => {
                    let change = pending.remove(&session(id));
                    let change = change.and_then(|(_, change)| Some((session(id), change?)));
                    tables.commit_changes(&change.into_iter().collect::<Vec<_>>());
                }
                Action::Restart => {
                    let checkpoint = pending.values().map(|(first, _)| *first).min();
                    next = checkpoint.unwrap_or(next);
                    pending.clear();
                }
            }
        }
        let rest = pending.into_iter();
        let rest = rest.filter_map(|(id, (_, change))| Some((id, change?)));
        tables.commit_changes(&rest.collect::<Vec<_>>());
        tables.commit(&log[next..]);
        prop_assert_eq!(tables.content(), expected);
    }

    #[test]
    fn observations_in_any_order_give_the_same_days(
        zone in select(vec!["UTC", BERLIN, KATHMANDU, "-02:30"]),
        end in option::of((times(), option::of(0..100_i32))),
        observations in vec((times(), 0..100_i32), 1..12)
            .prop_map(|all| all.into_iter().collect::<BTreeMap<i64, i32>>())
            .prop_flat_map(|all| {
                let all: Vec<(i64, i32)> = all.into_iter().collect();
                (Just(all.clone()).prop_shuffle(), Just(all).prop_shuffle())
            }),
        end_index in (any::<Index>(), any::<Index>()),
    ) {
        let (one, other) = observations;
        let deliver = |observations: &[(i64, i32)], end_index: Index| {
            let mut steps: Vec<Step> = observations.iter().map(|(at, position)| Step {
                session: 1,
                kind: Kind::Update,
                at: *at,
                position: Some(*position),
                standing: Standing::Active,
            }).collect();
            if let Some((at, position)) = end {
                let step = Step { session: 1, kind: Kind::End, at, position, standing: Standing::Active };
                steps.insert(end_index.index(steps.len() + 1), step);
            }
            let mut log = Log::default();
            log.start(1, zone, -20_000, Standing::Active);
            for step in &steps {
                log.run(step);
            }
            views(&Tables::of(&log.recorded), session(1))
        };
        prop_assert_eq!(deliver(&one, end_index.0), deliver(&other, end_index.1));
    }
}
