//! The invariants of the system. After a test, these checks compare the stream, the
//! read tables and Redis with a plain fold of the log.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{NaiveDate, TimeDelta, Timelike};
use domain::event::EndReason;
use domain::{ReaderId, ReadingSession, SessionEvent, SessionId, Timestamp};
use eventlog::{StoredEvent, read};
use messaging::Subjects;
use messaging::subject::partition;
use projections::active_sessions::{self, CacheLookup};
use projections::cache::Cache;
use projections::history;
use redis::aio::ConnectionManager;
use server::connect;
use sqlx::PgPool;
use uuid::Uuid;

use crate::app::{self, App, SETTLE};
use crate::eventually::eventually_ok;
use crate::stack::TestEnv;
use crate::stream;

/// Waits until the projections have caught up, then checks all invariants.
pub async fn check(app: &App) {
    app.settled().await;
    check_env(&app.pool, &app.env).await;
}

/// Like [`check`], for a service that runs as a process. Its projections must have
/// caught up.
pub async fn check_env(pool: &PgPool, env: &TestEnv) {
    let log = read_log(pool).await;
    sequences_have_no_gaps(&log);
    let sessions = fold(&log);
    active_claims_match_the_log(pool, &sessions).await;
    stream_matches_the_log(env, &log).await;
    history_matches_the_log(pool, &sessions).await;
    statistics_match_the_log(pool, &log).await;
    cache_matches_the_log(env, &sessions).await;
}

/// The state of a session after all its events.
#[derive(Clone, Debug, Default)]
pub struct FoldedSession {
    pub session: ReadingSession,
    /// The number of its events.
    pub version: i64,
}

/// The whole log, in order.
pub async fn read_log(pool: &PgPool) -> Vec<StoredEvent> {
    let mut log: Vec<StoredEvent> = Vec::new();
    loop {
        let after = log.last().map_or(0, |event| event.global_position);
        let events = read::after(pool, after, 10_000).await.unwrap();
        if events.is_empty() {
            return log;
        }
        log.extend(events);
    }
}

/// The sessions of the log, without erased ones.
#[must_use]
pub fn fold(log: &[StoredEvent]) -> BTreeMap<SessionId, FoldedSession> {
    let mut sessions: BTreeMap<SessionId, FoldedSession> = BTreeMap::new();
    let mut erased = BTreeSet::new();
    for stored in log {
        let recorded = stored.decode().unwrap();
        if let SessionEvent::SessionErased(_) = recorded.event {
            erased.insert(recorded.session_id);
        }
        let folded = sessions.entry(recorded.session_id).or_default();
        folded.session.apply(&recorded.event);
        folded.version = recorded.sequence;
    }
    sessions.retain(|id, _| !erased.contains(id));
    sessions
}

/// Global positions ascend, and the sequences of a session are 1 to n.
pub fn sequences_have_no_gaps(log: &[StoredEvent]) {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    let mut previous = 0;
    for event in log {
        assert!(event.global_position > previous, "global positions ascend");
        previous = event.global_position;
        let sequence = last.entry(&event.session_id).or_default();
        *sequence += 1;
        assert_eq!(event.sequence, *sequence, "of session {}", event.session_id);
    }
}

/// A reader has at most one active session, and the active-session claim names it.
pub async fn active_claims_match_the_log(
    pool: &PgPool,
    sessions: &BTreeMap<SessionId, FoldedSession>,
) {
    let mut active: BTreeMap<Uuid, String> = BTreeMap::new();
    for (id, folded) in sessions {
        let session = folded
            .session
            .started()
            .expect("a start is the first event");
        if session.is_active() {
            let other = active.insert(session.start.reader_id.uuid(), id.to_string());
            assert_eq!(other, None, "a reader with two active sessions");
        }
    }
    let claims: Vec<(Uuid, String)> =
        sqlx::query_as("select reader_id, session_id from claims order by reader_id")
            .fetch_all(pool)
            .await
            .unwrap();
    assert_eq!(claims, active.into_iter().collect::<Vec<_>>());
}

