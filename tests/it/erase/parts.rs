//! A reader with many sessions is erased in parts, so that commands of other readers are
//! appended in between.

use domain::ReaderId;
use eventlog::{clock, erase};
use reqwest::Method;
use serde_json::{Value, json};
use tests::app::{self, SETTLE};
use tests::process::Process;
use tests::reader::id;
use tests::{App, Reader, Stack, eventually, invariants, until};
use uuid::Uuid;

use super::overwritten;

/// Sessions of one sync.
const SESSIONS_OF_A_SYNC: usize = 50;

/// One part, and some sessions more.
const SESSIONS: usize = erase::SESSIONS_AT_ONCE + SESSIONS_OF_A_SYNC;

/// Writes [`SESSIONS`] sessions without an end. The last one is active.
async fn write_sessions(reader: &Reader) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for _ in 0..SESSIONS / SESSIONS_OF_A_SYNC {
        let session = |_| {
            let (id, at) = (Uuid::now_v7(), clock::now());
            ids.push(id);
            json!({
                "session_id": id, "book_id": Uuid::new_v4(), "started_at": at,
                "observations": [{ "current_position": 1, "occurred_at": at }],
            })
        };
        let sessions: Vec<Value> = (0..SESSIONS_OF_A_SYNC).map(session).collect();
        let _ = reader.sync(json!({ "sessions": sessions })).await.ok();
    }
    ids
}

fn count(sessions: usize) -> i64 {
    i64::try_from(sessions).unwrap()
}

#[tokio::test]
async fn many_sessions_are_erased_in_several_transactions() {
    let app = App::start().await;
    let (reader, other) = (app.reader(), app.reader());
    let _ = write_sessions(&reader).await;
    let kept = id(&other.start(Uuid::new_v4()).await.ok());
    app.settled().await;

    let erased = reader.erase().await;
    assert_eq!(erased.body["sessions"], json!(SESSIONS));
    let transactions: i64 = sqlx::query_scalar(
        "select count(distinct xmin::text) from events as last
        where event_type = 'SessionErased' and payload ->> 'reader_id' = $1
            and sequence = (
                select max(sequence) from events where aggregate_id = last.aggregate_id
            )",
    )
    .bind(reader.id.to_string())
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert_eq!(transactions, 2);

    app.settled().await;
    assert_eq!(reader.history("").await.ok()["total"], 0);
    assert_eq!(overwritten(&app, &reader).await.sessions, count(SESSIONS));
    assert_eq!(other.session(kept).await.ok()["id"], json!(kept));
    // A repeat finds nothing.
    let reader_id = ReaderId::from(reader.id);
    let again = erase::reader(&app.pool, reader_id, clock::now()).await;
    assert_eq!(again.unwrap(), erase::Erased::default());
    invariants::check(&app).await;
}

/// The request does not return, so the client repeats it.
#[tokio::test]
async fn repeat_erases_what_a_killed_process_has_left() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let pool = app::pool(&env).await;
    let process = Process::start(&env).await;
    let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
    let sessions = write_sessions(&reader).await;
    let (first, active) = (sessions[0], *sessions.last().unwrap());
    app::settled(&pool, &env).await;

    // The part with the active session waits for this lock.
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("select from claims where reader_id = $1 for update")
        .bind(reader.id)
        .execute(&mut *lock)
        .await
        .unwrap();
    let request = tokio::spawn({
        let reader = reader.clone();
        async move {
            let path = format!("?confirm={}", reader.id);
            reader.try_call(Method::DELETE, &path, None).await
        }
    });
    let reader_id = ReaderId::from(reader.id);
    eventually("the second part waits", SETTLE, async || {
        let erasure = erase::find(&pool, reader_id).await.unwrap()?;
        (erasure.sessions == count(erase::SESSIONS_AT_ONCE)).then_some(())
    })
    .await;
    process.kill().await;
    // On a slow machine, the wait for the lock has ended before.
    let status = request.await.unwrap().map(|response| response.status);
    assert!(status.is_err() || status.is_ok_and(|status| status == 503));
    until(
        "Postgres has cancelled the second part",
        SETTLE,
        async || {
            sqlx::query_scalar(
                "select not exists (
                select from pg_stat_activity
                where datname = current_database() and query like '%erase_reader_part%'
                    and state = 'active' and pid <> pg_backend_pid()
            )",
            )
            .fetch_one(&pool)
            .await
            .unwrap()
        },
    )
    .await;
    lock.rollback().await.unwrap();

    let process = Process::start(&env).await;
    let reader = reader.at(&process.url);
    let _ = reader.session(first).await.problem(404);
    assert_eq!(reader.session(active).await.ok()["id"], json!(active));
    assert_eq!(id(&reader.active().await.ok()), active);
    app::settled(&pool, &env).await;
    invariants::check_env(&pool, &env).await;

    let repeated = reader.erase().await;
    assert_eq!(repeated.body["sessions"], json!(SESSIONS_OF_A_SYNC));
    let _ = reader.session(active).await.problem(404);
    assert_eq!(reader.active().await.ok(), Value::Null);
    until("the erasure is done", 2 * SETTLE, async || {
        let erasure = erase::find(&pool, reader_id).await.unwrap().unwrap();
        erasure.sessions == count(SESSIONS) && erasure.done_at.is_some()
    })
    .await;
    app::settled(&pool, &env).await;
    invariants::check_env(&pool, &env).await;
}
