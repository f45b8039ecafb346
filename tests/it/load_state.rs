//! A session loaded from three events equals the same session loaded from all of its
//! events, and so does its timeline. postgres-es and cqrs-es load all events, so that the
//! two ways share no query and no decoder.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use domain::SessionId;
use domain::session::CompleteSession;
use eventlog::cqrs_es::load_full;
use eventlog::{LogError, StoredEvent, load_state};
use serde_json::{Value, json};
use sqlx::PgPool;
use tests::random_history::write_random_histories;
use tests::reader::id;
use tests::{App, future_events, invariants};
use uuid::Uuid;

/// Asserts that both ways return the same session, and returns it.
async fn load_both(pool: &PgPool, id: SessionId) -> (CompleteSession, i64) {
    let full = load_full(pool, id).await.unwrap();
    let loaded = load_state::session(pool, id).await.unwrap();
    let (session, sequence) =
        loaded.map_or_else(Default::default, |loaded| (loaded.session, loaded.sequence));
    let timeline = load_state::timeline(pool, id, sequence).await.unwrap();
    let loaded = (CompleteSession { session, timeline }, sequence);
    assert_eq!(loaded, full, "session {id}");
    full
}

/// Asserts that each prefix of a session is loaded as the fold of its events.
async fn assert_prefixes_equal_the_fold(pool: &PgPool, id: SessionId, events: &[StoredEvent]) {
    let mut folded = CompleteSession::default();
    for event in events {
        folded.apply(&event.decode().unwrap().event);
        let loaded = load_state::sessions(pool, &[(id, event.sequence)]).await;
        let loaded = loaded.unwrap().pop().expect("the session has events");
        assert_eq!(
            (&loaded.session, loaded.sequence, loaded.global_position),
            (&folded.session, event.sequence, event.global_position),
            "session {id}"
        );
        let timeline = load_state::timeline(pool, id, event.sequence).await;
        assert_eq!(timeline.unwrap(), folded.timeline, "session {id}");
    }
}