/// The stream contains the events of the log in the same order, without gaps or
/// duplicates.
pub async fn stream_matches_the_log(env: &TestEnv, log: &[StoredEvent]) {
    // The relay may be behind the projections, which can read the log directly.
    let published = eventually_ok("all events in the stream", SETTLE, async || {
        let published = stream::read_all(env).await;
        if published.len() < log.len() {
            return Err(format!("{} of {} events", published.len(), log.len()));
        }
        Ok(published)
    })
    .await;
    assert_eq!(
        published.len(),
        log.len(),
        "events in the stream and in the log"
    );
    let subjects = Subjects::new(&env.nats_prefix);
    let mut previous = 0;
    for (published, stored) in published.iter().zip(log) {
        let event = &published.event;
        let reader: Uuid = event["partitionkey"].as_str().unwrap().parse().unwrap();
        let data: serde_json::Value = serde_json::from_str(&stored.payload).unwrap();
        assert_eq!(published.message_id, stored.id());
        assert_eq!(event["id"], stored.id());
        assert_eq!(event["globalposition"], stored.global_position.to_string());
        assert_eq!(event["previousposition"], previous.to_string());
        previous = stored.global_position;
        if stored.event_type == "SessionErased" && event["data"] != data {
            // An erasure has overwritten the event since it was published.
            continue;
        }
        assert_eq!(event["data"], data);
        assert_eq!(
            published.subject,
            subjects.event(&stored.event_type, ReaderId::from(reader))
        );
        assert!(
            published
                .subject
                .ends_with(&partition(ReaderId::from(reader)).to_string())
        );
    }
}

/// The history equals a fold of the log.
pub async fn history_matches_the_log(pool: &PgPool, sessions: &BTreeMap<SessionId, FoldedSession>) {
    let mut by_reader: BTreeMap<ReaderId, Vec<(SessionId, &FoldedSession)>> = BTreeMap::new();
    for (id, folded) in sessions {
        let session = folded.session.started().unwrap();
        by_reader
            .entry(session.start.reader_id)
            .or_default()
            .push((*id, folded));
    }
    let rows: i64 = sqlx::query_scalar("select count(*) from history")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(
        usize::try_from(rows).unwrap(),
        sessions.len(),
        "rows of the history"
    );
    for (reader, mut expected) in by_reader {
        expected.sort_by_key(|(id, folded)| {
            std::cmp::Reverse((folded.session.started().unwrap().start.started_at, *id))
        });
        let page = history::PageQuery {
            after: None,
            skip: 0,
            limit: i64::try_from(expected.len()).unwrap() + 1,
        };
        let shown = history::page(pool, reader, None, page).await.unwrap();
        assert_eq!(
            shown.entries.len(),
            expected.len(),
            "sessions of reader {reader}"
        );
        for (shown, (id, folded)) in shown.entries.iter().zip(&expected) {
            let mut session = folded.session.started().unwrap().clone();
            // The history keeps the latest locator, not the first.
            session.start.locator = None;
            assert_eq!(shown.session_id, *id);
            assert_eq!(shown.version, folded.version, "version of {id}");
            assert_eq!(shown.session, session, "of {id}");
        }
        assert_eq!(
            usize::try_from(shown.total).unwrap(),
            expected.len(),
            "total of {reader}"
        );
    }
}

/// A long session has more active time than this, in milliseconds.
const LONG_MS: i64 = 600_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Day {
    sessions: i64,
    active_ms: i64,
    progress: i64,
    long_sessions: i64,
    ended_sessions: i64,
}

impl Day {
    fn from_columns(
        [sessions, active_ms, progress, long_sessions, ended_sessions]: [i64; 5],
    ) -> Self {
        Self {
            sessions,
            active_ms,
            progress,
            long_sessions,
            ended_sessions,
        }
    }

    fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.active_ms += other.active_ms;
        self.progress += other.progress;
        self.long_sessions += other.long_sessions;
        self.ended_sessions += other.ended_sessions;
    }
}

