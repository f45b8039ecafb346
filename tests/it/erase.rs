//! An erasure removes all data of a reader: from the log, the read tables, Redis and
//! the memory of every process. Data of other readers does not change.

mod parts;
mod redis;
pub mod sessions;
mod traces;
mod under_way;

use domain::ReaderId;
use eventlog::erase;
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Role;
use tests::app::SETTLE;
use tests::process::command;
use tests::random_history::write_random_histories;
use tests::reader::id;
use tests::{App, Reader, eventually, invariants, stream, until};
use uuid::Uuid;

use traces::{found, texts};

/// Waits until a reader's events in the log are overwritten.
async fn overwritten(app: &App, reader: &Reader) -> erase::Erasure {
    eventually("the events are overwritten", 2 * SETTLE, async || {
        let erasure = erase::find(&app.pool, ReaderId::from(reader.id)).await;
        erasure.unwrap().filter(|erasure| erasure.done_at.is_some())
    })
    .await
}

/// The number of events that [`write_sessions`] appends. The last session is open.
const EVENTS: i64 = 11;

/// Writes an ended, two superseded and an active session, with texts that only this
/// reader has and with idempotency keys.
async fn write_sessions(reader: &Reader, tag: &str) -> Vec<Uuid> {
    let mut sessions = Vec::new();
    for n in 0..4 {
        let start = json!({
            "book_id": Uuid::new_v4(),
            "device_id": format!("device of {tag}"),
            "locator": format!("start of {tag}"),
            "time_zone": "Pacific/Apia",
            "book": { "title": format!("title of {tag}"), "author": format!("author of {tag}") },
        });
        let key = format!("{n}-of-{tag}");
        let headers = [("idempotency-key", key.as_str())];
        let started = reader.call_with(Method::POST, "/start", &headers, Some(start));
        let session = id(&started.await.ok());
        let update = json!({ "current_position": 12.5, "locator": format!("locator of {tag}") });
        let _ = reader.update_with(session, update).await.ok();
        if n == 0 {
            let _ = reader
                .end(session, json!({ "end_position": 50 }))
                .await
                .ok();
        }
        sessions.push(session);
    }
    sessions
}

#[tokio::test]
async fn erasure_removes_one_reader_and_keeps_the_others() {
    let app = App::start().await;
    let (reader, other) = (app.reader(), app.reader());
    let sessions = write_sessions(&reader, "Erika").await;
    let _ = write_sessions(&other, "Otto").await;
    app.settled().await;
    let erased_texts = texts("Erika", &invariants::read_log(&app.pool).await, &reader);
    assert!(erased_texts.len() > 8, "{erased_texts:?}");
    let before = found(&app, &erased_texts).await;
    for place in [
        "events",
        "history",
        "history_totals",
        "idempotency_keys",
        "Redis",
    ] {
        assert!(
            before.iter().any(|found| found.starts_with(place)),
            "{place}: {before:?}"
        );
    }
    let other_texts = texts("Otto", &invariants::read_log(&app.pool).await, &other);
    let found_of_other = found(&app, &other_texts).await;
    let (history, days) = (other.history("").await.ok(), other.days().await.ok());

    let response = reader.erase().await;
    assert_eq!(response.status, 202);
    assert_eq!(response.body["sessions"], 4);
    let global_position = response.header("x-global-position").to_owned();

    // The sessions disappear at once, however far the projections are.
    assert_eq!(reader.active().await.ok(), Value::Null);
    for session in &sessions {
        let _ = reader.session(*session).await.problem(404);
        let _ = reader.update(*session, 30.0).await.problem(404);
        let _ = reader.end(*session, json!({})).await.problem(404);
    }
    // A query that waits for the erasure's global position finds no history.
    let empty = reader
        .history(&format!("?min_position={global_position}"))
        .await
        .ok();
    assert_eq!(
        (&empty["total"], &empty["sessions"]),
        (&json!(0), &json!([]))
    );
    app.settled().await;
    assert_eq!(reader.days().await.ok()["days"], json!([]));

    let erasure = overwritten(&app, &reader).await;
    assert_eq!((erasure.sessions, erasure.events), (4, EVENTS));
    assert_eq!(found(&app, &erased_texts).await, [""; 0]);
    assert_eq!(found(&app, &other_texts).await, found_of_other);
    assert_eq!(other.history("").await.ok(), history);
    assert_eq!(other.days().await.ok(), days);
    invariants::check(&app).await;

    // The stream reports the erasure of each session.
    let published = stream::read_all(&app.env).await;
    for session in &sessions {
        let mut of_session = published
            .iter()
            .filter(|published| published.event["subject"] == session.to_string());
        let last = of_session.next_back().unwrap();
        assert_eq!(last.event["type"], "reading.session.erased.v1");
        assert_eq!(last.event["partitionkey"], reader.id.to_string());
    }

    // A second erasure is harmless, and the reader can start sessions again.
    let again = reader.erase().await;
    assert_eq!(
        (again.status.as_u16(), &again.body["sessions"]),
        (202, &json!(0))
    );
    let next = id(&reader.start(Uuid::new_v4()).await.ok());
    assert_eq!(id(&reader.active().await.ok()), next);
    app.settled().await;
    assert_eq!(reader.history("").await.ok()["total"], 1);
    invariants::check(&app).await;
}

