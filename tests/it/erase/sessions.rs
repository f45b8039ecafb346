//! Single sessions of a reader are erased from the log. These tests write events in JSON,
//! as any release may have written them.

use chrono::TimeDelta;
use commands::erasure;
use domain::{ReaderId, SessionId, Timestamp};
use eventlog::append::{ActiveClaimChange, Append, KeyedResponse};
use eventlog::erase::{self, Erased};
use eventlog::{AppendError, Appender, LogError, active_claims, clock, commit_feed, idempotency};
use serde_json::json;
use sqlx::{PgExecutor, PgPool};
use tests::app::SETTLE;
use tests::{Stack, app, future_events, invariants, until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const BOOK: Uuid = Uuid::from_u128(1);

/// Erases one session in the log. Returns the global position of the erasure event; `None`
/// if the reader has no such session or it is erased already.
pub async fn erase_session(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    id: SessionId,
    at: Timestamp,
) -> Result<Option<i64>, LogError> {
    let erased = erase::sessions(database, reader_id, &[id], at).await?;
    Ok(erased.global_position)
}

async fn pool() -> PgPool {
    app::pool(&Stack::shared().await.new_env().await).await
}

fn appender(pool: &PgPool) -> Appender {
    let (appender, task) = Appender::new(pool.clone(), commit_feed::channel().0, |_| {});
    tokio::spawn(task);
    appender
}

/// Writes a session with two events. Returns its id.
async fn write(pool: &PgPool, reader: ReaderId, book: Uuid) -> SessionId {
    let now = clock::now();
    let id = SessionId::new(now);
    let started = json!({
        "type": "SessionStarted", "reader_id": reader, "book_id": book, "started_at": now,
        "position": 0,
    });
    let updated = json!({ "type": "PositionUpdated", "reader_id": reader, "occurred_at": now });
    future_events::write(pool, id.uuid(), "SessionStarted", "1", &started).await;
    future_events::write(pool, id.uuid(), "PositionUpdated", "99", &updated).await;
    id
}

/// Makes a session active.
fn activate(reader_id: ReaderId, id: SessionId) -> Append {
    let change = ActiveClaimChange {
        reader_id,
        expected: None,
        next: Some(id),
        expected_newest: None,
        next_newest: Some(clock::now()),
    };
    Append {
        claim: Some(change),
        ..Append::default()
    }
}

/// Stores a response with the state of some sessions after their second event.
fn respond(reader_id: ReaderId, key: &str, sessions: &[SessionId]) -> Append {
    let response = KeyedResponse {
        reader_id,
        key: key.to_owned(),
        fingerprint: vec![1],
        response: json!({ "taken": sessions }).to_string(),
    };
    Append {
        seen: sessions.iter().map(|id| (*id, 2)).collect(),
        response: Some(response),
        ..Append::default()
    }
}

async fn event_types(pool: &PgPool, id: SessionId) -> Vec<String> {
    sqlx::query_scalar("select event_type from events where aggregate_id = $1 order by sequence")
        .bind(id.to_string())
        .fetch_all(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn erased_session_leaves_the_log_and_the_others_stay() {
    let pool = pool().await;
    let appender = appender(&pool);
    let [reader, other] = [(); 2].map(|()| ReaderId::from(Uuid::new_v4()));
    let (kept, erased) = (
        write(&pool, reader, BOOK).await,
        write(&pool, reader, BOOK).await,
    );
    let of_other = write(&pool, other, BOOK).await;
    appender.append(activate(reader, erased)).await.unwrap();
    appender.append(activate(other, of_other)).await.unwrap();
    let newest = active_claims::reader_activity(&pool, reader)
        .await
        .unwrap()
        .newest;
    for (reader, key, sessions) in [
        (reader, "kept", &[kept][..]),
        (reader, "erased", &[erased]),
        (reader, "both", &[kept, erased]),
        (other, "erased", &[of_other]),
    ] {
        let response = respond(reader, key, sessions);
        appender.append(response).await.unwrap();
    }
    // The release before 0014 stored the ids in the response only, as the client sent them.
    let ids = [kept, erased].map(|id| id.to_string());
    for (key, text) in [
        ("former", &ids[1]),
        ("upper", &ids[1].to_uppercase()),
        ("simple", &ids[1].replace('-', "")),
        ("former-kept", &ids[0]),
    ] {
        sqlx::query(
            "insert into idempotency_keys (reader_id, key, fingerprint, answer)
            values ($1, $2, '', $3)",
        )
        .bind(reader.uuid())
        .bind(key)
        .bind(json!({ "taken": [text] }))
        .execute(&pool)
        .await
        .unwrap();
    }

    // Neither another reader nor a missing session.
    let now = clock::now();
    let missing = SessionId::new(now);
    for (reader, id) in [(other, erased), (reader, of_other), (reader, missing)] {
        assert_eq!(erase_session(&pool, reader, id, now).await.unwrap(), None);
    }
    assert_eq!(erase::find(&pool, reader).await.unwrap(), None);

    let global_position = erase_session(&pool, reader, erased, now).await.unwrap();
    erase::delete_responses(&pool, reader, &[erased])
        .await
        .unwrap();
    let log = invariants::read_log(&pool).await;
    let last = log.last().unwrap();
    assert_eq!(global_position, Some(last.global_position));
    assert_eq!(
        (&*last.session_id, &*last.event_type, last.sequence),
        (&*erased.to_string(), "SessionErased", 3)
    );
    let activity = active_claims::reader_activity(&pool, reader).await.unwrap();
    assert_eq!((activity.active, activity.newest), (None, newest));
    let activity = active_claims::reader_activity(&pool, other).await.unwrap();
    assert_eq!(activity.active, Some(of_other));
    for (reader, kept) in [(reader, &["former-kept", "kept"][..]), (other, &["erased"])] {
        let keys = "select key from idempotency_keys where reader_id = $1 order by key";
        let keys: Vec<String> = sqlx::query_scalar(keys)
            .bind(reader.uuid())
            .fetch_all(&pool)
            .await
            .unwrap();
        assert_eq!(keys, kept);
    }

    // A repeat does nothing.
    assert_eq!(
        erase_session(&pool, reader, erased, now).await.unwrap(),
        None
    );
    assert_eq!(erase::unfinished(&pool, 10).await.unwrap(), [reader]);
    assert_eq!(erase::overwrite(&pool, reader).await.unwrap(), (2, false));
    let erasure = erase::find(&pool, reader).await.unwrap().unwrap();
    assert_eq!((erasure.sessions, erasure.events), (1, 2));
    assert!(erasure.done_at.is_some());
    assert_eq!(event_types(&pool, erased).await, ["SessionErased"; 3]);
    for id in [kept, of_other] {
        assert_eq!(
            event_types(&pool, id).await,
            ["SessionStarted", "PositionUpdated"]
        );
    }
    invariants::sequences_have_no_gaps(&invariants::read_log(&pool).await);
}

/// The process is killed between the erasure and the deletion of the responses.
#[tokio::test]
async fn job_deletes_responses_that_an_interrupted_erasure_has_left() {
    let pool = pool().await;
    let appender = appender(&pool);
    let reader = ReaderId::from(Uuid::new_v4());
    let (kept, erased) = (
        write(&pool, reader, BOOK).await,
        write(&pool, reader, BOOK).await,
    );
    for (key, id) in [("kept", kept), ("erased", erased)] {
        let response = respond(reader, key, &[id]);
        appender.append(response).await.unwrap();
    }
    let _ = erase_session(&pool, reader, erased, clock::now())
        .await
        .unwrap();
    let stop = CancellationToken::new();
    erasure::delete_responses(&pool, reader).await.unwrap();
    erasure::finish(&pool, reader, &stop, |_| {}).await.unwrap();
    for (key, is_stored) in [("kept", true), ("erased", false)] {
        let found = idempotency::find(&pool, reader, key).await.unwrap();
        assert_eq!(found.is_some(), is_stored, "{key}");
    }
    assert_eq!(erase::unfinished_sessions(&pool, reader).await.unwrap(), []);
}

#[tokio::test]
async fn newest_observation_of_an_erased_active_session_is_kept() {
    let pool = pool().await;
    let appender = appender(&pool);
    let reader = ReaderId::from(Uuid::new_v4());
    let session = write(&pool, reader, BOOK).await;
    let newest: Timestamp = "2090-03-01T20:00:00.123Z".parse().unwrap();
    for (occurred_at, locator) in [
        ("2090-03-01T20:00:00.123Z", "a\0b"),
        (
            "2090-03-01T19:00:00Z",
            "\"occurred_at\":\"2100-01-01T00:00:00Z\"",
        ),
    ] {
        let event = json!({
            "type": "PositionUpdated", "reader_id": reader, "occurred_at": occurred_at,
            "locator": locator, "ended_at": "2100-01-01T00:00:00Z",
        });
        future_events::write(&pool, session.uuid(), "PositionUpdated", "2", &event).await;
    }
    appender.append(activate(reader, session)).await.unwrap();
    let _ = erase_session(&pool, reader, session, clock::now())
        .await
        .unwrap();
    let kept = active_claims::ReaderActivity {
        active: None,
        newest: Some(newest),
    };
    assert_eq!(
        active_claims::reader_activity(&pool, reader).await.unwrap(),
        kept
    );
}

#[tokio::test]
async fn sessions_of_a_book_are_erased_together() {
    let pool = pool().await;
    let [reader, other] = [(); 2].map(|()| ReaderId::from(Uuid::new_v4()));
    let mut of_book = Vec::new();
    for _ in 0..5 {
        of_book.push(write(&pool, reader, BOOK).await);
        let _ = write(&pool, reader, Uuid::from_u128(2)).await;
        let _ = write(&pool, other, BOOK).await;
    }
    of_book.sort_unstable();
    let found = async || {
        erase::sessions_of_book(&pool, reader, BOOK.into())
            .await
            .unwrap()
    };
    assert_eq!(found().await, of_book);
    let now = clock::now();
    let first = erase_session(&pool, reader, of_book[0], now).await.unwrap();
    assert!(first.is_some());
    assert_eq!(found().await, of_book[1..]);

    // Ids that occur twice, and sessions that are erased already, count once.
    let again: Vec<_> = of_book.iter().chain(&of_book).copied().collect();
    let erased = erase::sessions(&pool, reader, &again, now).await.unwrap();
    let last = first.map(|first| first + 4);
    assert_eq!(
        erased,
        Erased {
            sessions: 4,
            global_position: last
        }
    );
    assert_eq!(found().await, []);
    let none = erase::sessions(&pool, reader, &again, now).await.unwrap();
    assert_eq!((none.sessions, none.global_position), (0, None));
    assert_eq!(erase::overwrite(&pool, reader).await.unwrap(), (10, false));
    assert_eq!(erase::extent(&pool, reader).await.unwrap().sessions, 5);
    assert_eq!(erase::extent(&pool, other).await.unwrap().sessions, 5);
}

/// When an erasure was recorded, and for which sessions: what an operator needs after a
/// restore from a backup.
async fn recorded(pool: &PgPool, reader: ReaderId) -> (Timestamp, Option<Timestamp>, Vec<String>) {
    let (erased_at, all_erased_at) =
        sqlx::query_as("select erased_at, all_erased_at from erasures where reader_id = $1")
            .bind(reader.uuid())
            .fetch_one(pool)
            .await
            .unwrap();
    let single = sqlx::query_scalar(
        "select session_id from erased_sessions where reader_id = $1 order by session_id",
    )
    .bind(reader.uuid())
    .fetch_all(pool)
    .await
    .unwrap();
    (erased_at, all_erased_at, single)
}

#[tokio::test]
async fn erasure_of_a_session_is_distinguished_from_that_of_the_reader() {
    let pool = pool().await;
    let appender = appender(&pool);
    let reader = ReaderId::from(Uuid::new_v4());
    let first = write(&pool, reader, BOOK).await;
    let _ = write(&pool, reader, BOOK).await;
    appender.append(activate(reader, first)).await.unwrap();
    let at: Timestamp = "2026-03-01T20:00:00Z".parse().unwrap();
    let later = at + TimeDelta::hours(1);
    let _ = erase_session(&pool, reader, first, at).await.unwrap();
    let single = vec![first.to_string()];
    assert_eq!(recorded(&pool, reader).await, (at, None, single.clone()));

    let erased = erase::reader(&pool, reader, later).await.unwrap();
    assert_eq!(erased.sessions, 1);
    assert_eq!(recorded(&pool, reader).await, (later, Some(later), single));
    let activity = active_claims::reader_activity(&pool, reader).await.unwrap();
    assert_eq!(activity, active_claims::ReaderActivity::default());
}

#[tokio::test]
async fn session_erased_during_an_overwrite_is_overwritten_too() {
    let pool = pool().await;
    let reader = ReaderId::from(Uuid::new_v4());
    let (first, second) = (
        write(&pool, reader, BOOK).await,
        write(&pool, reader, BOOK).await,
    );
    // Two requests with the same time.
    let at = clock::now();
    let _ = erase_session(&pool, reader, first, at).await.unwrap();
    let mut erasing = pool.begin().await.unwrap();
    let _ = erase_session(&mut *erasing, reader, second, at)
        .await
        .unwrap();
    // The overwrite does not see the second erasure, and waits for it at its end.
    let overwriting = tokio::spawn({
        let pool = pool.clone();
        async move { erase::overwrite(&pool, reader).await.unwrap() }
    });
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    until("the overwrite waits", SETTLE, async || {
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&pool).await.unwrap();
        waiting > 0
    })
    .await;
    erasing.commit().await.unwrap();
    assert_eq!(overwriting.await.unwrap(), (2, false));
    assert_eq!(erase::unfinished(&pool, 10).await.unwrap(), [reader]);
    assert_eq!(erase::overwrite(&pool, reader).await.unwrap(), (2, false));
    assert_eq!(erase::unfinished(&pool, 10).await.unwrap(), []);
}

#[tokio::test]
async fn response_with_the_state_of_an_erased_session_is_not_stored() {
    let pool = pool().await;
    let appender = appender(&pool);
    let reader = ReaderId::from(Uuid::new_v4());
    let id = write(&pool, reader, BOOK).await;
    let repeat = |key| respond(reader, key, &[id]);
    assert_eq!(appender.append(repeat("before")).await, Ok(vec![]));
    let _ = erase_session(&pool, reader, id, clock::now())
        .await
        .unwrap();
    erase::delete_responses(&pool, reader, &[id]).await.unwrap();
    assert_eq!(
        appender.append(repeat("after")).await,
        Err(AppendError::Conflict)
    );
    let keys: i64 = sqlx::query_scalar("select count(*) from idempotency_keys")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(keys, 0);
}
