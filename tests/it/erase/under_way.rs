//! Erasures during other activity: concurrent commands, kills, dead letters, a NATS
//! outage, and attempts to overwrite events that are not erased.

use domain::ReaderId;
use eventlog::erase;
use reqwest::Method;
use serde_json::json;
use server::config::Role;
use tests::app::SETTLE;
use tests::process::{Process, command};
use tests::reader::id;
use tests::{App, Reader, Stack, app, future_events, invariants, scaled, stream, until};
use uuid::Uuid;

use super::{EVENTS, overwritten, write_sessions};

#[tokio::test]
async fn concurrent_update_is_erased_or_returns_404() {
    let app = App::start().await;
    let other = app.alongside(&[Role::Api]).await;
    for _ in 0..10 {
        let reader = app.reader();
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        let updating = async |reader: Reader| {
            let mut taken = 0;
            loop {
                let response = reader.update(session, 20.0).await;
                match response.status.as_u16() {
                    200 => taken += 1,
                    404 => return taken,
                    status => panic!("{status}: {}", response.body),
                }
            }
        };
        let erasing = async {
            // Erase in the middle of the updates.
            until("five events of the session", SETTLE, async || {
                reader.session(session).await.ok()["version"].as_i64() >= Some(5)
            })
            .await;
            reader.erase().await.ok()
        };
        let all = async {
            tokio::join!(
                updating(reader.clone()),
                updating(reader.at(&other.url)),
                erasing
            )
        };
        let all = tokio::time::timeout(scaled(2 * SETTLE), all).await;
        let (here, there, erased) = all.expect("updates fail after the erasure");
        assert_eq!(erased["sessions"], 1);
        // The start, the accepted updates, and the erasure.
        let last: i64 =
            sqlx::query_scalar("select max(sequence) from events where aggregate_id = $1")
                .bind(session.to_string())
                .fetch_one(&app.pool)
                .await
                .unwrap();
        assert_eq!(last, 2 + here + there);
        let erasure = overwritten(&app, &reader).await;
        assert_eq!(erasure.events, last - 1);
    }
    invariants::check(&app).await;
    other.stop().await;
}

#[tokio::test]
async fn killed_erasure_is_finished_by_the_next_process() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let pool = app::pool(&env).await;
    let process = Process::start(&env).await;
    let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
    let sessions = write_sessions(&reader, "Erika").await;
    app::settled(&pool, &env).await;

    // The overwrite of events waits for this lock.
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("select from events where aggregate_id = $1 for update")
        .bind(sessions[0].to_string())
        .execute(&mut *lock)
        .await
        .unwrap();
    let _ = reader.erase().await.ok();
    wait_for_overwrite(&pool, true).await;
    process.kill().await;
    // Postgres cancels the statement of the killed process.
    wait_for_overwrite(&pool, false).await;
    lock.rollback().await.unwrap();
    let reader_id = ReaderId::from(reader.id);
    let erasure = erase::find(&pool, reader_id).await.unwrap().unwrap();
    assert_eq!((erasure.events, erasure.done_at), (0, None));
    let left = erase::remaining_events(&pool, reader_id).await.unwrap();
    assert_eq!(left, EVENTS);

    let process = Process::start(&env).await;
    let reader = reader.at(&process.url);
    let _ = reader.session(sessions[0]).await.problem(404);
    until("the erasure is finished", 2 * SETTLE, async || {
        erase::remaining_events(&pool, reader_id).await.unwrap() == 0
    })
    .await;
    app::settled(&pool, &env).await;
    invariants::check_env(&pool, &env).await;
}

/// Waits until events are being overwritten, or no longer are.
async fn wait_for_overwrite(pool: &sqlx::PgPool, wanted: bool) {
    let what = format!("overwriting events: {wanted}");
    until(&what, 2 * SETTLE, async || {
        let writes: bool = sqlx::query_scalar(
            "select exists (
                select from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()
                    and state = 'active' and query like '%overwrite_events%'
            )",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        writes == wanted
    })
    .await;
}

#[tokio::test]
async fn erasure_removes_dead_letters_and_is_not_blocked_by_them() {
    let app = App::start().await;
    app.settled().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 10.0).await.ok();
    let discarded = id(&reader.start(Uuid::new_v4()).await.ok());
    let waiting = future_events::append_unreadable(&app.pool, session).await;
    let _ = future_events::append_readable(&app.pool, session).await;
    let parked = future_events::append_unreadable(&app.pool, discarded).await;
    app.settled().await;
    let dead_letters = async || -> i64 {
        sqlx::query_scalar("select count(*) from dead_letters")
            .fetch_one(&app.pool)
            .await
            .unwrap()
    };
    assert!(dead_letters().await >= 9, "{}", dead_letters().await);
    let discard = projections::dead_letters::DeadLetterId {
        projection: "history".to_owned(),
        global_position: parked,
    };
    assert!(waiting < parked);
    let discarded = projections::dead_letters::discard(&app.pool, &discard);
    discarded.await.unwrap();

    assert_eq!(reader.erase().await.ok()["sessions"], 2);
    app.settled().await;
    assert_eq!(dead_letters().await, 0);
    let _ = overwritten(&app, &reader).await;
    invariants::check(&app).await;
    for projection in ["history", "daily_stats"] {
        let replayed = command(&app.env)
            .args(["replay", projection, "--restart"])
            .status();
        assert!(replayed.await.unwrap().success());
    }
    assert_eq!(dead_letters().await, 0);
    invariants::check(&app).await;
}

