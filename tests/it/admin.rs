//! The admin API accepts operators only and matches its OpenAPI document. Long
//! operations run in the background and stop with the service.

mod console;
mod live;
mod readers;
mod refusals;
mod scopes;

use api::openapi;
use reqwest::Method;
use serde_json::{Value, json};
use server::config::{AuthArgs, Role};
use tests::app::SETTLE;
use tests::contract::Contract;
use tests::reader::id;
use tests::{
    ApiResponse, App, Reader, Stack, eventually, future_events, invariants, scaled, until,
};
use uuid::Uuid;

use live::live;
use readers::readers;
use refusals::{rate_limits, refusals};

/// The operations, with a request for each.
const CALLS: [(&str, Method, &str); 25] = [
    ("heapProfile", Method::GET, "/heap-profile"),
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
    ("verify", Method::POST, "/projections/history/verify"),
    (
        "timeline",
        Method::GET,
        "/sessions/0193e5a0-0000-7000-8000-000000000001",
    ),
    (
        "reader",
        Method::GET,
        "/readers/0193e5a0-0000-7000-8000-000000000001",
    ),
    (
        "exportReader",
        Method::POST,
        "/readers/0193e5a0-0000-7000-8000-000000000001/export",
    ),
    (
        "eraseReader",
        Method::DELETE,
        "/readers/0193e5a0-0000-7000-8000-000000000001",
    ),
    ("access", Method::GET, "/access"),
    ("processes", Method::GET, "/processes"),
    ("live", Method::GET, "/live"),
    ("audit", Method::GET, "/audit"),
    ("auditEntry", Method::GET, "/audit/1"),
];

async fn get(operator: &Reader, path: &str) -> ApiResponse {
    operator.call(Method::GET, path, None).await
}

async fn post(operator: &Reader, path: &str) -> ApiResponse {
    operator.call(Method::POST, path, None).await
}

async fn projection_status(operator: &Reader, name: &str) -> Value {
    let body = get(operator, "/projections").await.ok();
    let mut all = body["projections"].as_array().unwrap().iter();
    all.find(|projection| projection["name"] == name)
        .unwrap()
        .clone()
}

async fn pause_and_resume(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    until("a worker holds the lease", 2 * SETTLE, async || {
        projection_status(&operator, "history").await["state"] == "running"
    })
    .await;
    contract.check("projections", 200, &get(&operator, "/projections").await);
    let paused = post(&operator, "/projections/history/pause").await;
    contract.check("pause", 200, &paused);
    assert_eq!(paused.body["state"], "paused");
    until("the worker stops", 2 * SETTLE, async || {
        projection_status(&operator, "history").await["worker"].is_null()
    })
    .await;
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    assert_eq!(
        projection_status(&operator, "history").await["lag_events"],
        1
    );
    let resumed = post(&operator, "/projections/history/resume").await;
    contract.check("resume", 200, &resumed);
    invariants::check(&app).await;
}

async fn replays(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    app.settled().await;
    // A replay cannot swap in its table while a query reads the old one, and retries.
    let reading = app.read_history().await;
    let replay = "/projections/history/replay?restart=true";
    contract.check("replay", 202, &post(&operator, replay).await);
    until("the replay is listed", 2 * SETTLE, async || {
        projection_status(&operator, "history").await["replay"]["running"] == true
    })
    .await;
    contract.check("replay", 409, &post(&operator, replay).await);
    let verify = "/projections/history/verify";
    contract.check("verify", 409, &post(&operator, verify).await);
    reading.rollback().await.unwrap();
    until("the replay ends", 2 * SETTLE, async || {
        projection_status(&operator, "history").await["replay"].is_null()
    })
    .await;
    let verification = eventually("the verification starts", 2 * SETTLE, async || {
        let response = post(&operator, verify).await;
        (response.status == 202).then_some(response)
    })
    .await;
    contract.check("verify", 202, &verification);
    let entry = format!("/audit/{}", verification.body["audit_id"].as_str().unwrap());
    until("the verification ends", 2 * SETTLE, async || {
        get(&operator, &entry).await.ok()["outcome"] == "succeeded"
    })
    .await;
    let verified = get(&operator, &entry).await;
    contract.check("auditEntry", 200, &verified);
    assert_eq!(verified.body["details"]["equal"], true);
    assert_eq!(verified.body["details"]["compared"][0]["differing"], 0);
    contract.check("audit", 200, &get(&operator, "/audit?limit=1").await);
    contract.check("warmUp", 202, &post(&operator, "/cache/warmup").await);
    app.warmed_up().await;
    invariants::check(&app).await;
}

