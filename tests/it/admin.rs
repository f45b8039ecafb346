//! Operators' calls over HTTP: for operators alone, as they are described, and
//! what takes long goes on behind them and ends with the service.

mod refusals;

use reqwest::Method;
use serde_json::{Value, json};
use services::api::openapi;
use services::config::{AuthArgs, Role};
use tests::app::{SETTLE, until};
use tests::contract::Contract;
use tests::reader::id;
use tests::{Answer, App, Reader, Stack, check, unknown};
use uuid::Uuid;

use refusals::{refusals, too_many};

/// Operations and a call for each.
const CALLS: [(&str, Method, &str); 14] = [
    ("projections", Method::GET, "/projections"),
    ("pause", Method::POST, "/projections/history/pause"),
    ("resume", Method::POST, "/projections/history/resume"),
    ("replay", Method::POST, "/projections/history/replay"),
    ("warmUp", Method::POST, "/cache/warmup"),
    ("deadLetters", Method::GET, "/dead-letters"),
    ("deadLetter", Method::GET, "/dead-letters/history.1"),
    ("retry", Method::POST, "/dead-letters/history.1/retry"),
    ("discard", Method::POST, "/dead-letters/history.1/discard"),
    ("dailyStatsOfAll", Method::GET, "/stats/daily"),
    ("jobs", Method::GET, "/jobs"),
    ("runJob", Method::POST, "/jobs/partitions/run"),
    (
        "cleanupStats",
        Method::GET,
        "/reading-sessions/cleanup-stats",
    ),
    ("cleanup", Method::POST, "/reading-sessions/cleanup"),
];

async fn get(operator: &Reader, path: &str) -> Answer {
    operator.call(Method::GET, path, None).await
}

async fn post(operator: &Reader, path: &str) -> Answer {
    operator.call(Method::POST, path, None).await
}

async fn standing(operator: &Reader, name: &str) -> Value {
    let body = get(operator, "/projections").await.ok();
    let mut all = body["projections"].as_array().unwrap().iter();
    all.find(|one| one["name"] == name).unwrap().clone()
}

async fn holding(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    until("a worker has taken it", async || {
        standing(&operator, "history").await["state"] == "running"
    })
    .await;
    contract.holds("projections", 200, &get(&operator, "/projections").await);
    let paused = post(&operator, "/projections/history/pause").await;
    contract.holds("pause", 200, &paused);
    assert_eq!(paused.body["state"], "paused");
    until("its worker stops", async || {
        standing(&operator, "history").await["worker"].is_null()
    })
    .await;
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    assert_eq!(standing(&operator, "history").await["lag_events"], 1);
    let resumed = post(&operator, "/projections/history/resume").await;
    contract.holds("resume", 200, &resumed);
    check::everything(&app).await;
}

async fn replays(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    app.settled().await;
    // A replay cannot take the place of what is being read, and tries again.
    let mut reading = app.pool.begin().await.unwrap();
    sqlx::query("select from history limit 1")
        .execute(&mut *reading)
        .await
        .unwrap();
    let replay = "/projections/history/replay?restart=true";
    contract.holds("replay", 202, &post(&operator, replay).await);
    until("it is listed", async || {
        standing(&operator, "history").await["replay"]["running"] == true
    })
    .await;
    contract.holds("replay", 409, &post(&operator, replay).await);
    reading.rollback().await.unwrap();
    until("it is done", async || {
        standing(&operator, "history").await["replay"].is_null()
    })
    .await;
    contract.holds("warmUp", 202, &post(&operator, "/cache/warmup").await);
    app.warmed_up().await;
    check::everything(&app).await;
}