#[tokio::test]
async fn random_sessions_load_equally_from_three_events_and_from_all() {
    let seed = eventlog::clock::now().timestamp_millis().unsigned_abs();
    println!("seed {seed}");
    let app = App::start().await;
    write_random_histories(&app, seed..seed + 20).await;
    let mut sessions: BTreeMap<SessionId, Vec<StoredEvent>> = BTreeMap::new();
    for event in invariants::read_log(&app.pool).await {
        let id = event.session_id.parse().unwrap();
        sessions.entry(id).or_default().push(event);
    }
    assert!(sessions.values().any(|events| events.len() > 5));
    for (id, events) in &sessions {
        let (session, sequence) = load_both(&app.pool, *id).await;
        assert!(session.session.started().is_some());
        assert_eq!(usize::try_from(sequence).unwrap(), events.len());
        assert_prefixes_equal_the_fold(&app.pool, *id, events).await;
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn missing_session_loads_as_empty() {
    let app = App::start().await;
    let id = SessionId::new(eventlog::clock::now());
    let empty = (CompleteSession::default(), 0);
    assert_eq!(load_both(&app.pool, id).await, empty);
}

#[tokio::test]
async fn erased_session_loads_equally_before_and_after_the_overwrite() {
    let app = App::start().await;
    write_random_histories(&app, 1..2).await;
    let log = invariants::read_log(&app.pool).await;
    let id: SessionId = log[0].session_id.parse().unwrap();
    let reader_id = log[0].decode().unwrap().event.reader_id();
    let now = eventlog::clock::now();
    let _ = eventlog::erase::reader(&app.pool, reader_id, now)
        .await
        .unwrap();
    let (erased, _) = load_both(&app.pool, id).await;
    assert!(erased.session.started().is_none());
    while eventlog::erase::overwrite(&app.pool, reader_id)
        .await
        .unwrap()
        .1
    {}
    assert_eq!(load_both(&app.pool, id).await.0, erased);
}

#[tokio::test]
async fn session_with_a_version_1_end_loads_equally() {
    let app = App::start().await;
    let id = SessionId::new(eventlog::clock::now());
    let reader = Uuid::new_v4().to_string();
    let yesterday = (eventlog::clock::now() - TimeDelta::days(1)).date_naive();
    let payload = |fixture: &str| {
        fixture
            .trim_ascii_end()
            .replace("5e3a0c1e-6f0b-4a58-9c61-0d9d2a6a7b01", &reader)
            .replace("2026-03-01", &yesterday.to_string())
    };
    let payloads = [
        payload(include_str!("../../eventlog/fixtures/started.v1.json")),
        payload(include_str!("../../eventlog/fixtures/ended.v1.json")),
    ];
    sqlx::query(
        "select append_events('{0,0}', $1, '{1,2}', $2, $3, '{1,1}', $4, $5,
            '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
    )
    .bind(vec![id.to_string(); 2])
    .bind(vec!["reading_session"; 2])
    .bind(vec!["SessionStarted", "SessionEnded"])
    .bind(&payloads[..])
    .bind(vec!["{}"; 2])
    .execute(&app.pool)
    .await
    .unwrap();
    let (loaded, sequence) = load_both(&app.pool, id).await;
    assert_eq!(sequence, 2);
    let session = loaded.session.started().unwrap();
    assert!(!session.is_active());
    // The service ended the session after its latest observation.
    assert!(session.progress.latest.at < session.progress.ended.unwrap().at);
}

/// Locators are any text, also such that looks like a field. Older builds accepted NUL,
/// which Postgres cannot convert to text.
#[tokio::test]
async fn late_observations_after_an_end_load_equally() {
    let app = App::start().await;
    let reader = app.reader();
    let at = |minutes: i64| eventlog::clock::now() - TimeDelta::minutes(60 - minutes);
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": at(0) });
    let session = id(&reader.start_with(start).await.ok());
    let update = async |minutes, position: f64, locator: &str| {
        let update = json!({
            "current_position": position, "occurred_at": at(minutes), "locator": locator,
        });
        let _ = reader.update_with(session, update).await.ok();
    };
    update(20, 20.0, "\"applied\":false").await;
    let end = json!({
        "occurred_at": at(30), "end_position": 30, "locator": "{\"applied\": false}",
    });
    let _ = reader.end(session, end).await.ok();
    for minute in 1..10 {
        update(minute, 1.0, "\"applied\": true").await;
    }
    let log = invariants::read_log(&app.pool).await;
    let mut payload: Value = serde_json::from_str(&log.last().unwrap().payload).unwrap();
    payload["locator"] = json!("\u{0}");
    future_events::write(&app.pool, session, "PositionUpdated", "2", &payload).await;
    let session = session.to_string().parse().unwrap();
    let (loaded, sequence) = load_both(&app.pool, session).await;
    assert_eq!(sequence, 13);
    let progress = &loaded.session.started().unwrap().progress;
    assert_eq!(progress.latest.position.steps(), 300_000);
    assert_eq!(
        progress.latest.locator.as_deref(),
        Some("{\"applied\": false}")
    );

    // Another end is the last event that moves the position.
    let correction = json!({ "end_position": 15 });
    let _ = reader.correct(session.uuid(), correction).await.ok();
    let (loaded, _) = load_both(&app.pool, session).await;
    let progress = &loaded.session.started().unwrap().progress;
    assert_eq!(progress.latest.position.steps(), 150_000);
    let log = invariants::read_log(&app.pool).await;
    assert_prefixes_equal_the_fold(&app.pool, session, &log).await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn timeline_of_an_undecodable_session_fails() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = future_events::append_unreadable(&app.pool, session).await;
    let session = session.to_string().parse().unwrap();
    let timeline = load_state::timeline(&app.pool, session, 1).await.unwrap();
    assert!(timeline.latest().is_some());
    let error = load_state::timeline(&app.pool, session, 2).await;
    assert!(matches!(error, Err(LogError::Undecodable { .. })));
}