async fn dead_letters(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 50.0).await.ok();
    let parked = future_events::append_unreadable(&app.pool, session).await;
    let waiting = future_events::append_readable(&app.pool, session).await;
    let count = async |filter: &str| {
        let body = get(&operator, &format!("/dead-letters?{filter}"))
            .await
            .ok();
        body["dead_letters"].as_array().unwrap().len()
    };
    until(
        "every projection skips both events",
        2 * SETTLE,
        async || count("").await == 6,
    )
    .await;
    assert_eq!(count("projection=history&state=waiting").await, 1);

    // The pages list each dead letter once.
    let mut seen: Vec<String> = Vec::new();
    let mut after = String::new();
    loop {
        let page = get(&operator, &format!("/dead-letters?limit=4{after}")).await;
        contract.check("deadLetters", 200, &page);
        let letters = page.body["dead_letters"].as_array().unwrap();
        seen.extend(
            letters
                .iter()
                .map(|letter| letter["id"].as_str().unwrap().to_owned()),
        );
        assert!(seen.len() <= 6, "{seen:?}");
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
    contract.check("deadLetter", 200, &shown);
    assert_eq!(shown.body["event"]["version"], "99");
    assert_eq!(shown.body["session_id"], session.to_string());

    let response = post(&operator, &format!("/dead-letters/{first}/retry")).await;
    contract.check("retry", 202, &response);
    until("the event is retried", 2 * SETTLE, async || {
        let letter = get(&operator, &format!("/dead-letters/{first}")).await.ok();
        letter["tries"] == 2
    })
    .await;

    let response = post(&operator, &format!("/dead-letters/{second}/discard")).await;
    contract.check("discard", 409, &response);
    let detail = response.body["detail"].as_str().unwrap();
    assert!(detail.contains(&first), "{detail}");
    assert_eq!(response.problem_code(409), "dead_letter_waiting");
    let response = post(&operator, &format!("/dead-letters/{first}/discard")).await;
    contract.check("discard", 200, &response);
    assert_eq!(response.body["state"], "discarded");
    let response = post(&operator, &format!("/dead-letters/{first}/retry")).await;
    contract.check("retry", 409, &response);
    until("the waiting event is applied", 2 * SETTLE, async || {
        count("projection=history").await == 1
    })
    .await;
}

async fn jobs(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    contract.check("jobs", 200, &get(&operator, "/jobs").await);
    contract.check("access", 200, &get(&operator, "/access").await);
    let processes = get(&operator, "/processes").await;
    contract.check("processes", 200, &processes);
    let name = &processes.body["this"]["name"];
    let mut leases = processes.body["leases"].as_array().unwrap().iter();
    let relay = leases.next().unwrap();
    assert_eq!(relay["kind"], "relay");
    let holders = leases.filter(|lease| !lease["holder"].is_null());
    assert!(holders.clone().count() > 0, "{}", processes.body);
    for lease in holders {
        assert_eq!(lease["holder"], *name);
    }
    let run = post(&operator, "/jobs/partitions/run").await;
    contract.check("runJob", 202, &run);
    assert_eq!(run.body["name"], "partitions");
    let stats = get(&operator, "/reading-sessions/cleanup-stats?hours=1").await;
    contract.check("cleanupStats", 200, &stats);
    let cleanup = post(&operator, "/reading-sessions/cleanup").await;
    contract.check("cleanup", 200, &cleanup);
    assert_eq!(cleanup.body["complete"], true);
}

