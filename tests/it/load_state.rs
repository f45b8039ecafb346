//! A session loaded from three events equals the same session loaded from all of its
//! events. postgres-es and cqrs-es load all events, so that the two ways share no
//! query and no decoder.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use domain::{ReadingSession, SessionId};
use eventlog::cqrs_es::load_full;
use eventlog::{StoredEvent, load_state};
use sqlx::PgPool;
use tests::random_history::write_random_histories;
use tests::{App, invariants};
use uuid::Uuid;

/// Asserts that both ways return the same session, and returns it.
async fn load_both(pool: &PgPool, id: SessionId) -> (ReadingSession, i64) {
    let full = load_full(pool, id).await.unwrap();
    let loaded = load_state::session(pool, id).await.unwrap();
    let loaded = loaded.map_or_else(Default::default, |loaded| (loaded.session, loaded.sequence));
    assert_eq!(loaded, full, "session {id}");
    full
}

/// Asserts that [`load_state::sessions`] returns the fold of each prefix of a
/// session.
async fn assert_prefixes_equal_the_fold(pool: &PgPool, id: SessionId, events: &[StoredEvent]) {
    let mut folded = ReadingSession::default();
    for event in events {
        folded.apply(&event.decode().unwrap().event);
        let loaded = load_state::sessions(pool, &[(id, event.sequence)]).await;
        let loaded = loaded.unwrap().pop().expect("the session has events");
        assert_eq!(
            (loaded.session, loaded.sequence, loaded.global_position),
            (folded.clone(), event.sequence, event.global_position),
            "session {id}"
        );
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
        assert!(session.started().is_some());
        assert_eq!(usize::try_from(sequence).unwrap(), events.len());
        assert_prefixes_equal_the_fold(&app.pool, *id, events).await;
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn missing_session_loads_as_empty() {
    let app = App::start().await;
    let id = SessionId::new(eventlog::clock::now());
    let empty = (ReadingSession::default(), 0);
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
    assert!(erased.started().is_none());
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
    let (session, sequence) = load_both(&app.pool, id).await;
    assert_eq!(sequence, 2);
    assert!(
        session
            .started()
            .is_some_and(|session| !session.is_active())
    );
}
