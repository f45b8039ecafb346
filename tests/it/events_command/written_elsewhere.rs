//! Events that other builds wrote, and events recorded in the past.

use domain::{SessionId, Timestamp};
use eventlog::read;
use serde_json::{Value, json};
use sqlx::PgPool;
use tests::{Stack, app, invariants};
use uuid::Uuid;

use super::{ALL, ids, lines};

/// Appends an event as another build could have written it.
async fn insert(pool: &PgPool, version: &str, payload: &str, at: Timestamp) -> String {
    let session = SessionId::new(eventlog::clock::now()).to_string();
    sqlx::query(
        "insert into events (aggregate_id, sequence, aggregate_type, event_type,
            event_version, payload, metadata, recorded_at)
        values ($1, 1, 'reading_session', 'PositionUpdated', $2, $3::json, '{}', $4)",
    )
    .bind(&session)
    .bind(version)
    .bind(payload)
    .bind(at)
    .execute(pool)
    .await
    .unwrap();
    format!("{session}.1")
}

#[tokio::test]
async fn undecodable_events_are_printed_and_marked() {
    let env = Stack::shared().await.new_env().await;
    let pool = app::pool(&env).await;
    let reader = Uuid::new_v4();
    let now = eventlog::clock::now();
    let future = json!({ "reader_id": reader, "mood": "cheerful" }).to_string();
    let good = include_str!("../../../eventlog/fixtures/position_updated.v1.json");
    let written = [
        insert(&pool, "99", &future, now).await,
        insert(&pool, "1", "{\n\"unknown\": 1e999}", now).await,
        insert(&pool, "1", good, now).await,
    ];
    assert_eq!(ids(&env, &ALL).await, written);
    let owned = ids(
        &env,
        &[&ALL[..], &["--reader", &reader.to_string()]].concat(),
    )
    .await;
    assert_eq!(owned, written[..1]);

    let all = [&ALL[..], &["-o", "json"]].concat();
    let printed = lines(&env, &all).await;
    let parsed = |n: usize| serde_json::from_str::<Value>(&printed[n]).unwrap();
    let future = parsed(0);
    let reason = &future["undecodable"];
    assert_eq!(reason, "version 99 of event PositionUpdated is unknown");
    assert_eq!(future["type"], "reading.session.position_updated.v99");
    assert_eq!(future["data"]["mood"], "cheerful");
    // The payload is printed unchanged.
    for part in [
        r#""data":{ "unknown": 1e999}"#,
        r#""undecodable":"the payload is invalid"#,
        r#""partitionkey":"00000000-0000-0000-0000-000000000000""#,
    ] {
        assert!(printed[1].contains(part), "{}", printed[1]);
    }
    assert_eq!(parsed(2).get("undecodable"), None);

    let text = lines(&env, &ALL).await;
    assert_eq!(text.len(), 3);
    assert!(
        text[0].contains("NOT DECODED") && text[0].contains("cheerful"),
        "{}",
        text[0]
    );
    assert!(text[1].contains(r#"{ "unknown": 1e999}"#), "{}", text[1]);
    assert!(text[2].contains("at 20.5 %"), "{}", text[2]);
}

#[tokio::test]
async fn since_starts_at_the_first_event_after_that_time() {
    let env = Stack::shared().await.new_env().await;
    let pool = app::pool(&env).await;
    assert_eq!(
        read::before_time(&pool, Timestamp::MIN_UTC).await.unwrap(),
        0
    );
    let now = eventlog::clock::now();
    // Uneven intervals, with some events at the same time.
    let minutes = [600, 500, 500, 120, 119, 61, 59, 59, 8, 1];
    for minute in minutes {
        // Skip a global position, so that there are gaps.
        sqlx::query("select nextval('events_global_position')")
            .execute(&pool)
            .await
            .unwrap();
        let at = now - chrono::TimeDelta::minutes(minute);
        insert(&pool, "1", "{}", at).await;
    }
    let log = invariants::read_log(&pool).await;
    let times = minutes
        .iter()
        .flat_map(|minute| [*minute, minute - 1, minute + 1]);
    for minute in times {
        let time = now - chrono::TimeDelta::minutes(minute);
        let earlier = log.iter().rev().find(|event| event.recorded_at < time);
        let expected = earlier.map_or(0, |event| event.global_position);
        let found = read::before_time(&pool, time).await.unwrap();
        assert_eq!(found, expected, "{minute} minutes ago");
    }
    let expected: Vec<String> = log[6..].iter().map(eventlog::StoredEvent::id).collect();
    let hour_ago = (now - chrono::TimeDelta::hours(1)).to_rfc3339();
    for since in ["1h", "60m", &hour_ago] {
        let arguments = ["tail", "--since", since, "--until-end"];
        assert_eq!(ids(&env, &arguments).await, expected, "{since}");
    }
    let arguments = ["tail", "--since", "30s", "--until-end"];
    assert!(ids(&env, &arguments).await.is_empty());
}