async fn daily_stats(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    let none = get(&operator, "/stats/daily").await;
    contract.check("dailyStatsOfAll", 200, &none);
    assert_eq!(none.body, json!({ "days": [] }));
    // One reader reads for fifteen minutes, another for none. Starting at noon keeps
    // everything on one day.
    let noon = eventlog::clock::now().date_naive() - chrono::Days::new(2);
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
    let response = get(&operator, "/stats/daily").await;
    contract.check("dailyStatsOfAll", 200, &response);
    let expected = json!([{
        "date": noon.date_naive(),
        "total_sessions": 2,
        "active_users": 2,
        "avg_duration_minutes": 7.5,
        "avg_duration_seconds": 450.0,
        "total_reading_minutes": 15,
        "total_reading_seconds": 900,
        "avg_progress_percent": 7.5,
        "sessions_over_10min": 1,
        "completed_sessions": 1,
    }]);
    assert_eq!(response.body["days"], expected);
    let two_days = get(&operator, "/stats/daily?days=2").await.ok();
    assert_eq!(two_days, json!({ "days": [] }));
    let three_days = get(&operator, "/stats/daily?days=3").await.ok();
    assert_eq!(three_days["days"], expected);
}

#[tokio::test]
async fn admin_api_matches_its_openapi_document() {
    let contract = Contract::from_document(openapi::admin::document());
    tokio::join!(
        refusals(&contract),
        rate_limits(&contract),
        pause_and_resume(&contract),
        replays(&contract),
        dead_letters(&contract),
        daily_stats(&contract),
        jobs(&contract),
        readers(&contract),
        live(&contract),
    );
    let mut missing = contract.described();
    missing.retain(|documented| !contract.seen().contains(documented));
    // Only a process can have the profiler; process_metrics starts one.
    missing.retain(|documented| *documented != ("heapProfile".to_owned(), 200));
    // Server errors are the same for all operations.
    missing.retain(|(_, status)| *status < 500);
    assert!(
        missing.is_empty(),
        "documented, but not returned: {missing:?}"
    );
}

#[tokio::test]
async fn admin_openapi_document_needs_no_token() {
    let app = App::start().await;
    let served = app.client.get(format!("{}/openapi.json", app.admin_url));
    let served: Value = served.send().await.unwrap().json().await.unwrap();
    assert_eq!(served, openapi::admin::document());
}

#[tokio::test]
async fn without_token_keys_only_probes_are_served() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let mut settings = tests::app::settings(&env, &[Role::Relay]);
    let app = App::run(stack.clone(), env.clone(), &settings).await;
    assert_eq!(get(&app.operator(), "/projections").await.status, 200);
    settings.auth = AuthArgs::default();
    let app = App::run(stack, env, &settings).await;
    let alive = app.client.get(format!("{}/livez", app.admin_url));
    assert_eq!(alive.send().await.unwrap().status(), 200);
    let _ = get(&app.operator(), "/projections").await.problem(404);
    let document = app.client.get(format!("{}/openapi.json", app.admin_url));
    assert_eq!(document.send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn http_requests_are_counted_by_route_and_status() {
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
async fn replay_stops_with_the_service_and_resumes_after_restart() {
    let app = App::start().await;
    let operator = app.operator();
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let reading = app.read_history().await;
    let _ = post(&operator, "/projections/history/replay").await.ok();
    until("the replay runs", 2 * SETTLE, async || {
        projection_status(&operator, "history").await["replay"]["position"] == 1
    })
    .await;
    let (stack, env) = (app.stack.clone(), app.env.clone());
    let stopped = tokio::time::timeout(scaled(SETTLE), app.stop()).await;
    stopped.expect("the service stops without waiting for the replay");
    reading.rollback().await.unwrap();

    let settings = tests::app::settings(&env, &Role::ALL);
    let app = App::run(stack, env, &settings).await;
    let operator = app.operator();
    let interrupted = projection_status(&operator, "history").await;
    assert_eq!(interrupted["replay"]["position"], 1);
    // Until its lease expires, the interrupted replay counts as running.
    until("the replay can start again", 2 * SETTLE, async || {
        post(&operator, "/projections/history/replay").await.status == 202
    })
    .await;
    until("the replay ends", 2 * SETTLE, async || {
        projection_status(&operator, "history").await["replay"].is_null()
    })
    .await;
    invariants::check(&app).await;
}
