//! Uploads of whole sessions.

use super::*;

use reqwest::StatusCode;
use serde_json::json;
use std::path::PathBuf;
use tests::facts::SyncedSession;
use tests::process::{Process, executable};
use tests::reader::id;
use tests::{Stack, app};

/// A finished session of twenty minutes with an observation a minute.
fn finished(begin: Time) -> Value {
    let observations: Vec<Value> = (1..=20)
        .map(|minute| json!({ "current_position": minute, "occurred_at": begin + minutes(minute) }))
        .collect();
    json!({
        "session_id": id_of(begin), "book_id": Uuid::new_v4(), "started_at": begin,
        "ended_at": begin + minutes(20), "start_position": 0, "observations": observations,
        "device_id": "e-ink", "device_type": "tablet", "time_zone": "Europe/Berlin",
        "book": { "title": "Momo", "total_pages": 300 },
    })
}

fn log_file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{name}-{}.log", Uuid::new_v4()))
}

/// After a holiday, with the default rate limits.
#[tokio::test]
async fn sixty_finished_sessions_need_two_calls() {
    let env = Stack::shared().await.new_env().await;
    let pool = app::pool(&env).await;
    let log = log_file("holiday");
    let process = Process::start_with_defaults(&executable(), &env, &log, &[]).await;
    let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
    let live = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(live, 3.0).await.ok();

    let sessions: Vec<Value> = (0..60)
        .map(|count| finished(days_ago(20, "08:00:00") + TimeDelta::hours(8 * count)))
        .collect();
    for chunk in sessions.chunks(30) {
        let synced = reader.sync(json!({ "sessions": chunk })).await;
        assert_eq!(synced.status, 200, "{}", synced.body);
        assert_eq!(synced.ok()["results"].as_array().unwrap().len(), 30);
    }
    app::settled(&pool, &env).await;
    let history = reader.history("?page_size=100").await.ok();
    assert_eq!(history["total"], 61);
    let shown = history["sessions"].as_array().unwrap();
    let finished = shown.iter().filter(|one| one["end_reason"] == "finished");
    let read = finished.filter(|one| one["active_seconds"] == 1_200);
    assert_eq!(read.count(), 60);
    // The live session continues.
    assert_eq!(id(&reader.active().await.ok()), live);
    let update = reader.update(live, 4.0).await.ok();
    assert_eq!(update["applied"], true);
    // A second upload of everything changes nothing.
    let events = invariants::read_log(&pool).await.len();
    for chunk in sessions.chunks(30) {
        let _ = reader.sync(json!({ "sessions": chunk })).await.ok();
    }
    assert_eq!(invariants::read_log(&pool).await.len(), events);
    app::settled(&pool, &env).await;
    invariants::check_env(&pool, &env).await;
    process.kill().await;
    std::fs::remove_file(log).unwrap();
}

#[tokio::test]
async fn sync_merges_into_sessions_that_exist() {
    let app = App::start().await;
    let begin = minutes_ago(60);
    let plan = Plan {
        sessions: vec![
            ended(session(begin, 0, 1..=40), begin + minutes(41)),
            session(begin, 45, 46..=50),
        ],
    };
    let part = |observations: std::ops::Range<usize>, ended| SyncedSession {
        session: 0,
        observations: observations.collect(),
        ended,
    };
    let own = [
        Call::Start(0),
        Call::Update(Seen::Counted(0, 10)),
        // Overlapping parts, the later one first.
        Call::Sync(vec![part(20..40, false)]),
        Call::Start(1),
        Call::Sync(vec![part(5..25, false)]),
        batch(1, 0..5),
        Call::Sync(vec![part(0..40, true)]),
    ];
    in_any_order(&app, &plan, &own, async |told| {
        let expected = json!({
            "active_seconds": 41 * 60, "end_position": 40, "end_reason": "finished",
            "ended_at": begin + minutes(41), "furthest_position": 40,
        });
        told.assert(0, expected).await;
        told.assert(1, json!({ "is_active": true, "active_seconds": 300 }))
            .await;
        assert_eq!(told.active().await, Some(1));
    })
    .await;
}