#[tokio::test]
async fn only_erased_events_can_be_overwritten() {
    let app = App::with_settings(|settings| settings.roles = vec![Role::Api]).await;
    let (reader, other) = (app.reader(), app.reader());
    let erased = id(&reader.start(Uuid::new_v4()).await.ok());
    let kept = id(&other.start(Uuid::new_v4()).await.ok());
    let _ = reader.erase().await.ok();
    let tombstone = "select event_type, event_version, payload, metadata from events
        where event_type = 'SessionErased'";
    for (session, change) in [
        // A session that is not erased, with the content of an erased event.
        (
            kept,
            format!("(event_type, event_version, payload, metadata) = ({tombstone})"),
        ),
        (erased, "event_type = 'SessionErased'".to_owned()),
        (
            erased,
            r#"event_type = 'SessionErased', payload = '{"reader_id": null}'"#.to_owned(),
        ),
        (erased, "payload = '{}'".to_owned()),
        (
            erased,
            format!("sequence = 7, (event_type, event_version, payload, metadata) = ({tombstone})"),
        ),
    ] {
        let refused = sqlx::query(&format!(
            "update events set {change} where aggregate_id = $1 and sequence = 1"
        ))
        .bind(session.to_string())
        .execute(&app.pool)
        .await
        .unwrap_err();
        assert!(
            refused.to_string().contains("append-only"),
            "{change}: {refused}"
        );
    }
    for session in [erased, kept] {
        let refused = sqlx::query("delete from events where aggregate_id = $1")
            .bind(session.to_string())
            .execute(&app.pool)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
    assert_eq!(
        erase::overwrite(&app.pool, reader.id.into()).await.unwrap(),
        (1, false)
    );
    assert_eq!(
        erase::overwrite(&app.pool, other.id.into()).await.unwrap(),
        (0, false)
    );
    assert_eq!(id(&other.session(kept).await.ok()), kept);
}

#[tokio::test]
async fn operator_erases_a_reader_after_confirmation() {
    let app = App::with_settings(|settings| {
        settings.roles = vec![Role::Api, Role::Relay, Role::Projections];
    })
    .await;
    let reader = app.reader();
    let run = async |more: &[&str]| {
        let id = reader.id.to_string();
        let mut arguments = vec!["reader", "erase", &id];
        arguments.extend(more);
        let output = command(&app.env).args(arguments).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = run(&["--yes"]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("contains no session of reader"), "{text}");

    let _ = write_sessions(&reader, "Erika").await;
    let (code, text) = run(&[]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("4 sessions with 11 events"), "{text}");
    assert!(text.contains("--yes"), "{text}");
    assert!(reader.active().await.ok().is_object());

    // The reader requests an erasure, and the operator finishes it.
    let _ = reader.erase().await.ok();
    let (code, text) = run(&[]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("Overwrote 11 events of 4 sessions in the log"),
        "{text}"
    );
    let (code, text) = run(&[]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("was erased at"), "{text}");

    let _ = reader.start(Uuid::new_v4()).await.ok();
    let (code, text) = run(&["--yes"]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 session of reader"), "{text}");
    assert_eq!(reader.active().await.ok(), json!(null));
    invariants::check(&app).await;
}

#[tokio::test]
async fn events_erased_in_a_nats_outage_are_published_overwritten() {
    let app = App::on(Stack::dedicated().await).await;
    let (reader, other) = (app.reader(), app.reader());
    let session = id(&other.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    app.stack.servers.lock().await.nats.kill().unwrap();
    // More events than the relay publishes at once, followed by the erased ones.
    let update = json!({ "session_id": session, "current_position": 50 });
    for _ in 0..12 {
        let updates = json!({ "updates": vec![&update; 50] });
        let batch = other.call(Method::POST, "/batch-update", Some(updates));
        assert_eq!(batch.await.ok()["success_count"], 50);
    }
    let _ = write_sessions(&reader, "Erika").await;
    assert_eq!(reader.erase().await.status, 202);
    let _ = overwritten(&app, &reader).await;
    // The relay abandons its current batch and stops leading.
    until("the relay stops leading", 2 * SETTLE, async || {
        app.metrics().await.count("reading_sessions_relay_leads") == 0
    })
    .await;

    app.stack.servers.lock().await.nats.start().await.unwrap();
    invariants::check(&app).await;
    let published = stream::read_all(&app.env).await;
    assert!(published.len() > 600);
    for published in published {
        let event = published.event.to_string();
        assert!(!event.contains("Erika"), "{event}");
    }
}
