//! The log returns a reader's activity and last time zone, and finds idle sessions. These
//! tests write events in JSON, as any release may have written them.

use chrono::TimeDelta;
use domain::{ReaderId, SessionId, Timestamp};
use eventlog::active_claims::{self, IdleSession, ReaderActivity};
use eventlog::append::{ActiveClaimChange, Append};
use eventlog::{Appender, clock, commit_feed, erase};
use serde_json::{Value, json};
use sqlx::PgPool;
use tests::{Stack, app, backdate, future_events};
use uuid::Uuid;

use crate::erase::sessions::erase_session;

async fn pool() -> PgPool {
    app::pool(&Stack::shared().await.new_env().await).await
}

/// Writes the start of a session, and makes the session active. `more` are fields of the
/// start.
async fn start(pool: &PgPool, reader: Uuid, id: SessionId, at: Timestamp, more: &Value) {
    let mut payload = json!({
        "type": "SessionStarted", "reader_id": reader, "book_id": Uuid::from_u128(1),
        "started_at": at, "position": 0,
    });
    let fields = more.as_object().unwrap().clone();
    payload.as_object_mut().unwrap().extend(fields);
    future_events::write(pool, id.uuid(), "SessionStarted", "1", &payload).await;
    sqlx::query(
        "insert into claims values ($1, $2)
        on conflict (reader_id) do update set session_id = excluded.session_id",
    )
    .bind(reader)
    .bind(id.to_string())
    .execute(pool)
    .await
    .unwrap();
}

async fn observe(pool: &PgPool, reader: Uuid, id: SessionId, at: Timestamp) {
    let payload = json!({
        "type": "PositionUpdated", "reader_id": reader, "occurred_at": at, "position": 1,
        "locator": "a\0b", "applied": true,
    });
    future_events::write(pool, id.uuid(), "PositionUpdated", "2", &payload).await;
}

/// Ids in ascending order.
fn ids<const N: usize>() -> [SessionId; N] {
    let now = clock::now();
    let mut n = 0;
    [(); N].map(|()| {
        n += 1;
        SessionId::new(now + TimeDelta::milliseconds(n))
    })
}

#[tokio::test]
async fn activity_contains_the_active_session_and_the_newest_observation_elsewhere() {
    let pool = pool().await;
    let (appender, task) = Appender::new(pool.clone(), commit_feed::channel().0, |_| {});
    tokio::spawn(task);
    let reader_id = ReaderId::from(Uuid::new_v4());
    let activity = async || {
        active_claims::reader_activity(&pool, reader_id)
            .await
            .unwrap()
    };
    assert_eq!(activity().await, ReaderActivity::default());

    let [id] = ids();
    let start = ActiveClaimChange {
        reader_id,
        expected: None,
        next: Some(id),
        expected_newest: None,
        next_newest: None,
    };
    let change = async |change| {
        let append = Append {
            claim: Some(change),
            ..Append::default()
        };
        assert_eq!(appender.append(append).await.unwrap().len(), 0);
    };
    change(start).await;
    let active = ReaderActivity {
        active: Some(id),
        newest: None,
    };
    assert_eq!(activity().await, active);

    let newest = "2026-03-01T20:00:00.123Z".parse().unwrap();
    let end = ActiveClaimChange {
        expected: Some(id),
        next: None,
        next_newest: Some(newest),
        ..start
    };
    change(end).await;
    let ended = ReaderActivity {
        active: None,
        newest: Some(newest),
    };
    assert_eq!(activity().await, ended);
}

#[tokio::test]
async fn last_time_zone_is_that_of_the_newest_session() {
    let pool = pool().await;
    let reader = Uuid::new_v4();
    let last = async || {
        active_claims::last_time_zone(&pool, reader.into())
            .await
            .unwrap()
    };
    assert_eq!(last().await, None);

    let [first, second, third, fourth] = ids();
    let now = clock::now();
    start(&pool, reader, first, now, &json!({})).await;
    assert_eq!(last().await.as_deref(), Some("UTC"));
    let kept = json!({ "time_zone": "Pacific/Apia", "locator": "\"time_zone\":\"Asia/Tokyo\"" });
    start(&pool, reader, third, now, &kept).await;
    assert_eq!(last().await.as_deref(), Some("Pacific/Apia"));
    // An older session that arrives later, and another reader's session, change nothing.
    let zone = json!({ "time_zone": "Europe/Berlin" });
    start(&pool, reader, second, now, &zone).await;
    start(&pool, Uuid::new_v4(), fourth, now, &zone).await;
    assert_eq!(last().await.as_deref(), Some("Pacific/Apia"));

    // An erased session is skipped, before and after its events are overwritten.
    let erased = erase_session(&pool, reader.into(), third, now).await;
    assert!(erased.unwrap().is_some());
    assert_eq!(last().await.as_deref(), Some("Europe/Berlin"));
    let overwritten = erase::overwrite(&pool, reader.into()).await.unwrap();
    assert_eq!(overwritten, (1, false));
    assert_eq!(last().await.as_deref(), Some("Europe/Berlin"));
}

#[tokio::test]
async fn session_without_an_event_for_a_while_is_idle() {
    let pool = pool().await;
    let now = clock::now();
    let (since, long_ago) = (now - TimeDelta::hours(2), now - TimeDelta::hours(5));
    let [reading, idle, idle_since_its_start] = [1, 2, 3].map(|minute| {
        let id = SessionId::new(long_ago + TimeDelta::minutes(minute));
        (id, id.uuid())
    });
    // A client's id may contain a time in the future.
    let future = SessionId::new(now + TimeDelta::hours(1));
    for (id, reader) in [reading, idle, idle_since_its_start, (future, future.uuid())] {
        start(&pool, reader, id, long_ago, &json!({})).await;
    }
    for (id, reader) in [idle, idle_since_its_start, (future, future.uuid())] {
        if id == idle.0 {
            observe(&pool, reader, id, long_ago).await;
        }
        backdate::shift_session(&pool, id.uuid(), now - long_ago).await;
    }
    // An observation that is hours old and arrives just now.
    observe(&pool, reading.1, reading.0, long_ago).await;

    let found = active_claims::idle(&pool, since, None, 100).await.unwrap();
    let mut sessions: Vec<(SessionId, i64)> = found
        .iter()
        .map(|found| (found.session_id, found.sequence))
        .collect();
    sessions.sort_unstable();
    assert_eq!(sessions, [(idle.0, 2), (idle_since_its_start.0, 1)]);

    // Page by page, in the order of the readers.
    let mut paged = Vec::new();
    loop {
        let after = paged.last().map(|idle: &IdleSession| idle.reader_id);
        let page = active_claims::idle(&pool, since, after, 1).await.unwrap();
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, found);
}
