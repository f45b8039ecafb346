//! The log returns a reader's activity and last time zone, and finds every session that
//! may be idle. These tests write events in JSON, as any release may have written them.

use chrono::TimeDelta;
use domain::{ReaderId, SessionId, Timestamp};
use eventlog::active_claims::{self, ReaderActivity};
use eventlog::append::{ActiveClaimChange, Append};
use eventlog::{Appender, clock, commit_feed, erase};
use serde_json::{Value, json};
use sqlx::PgPool;
use tests::{Stack, app, backdate, future_events};
use uuid::Uuid;

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

async fn observe(pool: &PgPool, reader: Uuid, id: SessionId, at: Timestamp, locator: &str) {
    let payload = json!({
        "type": "PositionUpdated", "reader_id": reader, "occurred_at": at, "position": 1,
        "locator": locator, "applied": true, "started_at": at - TimeDelta::days(1),
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
    let (appender, task) = Appender::new(pool.clone(), commit_feed::channel().0);
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
    let erased = erase::session(&pool, reader.into(), third, now).await;
    assert!(erased.unwrap().is_some());
    assert_eq!(last().await.as_deref(), Some("Europe/Berlin"));
    let overwritten = erase::overwrite(&pool, reader.into()).await.unwrap();
    assert_eq!(overwritten, (1, false));
    assert_eq!(last().await.as_deref(), Some("Europe/Berlin"));
}

#[tokio::test]
async fn session_is_a_candidate_for_idle_if_its_last_event_or_observation_is_old() {
    let pool = pool().await;
    let now = clock::now();
    let (old, recent) = (now - TimeDelta::hours(5), now - TimeDelta::minutes(1));
    let [
        reading,
        started,
        recorded_long_ago,
        started_long_ago,
        read_long_ago,
        with_nul,
        quoting,
        future,
    ] = ids();
    let session = async |id: SessionId, started_at, observed_at: Option<Timestamp>, locator| {
        let reader = id.uuid();
        start(
            &pool,
            reader,
            id,
            started_at,
            &json!({ "book": { "title": "occurred_at" } }),
        )
        .await;
        if let Some(at) = observed_at {
            observe(&pool, reader, id, at, locator).await;
        }
    };
    session(reading, old, Some(recent), "").await;
    session(started, recent, None, "").await;
    session(recorded_long_ago, recent, None, "").await;
    backdate::shift_session(&pool, recorded_long_ago.uuid(), TimeDelta::hours(5)).await;
    // Recorded just now, read hours ago.
    session(started_long_ago, old, None, "").await;
    session(read_long_ago, old, Some(old), "").await;
    // Texts in which Postgres cannot search, or that look like a time.
    session(with_nul, old, Some(old), "a\0b").await;
    session(
        quoting,
        old,
        Some(recent),
        "\"occurred_at\":\"2000-01-01T00:00:00Z\"",
    )
    .await;
    session(future, now + TimeDelta::hours(1), None, "").await;

    let since = now - TimeDelta::hours(2);
    let found = active_claims::idle(&pool, since, None, 100).await.unwrap();
    let mut sessions: Vec<SessionId> = found.iter().map(|idle| idle.session_id).collect();
    sessions.sort_unstable();
    assert_eq!(
        sessions,
        [recorded_long_ago, started_long_ago, read_long_ago, with_nul]
    );
    for idle in &found {
        let events = if [read_long_ago, with_nul].contains(&idle.session_id) {
            2
        } else {
            1
        };
        assert_eq!(idle.sequence, events);
    }

    // Page by page, in the order of the readers.
    let mut paged = Vec::new();
    loop {
        let after = paged
            .last()
            .map(|idle: &active_claims::IdleSession| idle.reader_id);
        let page = active_claims::idle(&pool, since, after, 1).await.unwrap();
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, found);

    // The limit itself is not exact: the sub-second part of a time is ignored.
    let early = active_claims::idle(&pool, old - TimeDelta::seconds(1), None, 100);
    assert_eq!(early.await.unwrap(), []);
}