#[tokio::test]
async fn unfinished_session_of_a_sync_is_active_only_if_it_is_the_newest() {
    let app = App::start().await;
    let open = |begin: Time, last: i64| {
        json!({
            "session_id": id_of(begin), "book_id": Uuid::new_v4(), "started_at": begin,
            "observations": [
                { "current_position": 5, "occurred_at": begin + minutes(last) },
            ],
        })
    };
    let reader = app.reader();
    let older = open(minutes_ago(50), 10);
    let _ = reader.sync(json!({ "sessions": [older] })).await.ok();
    let active = reader.active().await.ok();
    assert_eq!(active["id"], older["session_id"]);

    let live = id(&reader.start(Uuid::new_v4()).await.ok());
    let other = open(minutes_ago(45), 10);
    let _ = reader
        .sync(json!({ "sessions": [older, other] }))
        .await
        .ok();
    assert_eq!(id(&reader.active().await.ok()), live);
    assert_eq!(reader.session(live).await.ok()["version"], 1);

    let _ = reader.update(live, 1.0).await.ok();
    let mut newest = other.clone();
    newest["observations"] = json!([{ "current_position": 9, "occurred_at": clock::now() }]);
    let _ = reader.sync(json!({ "sessions": [newest] })).await.ok();
    app.settled().await;
    let active = reader.active().await.ok();
    assert_eq!(active["id"], newest["session_id"]);
    assert_eq!(reader.session(live).await.ok()["end_reason"], "superseded");
    invariants::check(&app).await;
}

/// An app without ends uploads everything it has.
#[tokio::test]
async fn only_the_newest_of_several_open_sessions_of_a_sync_is_active() {
    let app = App::start().await;
    let reader = app.reader();
    let begins = [50, 20, 40, 30].map(minutes_ago);
    let sessions = begins.map(|begin| {
        json!({
            "session_id": id_of(begin), "book_id": Uuid::new_v4(), "started_at": begin,
            "observations": [{ "current_position": 5, "occurred_at": begin + minutes(5) }],
        })
    });
    let synced = reader.sync(json!({ "sessions": sessions })).await.ok();
    let results = synced["results"].as_array().unwrap();
    let active: Vec<bool> = results
        .iter()
        .map(|result| result["session"]["is_active"].as_bool().unwrap())
        .collect();
    assert_eq!(active, [false, true, false, false]);
    // No session was active in between.
    assert_eq!(invariants::read_log(&app.pool).await.len(), 8);
    invariants::check(&app).await;
}

/// A device recorded the start of its live session with the same time.
#[tokio::test]
async fn sync_of_a_live_session_repeats_its_start() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(10);
    let start = json!({
        "session_id": id_of(begin), "book_id": Uuid::new_v4(), "occurred_at": begin,
        "start_position": 20, "locator": "chapter 2",
    });
    let _ = reader.start_with(start.clone()).await.ok();
    for start_position in [json!(20), Value::Null] {
        let synced = reader.sync(json!({ "sessions": [{
            "session_id": start["session_id"], "book_id": start["book_id"],
            "started_at": begin, "start_position": start_position,
        }] }));
        let result = synced.await.ok()["results"][0].clone();
        assert_eq!(result["error"], Value::Null);
        let session = result["session"].clone();
        assert_fields(
            &session,
            &json!({ "version": 1, "locator": "chapter 2", "end_position": 20 }),
        );
    }
    // The observation that was sent later wins if times are equal.
    let synced = reader.sync(json!({ "sessions": [{
        "session_id": start["session_id"], "book_id": start["book_id"],
        "started_at": begin + minutes(1), "start_position": 21,
        "observations": [{ "current_position": 23, "occurred_at": begin + minutes(1) }],
    }] }));
    let session = synced.await.ok()["results"][0]["session"].clone();
    assert_fields(&session, &json!({ "version": 3, "end_position": 23 }));
    invariants::check(&app).await;
}