#[tokio::test]
async fn erasure_needs_the_readers_own_id_as_confirmation() {
    let app = App::start().await;
    let (reader, other) = (app.reader(), app.reader());
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    for path in ["", "?confirm=", "?confirm=yes"] {
        let _ = reader.call(Method::DELETE, path, None).await.problem(422);
    }
    // Another reader's id or another reader's token is rejected.
    let path = format!("?confirm={}", other.id);
    let _ = reader.call(Method::DELETE, &path, None).await.problem(422);
    let path = format!("?confirm={}", reader.id);
    let _ = other.call(Method::DELETE, &path, None).await.problem(422);
    assert_eq!(other.erase().await.ok()["sessions"], 0);
    assert_eq!(id(&reader.session(session).await.ok()), session);
}

#[tokio::test]
async fn erasure_takes_effect_at_once_in_other_processes() {
    let app = App::start().await;
    let other = app.alongside(&[Role::Api]).await;
    let reader = app.reader();
    let there = reader.at(&other.url);
    let (open, ended) = (Uuid::now_v7(), Uuid::now_v7());
    let start = |session| json!({ "book_id": Uuid::from_u128(1), "session_id": session });
    for session in [ended, open] {
        let _ = there.start_with(start(session)).await.ok();
        let _ = there.update(session, 10.0).await.ok();
    }
    assert_eq!(reader.erase().await.ok()["sessions"], 2);
    let missing = "Reading session not found";
    for session in [open, ended] {
        assert_eq!(there.update(session, 20.0).await.problem(404), missing);
        assert_eq!(there.end(session, json!({})).await.problem(404), missing);
        let _ = there.session(session).await.problem(404);
        let batch = json!([{ "session_id": session, "current_position": 20 }]);
        assert_eq!(there.batch(batch).await.ok()["failed_count"], 1);
        // A repeated start does not return the erased session.
        let _ = there.start_with(start(session)).await.problem(409);
    }
    assert_eq!(there.active().await.ok(), Value::Null);
    invariants::check(&app).await;
    other.stop().await;
}

#[tokio::test]
async fn read_models_equal_the_log_after_erasures_and_replays() {
    // Without background jobs, only this test overwrites events.
    let app = App::with_settings(|settings| {
        settings.roles = vec![Role::Api, Role::Relay, Role::Projections];
    })
    .await;
    write_random_histories(&app, 1..12).await;
    let readers: Vec<Uuid> =
        sqlx::query_scalar("select reader_id from history_totals group by reader_id order by 1")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    let erased: Vec<Reader> = readers
        .iter()
        .take(5)
        .map(|id| app.reader_with_id(*id))
        .collect();
    let others = write_random_histories(&app, 20..26);
    let erasing = async {
        for reader in &erased {
            let _ = reader.erase().await.ok();
        }
    };
    tokio::join!(others, erasing);
    // Two of them start sessions again, and one of these is erased again.
    for reader in &erased[..2] {
        tests::random_history::write_random_history(reader.clone(), 77).await;
    }
    let _ = erased[0].erase().await.ok();
    invariants::check(&app).await;

    // Overwrite some readers in part and one completely.
    for (reader, batches) in [(&erased[0], 2), (&erased[1], 1_000), (&erased[2], 5)] {
        for _ in 0..batches {
            sqlx::query("select overwrite_events($1, 7)")
                .bind(reader.id)
                .execute(&app.pool)
                .await
                .unwrap();
        }
    }
    check_and_replay(&app).await;
    for reader in &erased {
        until("no event is left to overwrite", SETTLE, async || {
            let overwritten = erase::overwrite(&app.pool, reader.id.into()).await;
            let (_, more) = overwritten.unwrap();
            !more
        })
        .await;
    }
    check_and_replay(&app).await;
}

async fn check_and_replay(app: &App) {
    invariants::check(app).await;
    for arguments in [
        &["verify"][..],
        &["replay", "history", "--restart"],
        &["replay", "daily_stats", "--restart"],
        &["replay", "active_sessions"],
        &["verify"],
    ] {
        let output = command(&app.env).args(arguments).output().await.unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{arguments:?}: {out}");
    }
    invariants::check(app).await;
}
