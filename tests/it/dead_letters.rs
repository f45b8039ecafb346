//! If a projection cannot apply an event, it parks the event, holds back the later
//! events of that session, and continues with the rest. A parked event is applied
//! on a successful retry, or skipped when an operator discards it.

use async_nats::jetstream::consumer::AckPolicy;
use async_nats::jetstream::consumer::pull::Config;
use futures::StreamExt;
use messaging::Subjects;
use messaging::stream::ensure_dead_letters;
use projections::dead_letters::{self, ActionError, DeadLetter, DeadLetterId, RetryStatus};
use serde_json::{Value, json};
use server::config::Role;
use server::connect;
use sqlx::PgPool;
use tests::app::SETTLE;
use tests::process::command;
use tests::reader::{Reader, id};
use tests::{App, app, eventually, future_events, invariants, until};
use uuid::Uuid;

/// The dead letters of a projection.
async fn letters(pool: &PgPool, projection: &str) -> Vec<DeadLetter> {
    dead_letters::list(pool, Some(projection), None, None, 1_000)
        .await
        .unwrap()
}

fn states(letters: &[DeadLetter]) -> Vec<(i64, &str)> {
    letters
        .iter()
        .map(|letter| (letter.sequence, letter.state.as_str()))
        .collect()
}

/// Appends a copy of a session's last update with changed payload fields, as a
/// newer build could have written it.
async fn update(pool: &PgPool, session: Uuid, version: &str, change: &Value) {
    let last: String = sqlx::query_scalar(
        "select payload::text from events
        where aggregate_id = $1 and event_type = 'PositionUpdated'
        order by sequence desc limit 1",
    )
    .bind(session.to_string())
    .fetch_one(pool)
    .await
    .unwrap();
    let mut payload: Value = serde_json::from_str(&last).unwrap();
    payload.as_object_mut().unwrap().remove("locator");
    for (field, value) in change.as_object().unwrap() {
        payload[field] = value.clone();
    }
    future_events::write(pool, session, "PositionUpdated", version, &payload).await;
}

/// Starts a service and waits for all projections. The cache starts at the end of
/// the log, so it would not process events appended before it started.
async fn started() -> App {
    let app = App::start().await;
    app.settled().await;
    app
}

/// A reader with a session of two events.
async fn reading(app: &App) -> (Reader, Uuid) {
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 10.0).await.ok();
    (reader, session)
}

/// Waits for the result of a retry.
async fn retry_result(pool: &PgPool, id: &DeadLetterId) -> RetryStatus {
    let what = format!("the result for dead letter {id}");
    eventually(&what, SETTLE, async || {
        let status = dead_letters::retry_status(pool, id).await.unwrap();
        (status != RetryStatus::Pending).then_some(status)
    })
    .await
}

/// Waits until a projection has no open dead letters.
async fn none_open(pool: &PgPool, projection: &str) {
    let what = format!("{projection} has no open dead letters");
    until(&what, SETTLE, async || {
        let letters = letters(pool, projection).await;
        letters
            .iter()
            .all(|letter| letter.state == dead_letters::State::Discarded)
    })
    .await;
}