/// The largest sync that the limits allow: 50 sessions, up to 1 MB.
#[tokio::test]
async fn large_sync_is_recorded_completely() {
    let app = App::start().await;
    let reader = app.reader();
    let sessions: Vec<Value> = (0..50)
        .map(|count| {
            let begin = days_ago(20, "08:00:00") + TimeDelta::hours(5 * count);
            let observations: Vec<Value> = (1..=200)
                .map(|minute| {
                    json!({ "current_position": minute / 2, "occurred_at": begin + minutes(minute) })
                })
                .collect();
            json!({
                "session_id": id_of(begin), "book_id": Uuid::new_v4(), "started_at": begin,
                "ended_at": begin + minutes(200), "observations": observations,
            })
        })
        .collect();
    let body = json!({ "sessions": sessions });
    assert!(body.to_string().len() < 1_000_000);
    let _ = reader.sync(body).await.ok();
    app.settled().await;
    let history = reader.history("?page_size=100").await.ok();
    let shown = history["sessions"].as_array().unwrap();
    assert_eq!(shown.len(), 50);
    assert!(shown.iter().all(|one| one["active_seconds"] == 12_000));
    invariants::check(&app).await;
}

#[tokio::test]
async fn five_hundred_observations_of_one_instant_are_one_moment() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(10);
    let moment = begin + minutes(1);
    let observations: Vec<Value> = (0..500)
        .map(|count| json!({ "current_position": (count * 7) % 100, "occurred_at": moment }))
        .collect();
    let body = json!({ "sessions": [{
        "session_id": id_of(begin), "book_id": Uuid::new_v4(), "started_at": begin,
        "observations": observations,
    }] });
    let _ = reader.sync(body.clone()).await.ok();
    let session = reader.session(id_of_body(&body)).await.ok();
    let expected = json!({
        "active_seconds": 60, "furthest_position": 99, "last_activity_at": moment,
        "is_active": true, "started_at": begin,
    });
    assert_fields(&session, &expected);
    // The last observation wins if times are equal. The first 100 positions differ, and the
    // others repeat them.
    assert_eq!(session["end_position"], (99 * 7) % 100);
    let events = invariants::read_log(&app.pool).await.len();
    let _ = reader.sync(body.clone()).await.ok();
    assert_eq!(invariants::read_log(&app.pool).await.len(), events);
    invariants::check(&app).await;
}

fn id_of_body(body: &Value) -> Uuid {
    body["sessions"][0]["session_id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn sync_with_an_idempotency_key_returns_the_first_response() {
    let app = App::start().await;
    let reader = app.reader();
    let body = json!({
        "sent_at": clock::now(),
        "sessions": [finished(minutes_ago(60)), finished(minutes_ago(90))],
    });
    let key = [("idempotency-key", "holiday")];
    let sync = async |body: &Value| {
        reader
            .call_with(reqwest::Method::POST, "/sync", &key, Some(body.clone()))
            .await
    };
    let first = sync(&body).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.body);
    assert!(first.headers.contains_key("x-global-position"));
    let second = sync(&body).await;
    assert_eq!(second.header("idempotent-replayed"), "true");
    assert_eq!(second.ok(), first.ok());
    let mut other = body.clone();
    other["sessions"] = json!([finished(minutes_ago(30))]);
    let _ = sync(&other).await.problem(422);
    invariants::check(&app).await;
}

/// Two devices upload parts of the same sessions at the same time.
#[tokio::test]
async fn concurrent_syncs_of_the_same_sessions_are_merged() {
    let app = App::start().await;
    let reader = app.reader();
    let whole = [finished(minutes_ago(60)), finished(minutes_ago(90))];
    let part = |odd: usize| {
        let sessions = whole.clone().map(|mut session| {
            let observations = session["observations"].as_array().unwrap();
            let half: Vec<&Value> = observations.iter().skip(odd).step_by(2).collect();
            session["observations"] = json!(half);
            session
        });
        json!({ "sessions": sessions })
    };
    let calls = (0..12).map(|count| {
        let (reader, body) = (reader.clone(), part(count % 2));
        async move {
            tests::eventually_ok(
                "a decision",
                std::time::Duration::from_secs(20),
                async || {
                    let response = reader.sync(body.clone()).await;
                    match response.status.as_u16() {
                        200 => Ok(()),
                        409 | 503 => Err(response.body.to_string()),
                        _ => panic!("{} {}", response.status, response.body),
                    }
                },
            )
            .await;
        }
    });
    futures::future::join_all(calls).await;
    app.settled().await;
    let history = reader.history("").await.ok();
    assert_eq!(history["total"], 2);
    for session in history["sessions"].as_array().unwrap() {
        assert_fields(
            session,
            &json!({ "active_seconds": 1_200, "end_position": 20, "version": 22 }),
        );
    }
    invariants::check(&app).await;
}
