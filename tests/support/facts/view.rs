//! Reads what the API returns for a reader, and compares it with [`Expected`].

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use domain::SessionId;
use eventlog::clock;
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

use super::expected::{Expected, SessionView, StatisticsView, Sums};
use super::plan::Plan;
use crate::reader::Reader;

/// The window of all statistics, in days. Longer than the age of any session.
const WINDOW: i64 = 60;

/// A reader's own ids for the sessions of a plan.
#[derive(Clone, Debug)]
pub struct Ids(pub Vec<Uuid>);

impl Ids {
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let sessions = plan.sessions.iter();
        Self(
            sessions
                .map(|session| SessionId::new(session.start.at).uuid())
                .collect(),
        )
    }
}

/// How far values may differ from the expected ones.
#[derive(Clone, Copy, Debug)]
pub enum Tolerance {
    Exact,
    /// The service shifts times by the duration of a request, which differs.
    Seconds(i64),
}

/// Everything that the API returns about a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderView {
    /// In the order of the plan.
    pub sessions: Vec<SessionView>,
    pub active: Option<usize>,
    pub statistics: StatisticsView,
}

async fn get(reader: &Reader, path: &str) -> Value {
    reader.call(Method::GET, path, None).await.ok()
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().expect("a time").parse().unwrap()
}

fn steps(value: &Value) -> i64 {
    let steps = value.as_f64().expect("a number") * 10_000.0;
    #[expect(clippy::cast_possible_truncation, reason = "at most a few million")]
    let steps = steps.round() as i64;
    steps
}

fn number(value: &Value, field: &str) -> i64 {
    let number = value[field].as_i64();
    number.unwrap_or_else(|| panic!("no number {field} in {value}"))
}

fn session(value: &Value) -> SessionView {
    SessionView {
        started_at: time(&value["started_at"]),
        ended_at: (!value["ended_at"].is_null()).then(|| time(&value["ended_at"])),
        last_activity_at: time(&value["last_activity_at"]),
        start_position: steps(&value["start_position"]),
        end_position: steps(&value["end_position"]),
        furthest_position: steps(&value["furthest_position"]),
        locator: value["locator"].as_str().map(str::to_owned),
        duration_seconds: number(value, "duration_seconds"),
        active_seconds: number(value, "active_seconds"),
        is_active: value["is_active"].as_bool().expect("a boolean"),
        end_reason: value["end_reason"].as_str().map(str::to_owned),
    }
}

fn sums(value: &Value, prefix: &str) -> Sums {
    Sums {
        sessions: number(value, "sessions"),
        seconds: number(value, &format!("{prefix}seconds")),
        minutes: number(value, &format!("{prefix}minutes")),
    }
}

fn rows<'a>(value: &'a Value, list: &str) -> &'a [Value] {
    value[list].as_array().expect("a list")
}

fn days(value: &Value, prefix: &str) -> Vec<(NaiveDate, Sums, i64)> {
    let rows = rows(value, "days").iter();
    rows.map(|row| {
        let date = row["date"].as_str().expect("a date").parse().unwrap();
        (date, sums(row, prefix), steps(&row["progress"]))
    })
    .collect()
}

async fn statistics(reader: &Reader) -> StatisticsView {
    let window = |name: &str| format!("/stats/{name}?days={WINDOW}");
    let daily = get(reader, &window("daily")).await;
    let weekly = get(reader, "/stats/weekly").await;
    let patterns = get(reader, &window("patterns")).await;
    let streak = get(reader, &window("streak")).await;
    let hours = rows(&patterns, "hours").iter().map(|row| {
        let key = |field| u32::try_from(number(row, field)).expect("small");
        ((key("weekday"), key("hour")), sums(row, "active_"))
    });
    StatisticsView {
        days: days(&daily, "active_"),
        week: days(&weekly, ""),
        weekdays: rows(&patterns, "weekdays")
            .iter()
            .map(|row| sums(row, "active_"))
            .collect(),
        hours: hours.collect::<BTreeMap<_, _>>(),
        streak: [
            "current",
            "longest",
            "total_reading_days",
            "days_without_reading",
        ]
        .map(|field| number(&streak, field)),
    }
}

