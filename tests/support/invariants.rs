//! The invariants of the system. After a test, these checks compare the stream, the
//! read tables and Redis with a plain fold of the log.

use std::collections::{BTreeMap, BTreeSet};

use domain::session::StartedSession;
use domain::{ReaderId, ReadingSession, SessionEvent, SessionId};
use eventlog::{RecordedEvent, StoredEvent, read};
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

mod activity;
mod statistics;

pub use activity::active_sessions_match_the_log;
pub use statistics::statistics_match_the_log;

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
    active_sessions_match_the_log(pool, &log, &sessions).await;
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
    fold_recorded(log.iter().map(|stored| stored.decode().unwrap()))
}

/// The sessions of some events, without erased ones.
#[must_use]
pub fn fold_recorded(
    events: impl IntoIterator<Item = RecordedEvent>,
) -> BTreeMap<SessionId, FoldedSession> {
    let mut sessions: BTreeMap<SessionId, FoldedSession> = BTreeMap::new();
    let mut erased = BTreeSet::new();
    for recorded in events {
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
            std::cmp::Reverse((folded.session.started().unwrap().first().at, *id))
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
            let session = as_in_the_history(folded.session.started().unwrap());
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

/// The part of a session that the history contains: no locator of the start, no times of
/// the device's own clock, and the first observation as the start.
fn as_in_the_history(session: &StartedSession) -> StartedSession {
    let mut shown = session.clone();
    shown.start.started_at = session.first().at;
    shown.start.position = session.first().position;
    shown.start.device_time = None;
    shown.start.locator = None;
    shown.start.end_reason = None;
    shown.progress.latest.device_time = None;
    shown.progress.first = None;
    shown.progress.active_fixed = false;
    shown
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