async fn letters(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 50.0).await.ok();
    let parked = unknown::append(&app.pool, session).await;
    let waiting = unknown::follow(&app.pool, session).await;
    let count = async |filter: &str| {
        let body = get(&operator, &format!("/dead-letters?{filter}"))
            .await
            .ok();
        body["dead_letters"].as_array().unwrap().len()
    };
    until("both are passed by all", async || count("").await == 6).await;
    assert_eq!(count("projection=history&state=waiting").await, 1);

    // Page by page, each once.
    let mut seen: Vec<String> = Vec::new();
    let mut after = String::new();
    loop {
        let page = get(&operator, &format!("/dead-letters?limit=4{after}")).await;
        contract.holds("deadLetters", 200, &page);
        let letters = page.body["dead_letters"].as_array().unwrap();
        seen.extend(
            letters
                .iter()
                .map(|one| one["id"].as_str().unwrap().to_owned()),
        );
        match page.body["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 6);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6);

    let (first, second) = (format!("history.{parked}"), format!("history.{waiting}"));
    let shown = get(&operator, &format!("/dead-letters/{first}")).await;
    contract.holds("deadLetter", 200, &shown);
    assert_eq!(shown.body["event"]["version"], "99");
    assert_eq!(shown.body["session_id"], session.to_string());

    let answer = post(&operator, &format!("/dead-letters/{first}/retry")).await;
    contract.holds("retry", 202, &answer);
    until("it was tried", async || {
        let letter = get(&operator, &format!("/dead-letters/{first}")).await.ok();
        letter["tries"] == 2
    })
    .await;

    let answer = post(&operator, &format!("/dead-letters/{second}/discard")).await;
    contract.holds("discard", 409, &answer);
    assert!(
        answer
            .problem(409)
            .ends_with(&format!("discard {first} instead"))
    );
    let answer = post(&operator, &format!("/dead-letters/{first}/discard")).await;
    contract.holds("discard", 200, &answer);
    assert_eq!(answer.body["state"], "discarded");
    let answer = post(&operator, &format!("/dead-letters/{first}/retry")).await;
    contract.holds("retry", 409, &answer);
    until("what waited goes on", async || {
        count("projection=history").await == 1
    })
    .await;
}

async fn upkeep(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    contract.holds("jobs", 200, &get(&operator, "/jobs").await);
    let run = post(&operator, "/jobs/partitions/run").await;
    contract.holds("runJob", 202, &run);
    assert_eq!(run.body["name"], "partitions");
    let stats = get(&operator, "/reading-sessions/cleanup-stats?hours=1").await;
    contract.holds("cleanupStats", 200, &stats);
    let cleanup = post(&operator, "/reading-sessions/cleanup").await;
    contract.holds("cleanup", 200, &cleanup);
    assert_eq!(cleanup.body["complete"], true);
}

async fn days(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    let none = get(&operator, "/stats/daily").await;
    contract.holds("dailyStatsOfAll", 200, &none);
    assert_eq!(none.body, json!({ "days": [] }));
    // Fifteen minutes of one reader, none of another; at noon, so that all of
    // it is on one day.
    let noon = services::clock::now().date_naive() - chrono::Days::new(2);
    let noon = noon.and_hms_opt(12, 0, 0).unwrap().and_utc();
    let minute = |n: i64| json!(noon + chrono::TimeDelta::minutes(n));
    for (minutes, ended) in [(15, true), (0, false)] {
        let reader = app.reader();
        let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": minute(0) });
        let session = id(&reader.start_with(start).await.ok());
        for n in 1..=minutes {
            let update = json!({ "current_position": n, "occurred_at": minute(n) });
            let _ = reader.update_with(session, update).await.ok();
        }
        if ended {
            let _ = reader
                .end(session, json!({ "occurred_at": minute(15) }))
                .await
                .ok();
        }
    }
    app.settled().await;
    let answer = get(&operator, "/stats/daily").await;
    contract.holds("dailyStatsOfAll", 200, &answer);
    let expected = json!([{
        "date": noon.date_naive(),
        "total_sessions": 2,
        "active_users": 2,
        "avg_duration_minutes": 7.5,
        "total_reading_minutes": 15,
        "avg_progress_percent": 7.5,
        "sessions_over_10min": 1,
        "completed_sessions": 1,
    }]);
    assert_eq!(answer.body["days"], expected);
    let of_two = get(&operator, "/stats/daily?days=2").await.ok();
    assert_eq!(of_two, json!({ "days": [] }));
    let of_three = get(&operator, "/stats/daily?days=3").await.ok();
    assert_eq!(of_three["days"], expected);
}

#[tokio::test]
async fn operators_calls_are_as_they_are_described() {
    let contract = Contract::of(openapi::operators::document());
    tokio::join!(
        refusals(&contract),
        too_many(&contract),
        holding(&contract),
        replays(&contract),
        letters(&contract),
        days(&contract),
        upkeep(&contract),
    );
    let mut missing = contract.described();
    missing.retain(|described| !contract.seen().contains(described));
    // Both come from what is behind all calls. A second warm-up is refused only
    // while the first is at it.
    missing
        .retain(|(operation, status)| *status < 500 && !(operation == "warmUp" && *status == 409));
    assert!(missing.is_empty(), "described, but not seen: {missing:?}");
}

#[tokio::test]
async fn the_description_of_operators_calls_is_served_to_anyone() {
    let app = App::start().await;
    let served = app.client.get(format!("{}/openapi.json", app.admin_url));
    let served: Value = served.send().await.unwrap().json().await.unwrap();
    assert_eq!(served, openapi::operators::document());
}

#[tokio::test]
async fn a_process_that_cannot_verify_tokens_serves_probes_alone() {
    let stack = Stack::shared().await;
    let corner = stack.corner().await;
    let mut settings = tests::app::settings(&corner, &[Role::Relay]);
    let app = App::run(stack.clone(), corner.clone(), &settings).await;
    assert_eq!(get(&app.operator(), "/projections").await.status, 200);
    settings.auth = AuthArgs::default();
    let app = App::run(stack, corner, &settings).await;
    let alive = app.client.get(format!("{}/livez", app.admin_url));
    assert_eq!(alive.send().await.unwrap().status(), 200);
    let _ = get(&app.operator(), "/projections").await.problem(404);
    let described = app.client.get(format!("{}/openapi.json", app.admin_url));
    assert_eq!(described.send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn what_was_answered_is_counted() {
    let app = App::start().await;
    let reader = app.reader();
    let started = reader.start(Uuid::new_v4()).await.ok();
    let path = format!("/{}", id(&started));
    let _ = reader.call(Method::GET, &path, None).await.ok();
    let _ = app
        .reader()
        .call(Method::GET, &path, None)
        .await
        .problem(404);
    let metrics = app.metrics().await;
    let requests = |status: &str| {
        metrics.count(&format!(
            r#"reading_sessions_http_requests_total{{method="GET",route="/api/v1/reading-sessions/{{id}}",status="{status}"}}"#
        ))
    };
    assert_eq!((requests("200"), requests("404")), (1, 1));
}

#[tokio::test]
async fn a_replay_stops_with_the_service_and_goes_on_in_the_next() {
    let app = App::start().await;
    let operator = app.operator();
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let mut reading = app.pool.begin().await.unwrap();
    sqlx::query("select from history limit 1")
        .execute(&mut *reading)
        .await
        .unwrap();
    let _ = post(&operator, "/projections/history/replay").await.ok();
    until("it runs", async || {
        standing(&operator, "history").await["replay"]["position"] == 1
    })
    .await;
    let (stack, corner) = (app.stack.clone(), app.corner.clone());
    let stopped = tokio::time::timeout(SETTLE, app.stop()).await;
    stopped.expect("the service does not wait for the replay");
    reading.rollback().await.unwrap();

    let settings = tests::app::settings(&corner, &Role::ALL);
    let app = App::run(stack, corner, &settings).await;
    let operator = app.operator();
    let cut = standing(&operator, "history").await;
    assert_eq!(cut["replay"]["position"], 1);
    // For some seconds it looks as if it still ran.
    until("it is taken up", async || {
        post(&operator, "/projections/history/replay").await.status == 202
    })
    .await;
    until("it is done", async || {
        standing(&operator, "history").await["replay"].is_null()
    })
    .await;
    check::everything(&app).await;
}