/// The statistics equal a slow count of the log, second by second.
pub async fn statistics_match_the_log(pool: &PgPool, log: &[StoredEvent]) {
    let mut days: BTreeMap<(Uuid, NaiveDate), Day> = BTreeMap::new();
    let mut seen: BTreeSet<(String, NaiveDate)> = BTreeSet::new();
    let mut hours: BTreeMap<(Uuid, NaiveDate, i16), (i64, i64)> = BTreeMap::new();
    let mut seen_hours: BTreeSet<(String, NaiveDate, i16)> = BTreeSet::new();
    let mut read: BTreeMap<String, i64> = BTreeMap::new();
    for stored in log {
        let event = stored.decode().unwrap().event;
        let reader = event.reader_id().uuid();
        let (zone, from, credited, observed, progress) = match &event {
            SessionEvent::SessionStarted(e) => {
                (e.time_zone, e.started_at, 0, Some(e.started_at), 0)
            }
            SessionEvent::SessionErased(_) => {
                days.retain(|(owner, _), _| *owner != reader);
                hours.retain(|(owner, ..), _| *owner != reader);
                continue;
            }
            SessionEvent::PositionUpdated(e) if !e.applied => continue,
            SessionEvent::PositionUpdated(e) => (
                e.time_zone,
                e.previous_at,
                e.credited_ms,
                Some(e.occurred_at),
                e.position.steps() - e.previous_position.steps(),
            ),
            SessionEvent::SessionEnded(e) => (
                e.time_zone,
                e.previous_at,
                e.credited_ms,
                (e.reason == EndReason::Finished).then_some(e.ended_at),
                e.position.steps() - e.previous_position.steps(),
            ),
        };
        let mut last_day = from.with_timezone(&zone).date_naive();
        let mut touch = |at: Timestamp, ms: i64, progress: i32| {
            let local = at.with_timezone(&zone);
            let day = local.date_naive();
            last_day = day;
            let hour = i16::try_from(local.hour()).unwrap();
            let (sessions, active_ms) = hours.entry((reader, day, hour)).or_default();
            *sessions += i64::from(seen_hours.insert((stored.session_id.clone(), day, hour)));
            *active_ms += ms;
            let entry = days.entry((reader, day)).or_default();
            entry.active_ms += ms;
            entry.progress += i64::from(progress);
            entry.sessions += i64::from(seen.insert((stored.session_id.clone(), day)));
            let read = read.entry(stored.session_id.clone()).or_default();
            entry.long_sessions += i64::from(*read <= LONG_MS && *read + ms > LONG_MS);
            *read += ms;
        };
        let mut at = from;
        let until = from + TimeDelta::milliseconds(credited);
        while at < until {
            // Ends each step at a whole second, so that no step crosses midnight.
            let step = (1_000 - at.timestamp_millis().rem_euclid(1_000))
                .min((until - at).num_milliseconds());
            touch(at, step, 0);
            at += TimeDelta::milliseconds(step);
        }
        if let Some(observed) = observed {
            touch(observed, 0, progress);
        }
        if matches!(event, SessionEvent::SessionEnded(_)) {
            days.entry((reader, last_day)).or_default().ended_sessions += 1;
        }
    }

    let rows: Vec<(Uuid, NaiveDate, i64, i64, i64, i64, i64)> = sqlx::query_as(
        "select reader_id, day, sessions, active_ms, progress, long_sessions, ended_sessions
        from reader_days",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let shown: BTreeMap<_, _> = rows
        .into_iter()
        .map(|(reader, day, a, b, c, d, e)| ((reader, day), Day::from_columns([a, b, c, d, e])))
        .collect();
    assert_eq!(shown, days, "days of readers");

    let rows: Vec<(Uuid, NaiveDate, i16, i64, i64)> =
        sqlx::query_as("select reader_id, day, hour, sessions, active_ms from reader_hours")
            .fetch_all(pool)
            .await
            .unwrap();
    let shown: BTreeMap<_, _> = rows
        .into_iter()
        .map(|(reader, day, hour, sessions, ms)| ((reader, day, hour), (sessions, ms)))
        .collect();
    assert_eq!(shown, hours, "hours of readers");

    let mut sums: BTreeMap<NaiveDate, (i64, Day)> = BTreeMap::new();
    for ((_, day), counted) in &days {
        let (readers, sum) = sums.entry(*day).or_default();
        *readers += 1;
        sum.add(counted);
    }
    let rows: Vec<(NaiveDate, i64, i64, i64, i64, i64, i64)> = sqlx::query_as(
        "select day, readers, sessions, active_ms, progress, long_sessions, ended_sessions
        from days",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let shown: BTreeMap<_, _> = rows
        .into_iter()
        .map(|(day, readers, a, b, c, d, e)| (day, (readers, Day::from_columns([a, b, c, d, e]))))
        .collect();
    assert_eq!(shown, sums, "days of all readers");
}

/// Every active session in Redis equals the fold of its events. A missing entry is
/// allowed: it is a cache miss.
pub async fn cache_matches_the_log(env: &TestEnv, sessions: &BTreeMap<SessionId, FoldedSession>) {
    let cache = connect::cache(&app::settings(env, &[]).redis).unwrap();
    let redis = redis::Client::open(env.redis_url.as_str()).unwrap();
    let mut redis = ConnectionManager::new(redis).await.unwrap();
    let keys: Vec<String> = redis::AsyncCommands::keys(&mut redis, "reading_session:active:*")
        .await
        .unwrap();
    for key in keys {
        let reader: Uuid = key.rsplit(':').next().unwrap().parse().unwrap();
        let CacheLookup::Active(entry) = cached(&cache, reader.into()).await else {
            continue;
        };
        let folded = &sessions[&entry.session_id];
        assert_eq!(entry.sequence, folded.version, "version of {key}");
        assert_eq!(Some(&entry.session), folded.session.started(), "of {key}");
    }
}

/// The cache entry of a reader. Repeats the read if it exceeds the cache's deadline.
pub async fn cached(cache: &Cache, reader: ReaderId) -> CacheLookup {
    eventually_ok("a response of Redis", SETTLE, async || {
        active_sessions::get(cache, reader, None).await
    })
    .await
}