async fn version_in_history(app: &App, session: Uuid) -> i64 {
    sqlx::query_scalar("select version from history where session_id = $1")
        .bind(session.to_string())
        .fetch_one(&app.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn event_of_unknown_version_is_parked_and_later_ones_wait() {
    let app = started().await;
    let (reader, session) = reading(&app).await;
    update(&app.pool, session, "99", &json!({ "mood": "cheerful" })).await;
    update(&app.pool, session, "1", &json!({ "position": 30 })).await;
    let (_, other) = reading(&app).await;
    app.settled().await;

    for projection in ["history", "daily_stats", "active_sessions"] {
        let letters = letters(&app.pool, projection).await;
        assert_eq!(states(&letters), [(3, "parked"), (4, "waiting")]);
        assert!(letters[0].error.contains("version 99"), "{letters:?}");
        let global_position = letters[0].global_position.to_string();
        assert!(letters[1].error.ends_with(&global_position), "{letters:?}");
    }
    // The history shows the session's earlier events and other sessions. A query for
    // the reader's active session fails, since the session cannot be loaded.
    assert_eq!(version_in_history(&app, session).await, 2);
    assert_eq!(version_in_history(&app, other).await, 2);
    let warm_up = command(&app.env).arg("warmup").status().await;
    assert!(warm_up.unwrap().success());
    let _ = reader.active().await.problem(500);

    // The stream contains every event, for consumers that support newer versions.
    let log = invariants::read_log(&app.pool).await;
    invariants::stream_matches_the_log(&app.env, &log).await;

    // The reader's next session is not affected.
    let next = Uuid::now_v7();
    let start = json!({
        "type": "SessionStarted", "reader_id": reader.id, "book_id": Uuid::new_v4(),
        "started_at": eventlog::clock::now(), "position": 5,
    });
    future_events::write(&app.pool, next, "SessionStarted", "1", &start).await;
    app.settled().await;
    assert_eq!(version_in_history(&app, next).await, 1);
}

/// The reader is found by the first event of the session.
#[tokio::test]
async fn unreadable_event_without_a_reader_invalidates_the_active_session() {
    let app = started().await;
    let (reader, session) = reading(&app).await;
    app.settled().await;
    assert_eq!(reader.active().await.ok()["version"], 2);
    let payload = json!({ "mood": "cheerful" });
    future_events::write(&app.pool, session, "PositionUpdated", "99", &payload).await;
    app.settled().await;
    let letters = letters(&app.pool, "active_sessions").await;
    assert_eq!(states(&letters), [(3, "parked")]);
    let _ = reader.active().await.problem(500);
}

#[tokio::test]
async fn event_rejected_by_the_store_is_parked_alone() {
    let app = started().await;
    let (reader, session) = reading(&app).await;
    let (_, other) = reading(&app).await;
    app.settled().await;
    let (env, pool) = (app.env.clone(), app.pool.clone());
    app.stop().await;
    // In the middle of a batch, text that JSON allows and Postgres rejects.
    for n in 0..100 {
        update(&pool, other, "1", &json!({ "position": n })).await;
    }
    update(&pool, session, "1", &json!({ "locator": "\u{0}" })).await;
    // A late update, so the rejected locator is still the current one.
    update(&pool, session, "1", &json!({ "applied": false })).await;
    for n in 0..100 {
        update(&pool, other, "1", &json!({ "position": n })).await;
    }

    let stack = tests::Stack::shared().await;
    let app = App::run(stack, env.clone(), &app::settings(&env, &Role::ALL)).await;
    app.settled().await;
    let parked = letters(&pool, "history").await;
    assert_eq!(states(&parked), [(3, "parked"), (4, "waiting")]);
    assert!(parked[0].error.contains("0x00"), "{parked:?}");
    // The statistics store no locators, and Redis accepts any text.
    assert!(letters(&pool, "daily_stats").await.is_empty());
    assert!(letters(&pool, "active_sessions").await.is_empty());
    assert_eq!(version_in_history(&app, other).await, 202);
    assert_eq!(reader.at(&app.url).active().await.ok()["version"], 4);
    let warm_up = command(&env).arg("warmup").status().await;
    assert!(warm_up.unwrap().success());

    // A failed retry leaves the event parked. After a discard, the projection skips
    // it and applies the later events.
    let letter = parked[0].id();
    dead_letters::retry(&pool, &letter).await.unwrap();
    let RetryStatus::Failed(error) = retry_result(&pool, &letter).await else {
        panic!("the retry succeeded");
    };
    assert!(error.contains("0x00"), "{error}");
    assert_eq!(letters(&pool, "history").await[0].tries, 2);
    let waiting = dead_letters::discard(&pool, &parked[1].id()).await;
    let Err(ActionError::Waiting { blocked_by, .. }) = waiting else {
        panic!("{waiting:?}");
    };
    assert_eq!(blocked_by.as_ref(), Some(&letter));
    dead_letters::discard(&pool, &letter).await.unwrap();
    none_open(&pool, "history").await;
    assert_eq!(states(&letters(&pool, "history").await), [(3, "discarded")]);
    assert_eq!(version_in_history(&app, session).await, 4);
    let retried = dead_letters::retry(&pool, &letter).await;
    assert!(
        matches!(retried, Err(ActionError::Discarded(_))),
        "{retried:?}"
    );

    // The discard is permanent: later events are applied, also by a replay.
    let _ = reader.at(&app.url).update(session, 50.0).await.ok();
    app.settled().await;
    assert_eq!(version_in_history(&app, session).await, 5);
    let before = letters(&pool, "history").await;
    let replayed = tests::process::command(&env)
        .args(["replay", "history", "--restart"])
        .status();
    assert!(replayed.await.unwrap().success());
    let after = letters(&pool, "history").await;
    assert_eq!(states(&after), [(3, "discarded")]);
    assert_eq!(after[0].parked_at, before[0].parked_at);
    assert_eq!(after[0].tries, before[0].tries);
    assert_eq!(version_in_history(&app, session).await, 5);
}

#[tokio::test]
async fn retried_events_are_applied_in_order_and_once() {
    let app = started().await;
    let (reader, session) = reading(&app).await;
    app.settled().await;
    // Dead letters of events that an earlier build could not read.
    let (env, pool) = (app.env.clone(), app.pool.clone());
    app.stop().await;
    for n in [30, 35, 40] {
        update(
            &pool,
            session,
            "1",
            &json!({ "position": n, "furthest_position": 40 }),
        )
        .await;
    }
    let events = eventlog::read::session(&pool, session.to_string().parse().unwrap(), 2)
        .await
        .unwrap();
    for projection in ["history", "daily_stats"] {
        for (n, event) in events.iter().enumerate() {
            sqlx::query(
                "insert into dead_letters (
                    projection, global_position, session_id, sequence, state, error
                ) values ($1, $2, $3, $4, $5, 'from an earlier build')",
            )
            .bind(projection)
            .bind(event.global_position)
            .bind(&event.session_id)
            .bind(event.sequence)
            .bind(if n == 0 { "parked" } else { "waiting" })
            .execute(&pool)
            .await
            .unwrap();
        }
        sqlx::query("update checkpoints set global_position = $2 where projection = $1")
            .bind(projection)
            .bind(events[2].global_position)
            .execute(&pool)
            .await
            .unwrap();
    }

    let stack = tests::Stack::shared().await;
    let app = App::run(stack, env.clone(), &app::settings(&env, &Role::ALL)).await;
    let other = app.alongside(&[Role::Projections]).await;
    // Events that arrive before the retry wait too.
    let _ = reader.at(&app.url).update(session, 45.0).await.ok();
    app.settled().await;
    for projection in ["history", "daily_stats"] {
        let parked = letters(&pool, projection).await;
        assert_eq!(
            states(&parked),
            [
                (3, "parked"),
                (4, "waiting"),
                (5, "waiting"),
                (6, "waiting")
            ]
        );
        dead_letters::retry(&pool, &parked[2].id()).await.unwrap();
        none_open(&pool, projection).await;
    }
    assert_eq!(version_in_history(&app, session).await, 6);
    invariants::check(&app).await;
    other.stop().await;
}

#[tokio::test]
async fn meaningless_event_stops_neither_relay_nor_projections() {
    let app = started().await;
    let session = Uuid::now_v7();
    future_events::write(&app.pool, session, "Session Vanished.>", "7", &json!([])).await;
    let (_, other) = reading(&app).await;
    app.settled().await;
    assert_eq!(version_in_history(&app, other).await, 2);
    for projection in ["history", "daily_stats", "active_sessions"] {
        assert_eq!(
            states(&letters(&app.pool, projection).await),
            [(1, "parked")]
        );
    }
    let log = invariants::read_log(&app.pool).await;
    assert_eq!(log.len(), 3);
    until("three events in the stream", SETTLE, async || {
        tests::stream::read_all(&app.env).await.len() == 3
    })
    .await;
}

#[tokio::test]
async fn every_dead_letter_is_published_to_nats() {
    let app = started().await;
    let (_, session) = reading(&app).await;
    update(&app.pool, session, "99", &json!({ "mood": "cheerful" })).await;
    app.settled().await;
    let jetstream = connect::jetstream(&app::settings(&app.env, &[]).nats)
        .await
        .unwrap();
    let subjects = Subjects::new(&app.env.nats_prefix);
    let stream = ensure_dead_letters(&jetstream, &subjects).await.unwrap();
    let consumer = stream
        .create_consumer(Config {
            ack_policy: AckPolicy::None,
            ..Config::default()
        })
        .await
        .unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let message = messages.next().await.unwrap().unwrap();
        let copy: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(copy["type"], "reading.dead_letter.v1");
        assert_eq!(copy["subject"], session.to_string());
        assert_eq!(copy["data"]["event_version"], "99");
        assert_eq!(copy["data"]["payload"]["mood"], "cheerful");
        let projection = copy["data"]["projection"].as_str().unwrap();
        assert_eq!(message.subject.as_str(), subjects.dead_letter(projection));
        seen.push(projection.to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["active_sessions", "daily_stats", "history"]);
}