impl ReaderView {
    /// Reads all of it. The projections must have caught up.
    ///
    /// # Panics
    /// If two calls return different values for one session.
    pub async fn read(reader: &Reader, ids: &Ids) -> Self {
        let mut sessions = Vec::new();
        for id in &ids.0 {
            sessions.push(get(reader, &format!("/{id}")).await);
        }
        let history = reader.history("?page_size=100").await.ok();
        let shown = rows(&history, "sessions");
        assert_eq!(shown.len(), ids.0.len(), "sessions in the history");
        for in_history in shown {
            let id = crate::reader::id(in_history);
            let number = ids.0.iter().position(|one| *one == id);
            let by_id = &sessions[number.expect("a session of the plan")];
            assert_eq!(in_history, by_id, "history and session {id}");
        }
        let active = reader.active().await.ok();
        let active = (!active.is_null()).then(|| {
            let id = crate::reader::id(&active);
            let number = ids.0.iter().position(|one| *one == id);
            let number = number.expect("a session of the plan");
            assert_eq!(session(&active), session(&sessions[number]), "active");
            number
        });
        Self {
            sessions: sessions.iter().map(session).collect(),
            active,
            statistics: statistics(reader).await,
        }
    }
}

/// Reads everything about a reader and compares it with the expected values.
///
/// # Panics
/// If a value differs, with `context`.
pub async fn check(
    reader: &Reader,
    ids: &Ids,
    expected: &Expected,
    tolerance: Tolerance,
    context: &str,
) {
    // The reader's day may change between two calls.
    let (view, today) = loop {
        let today = expected.today(clock::now());
        let view = ReaderView::read(reader, ids).await;
        if expected.today(clock::now()) == today {
            break (view, today);
        }
    };
    assert_eq!(view.active, expected.active, "active session; {context}");
    for (number, (shown, expected)) in view.sessions.iter().zip(&expected.sessions).enumerate() {
        match tolerance {
            Tolerance::Exact => assert_eq!(shown, expected, "session {number}; {context}"),
            Tolerance::Seconds(limit) => {
                let difference = shown.differs_from(expected, TimeDelta::seconds(limit));
                assert!(
                    !difference,
                    "session {number}: {shown:#?} is not {expected:#?}; {context}"
                );
            }
        }
    }
    let statistics = expected.statistics(today, WINDOW);
    match tolerance {
        Tolerance::Exact => assert_eq!(view.statistics, statistics, "statistics; {context}"),
        Tolerance::Seconds(limit) => {
            let total = |view: &StatisticsView| -> i64 {
                view.days.iter().map(|(_, sums, _)| sums.seconds).sum()
            };
            let sessions = i64::try_from(view.sessions.len()).expect("few sessions");
            let difference = total(&view.statistics) - total(&statistics);
            assert!(
                difference.abs() <= limit * sessions,
                "{difference} seconds more than expected; {context}"
            );
        }
    }
}

impl SessionView {
    /// Whether a time differs by more than `limit`, or another value differs at all.
    fn differs_from(&self, other: &Self, limit: TimeDelta) -> bool {
        let time = |one: DateTime<Utc>, other: DateTime<Utc>| (one - other).abs() > limit;
        let seconds = |one: i64, other: i64| (one - other).abs() > limit.num_seconds();
        let ended = match (self.ended_at, other.ended_at) {
            (Some(one), Some(other)) => time(one, other),
            (one, other) => one != other,
        };
        ended
            || time(self.started_at, other.started_at)
            || time(self.last_activity_at, other.last_activity_at)
            || seconds(self.duration_seconds, other.duration_seconds)
            || seconds(self.active_seconds, other.active_seconds)
            || (
                self.start_position,
                self.end_position,
                self.furthest_position,
            ) != (
                other.start_position,
                other.end_position,
                other.furthest_position,
            )
            || self.locator != other.locator
            || self.is_active != other.is_active
            || self.end_reason != other.end_reason
    }
}
