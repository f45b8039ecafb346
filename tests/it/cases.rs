//! Situations of readers with several devices, interrupted connections and wrong
//! clocks. The service records each reading once, counts it correctly and shows it
//! the same everywhere.

mod clocks;
mod corrections;
mod hints;
mod kept;
mod offline;
mod refused_syncs;
mod statistics;
mod sync;
mod times;
mod two_devices;
mod zones;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use domain::SessionId;
use eventlog::clock;
use serde_json::Value;
use tests::facts::plan::{Observation, PlannedEnd};
use tests::facts::{Call, Device, Ids, Order, Plan, PlannedSession, Seen, delivery};
use tests::random_history::Random;
use tests::{App, Reader, invariants};
use uuid::Uuid;

type Time = DateTime<Utc>;

/// A time in the past, in whole seconds.
fn minutes_ago(minutes: i64) -> Time {
    clock::now().trunc_subsecs(0) - TimeDelta::minutes(minutes)
}

/// The largest difference that the duration of a request makes.
const TOLERANCE: TimeDelta = TimeDelta::seconds(20);

#[track_caller]
fn assert_about(shown: &Value, expected: Time) {
    let shown: Time = shown.as_str().unwrap().parse().unwrap();
    assert!(
        (shown - expected).abs() < TOLERANCE,
        "{shown} is not about {expected}"
    );
}

/// A time on a past UTC day, for example `days_ago(1, "12:30:00")`.
fn days_ago(days: u64, time: &str) -> Time {
    let date = clock::now().date_naive() - chrono::Days::new(days);
    date.and_time(time.parse().unwrap()).and_utc()
}

fn minutes(count: i64) -> TimeDelta {
    TimeDelta::minutes(count)
}

/// An id that a device made at some time.
fn id_of(at: Time) -> Uuid {
    SessionId::new(at).uuid()
}

fn observation(at: Time, position: i64) -> Observation {
    Observation {
        at,
        position: position * 10_000,
        locator: None,
    }
}

/// A session that starts at `at` and is updated at each of the minutes after
/// `begin`. The position is the number of the minute, in percent.
fn session(begin: Time, start: i64, updates: impl IntoIterator<Item = i64>) -> PlannedSession {
    PlannedSession {
        book: Uuid::new_v4(),
        zone: "UTC",
        device_id: "phone",
        device_type: "mobile",
        start: observation(begin + minutes(start), start.min(100)),
        observations: updates
            .into_iter()
            .map(|minute| observation(begin + minutes(minute), minute))
            .collect(),
        end: None,
        after_end: Vec::new(),
    }
}

/// The session with an end by the reader, without a position.
fn ended(session: PlannedSession, at: Time) -> PlannedSession {
    let end = Some(PlannedEnd { at, position: None });
    PlannedSession { end, ..session }
}

/// A batch of observations of one session, by their indices in the plan.
fn batch(session: usize, indices: std::ops::Range<usize>) -> Call {
    Call::Batch(indices.map(|index| Seen::Counted(session, index)).collect())
}

/// A reader to whom a plan was delivered.
struct Told {
    reader: Reader,
    ids: Ids,
}

impl Told {
    async fn deliver(app: &App, plan: &Plan, calls: &[Call]) -> Self {
        let told = Self {
            reader: app.reader(),
            ids: Ids::new(plan),
        };
        told.send(plan, calls).await;
        told
    }

    async fn send(&self, plan: &Plan, calls: &[Call]) {
        for call in calls {
            let (method, path, body) = call.request(plan, &self.ids, Device::PUNCTUAL);
            call.check(&self.reader.call(method, &path, Some(body)).await);
        }
    }

    /// A session, which must be the same in the history.
    async fn session(&self, number: usize) -> Value {
        let id = self.ids.0[number];
        let session = self.reader.session(id).await.ok();
        let history = self.reader.history("?page_size=100").await.ok();
        let sessions = history["sessions"].as_array().unwrap();
        let shown = sessions.iter().find(|one| one["id"] == session["id"]);
        assert_eq!(shown, Some(&session), "in the history");
        session
    }

    /// Asserts some of a session's fields.
    async fn assert(&self, number: usize, expected: Value) {
        assert_fields(&self.session(number).await, &expected);
    }

    /// The number of the active session in the plan.
    async fn active(&self) -> Option<usize> {
        let active = self.reader.active().await.ok();
        let id = (!active.is_null()).then(|| tests::reader::id(&active))?;
        self.ids.0.iter().position(|one| *one == id)
    }
}

/// Asserts some fields of a JSON object. Times may be written differently.
#[track_caller]
fn assert_fields(shown: &Value, expected: &Value) {
    for (field, expected) in expected.as_object().unwrap() {
        let shown_field = &shown[field];
        let time = |value: &Value| value.as_str()?.parse::<Time>().ok();
        let same = match (time(shown_field), time(expected)) {
            (Some(one), Some(other)) => one == other,
            _ => shown_field == expected,
        };
        assert!(same, "{field} is {shown_field}, not {expected}: {shown}");
    }
}

/// Delivers a plan in its own way and in random other ways, each to a new reader, and
/// checks the result of each. Then repeats all calls of the first way, which changes
/// nothing.
async fn in_any_order(app: &App, plan: &Plan, own: &[Call], check: impl AsyncFn(&Told)) {
    let told = Told::deliver(app, plan, own).await;
    app.settled().await;
    check(&told).await;
    let events = invariants::read_log(&app.pool).await.len();
    told.send(plan, own).await;
    app.settled().await;
    check(&told).await;
    assert_eq!(
        invariants::read_log(&app.pool).await.len(),
        events,
        "events of repeated calls"
    );
    let seed = clock::now().timestamp_millis().unsigned_abs();
    println!("seed {seed}");
    let mut random = Random(seed | 1);
    for order in Order::ALL.into_iter().chain(Order::ALL) {
        let calls = delivery::calls(plan, &mut random, order);
        println!("{calls:?}");
        let told = Told::deliver(app, plan, &calls).await;
        app.settled().await;
        check(&told).await;
    }
    invariants::check(app).await;
}

/// The total of one field over all rows of a list.
fn total(body: &Value, list: &str, field: &str) -> i64 {
    let rows = body[list].as_array().unwrap().iter();
    rows.map(|row| row[field].as_i64().unwrap()).sum()
}

async fn get(reader: &Reader, path: &str) -> Value {
    reader.call(reqwest::Method::GET, path, None).await.ok()
}
