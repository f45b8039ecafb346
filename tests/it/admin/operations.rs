//! Projections are paused and resumed. Replays and verifications run in the background and
//! stop with the service.

use super::*;

pub async fn projection_status(operator: &Reader, name: &str) -> Value {
    let body = get(operator, "/projections").await.ok();
    let mut all = body["projections"].as_array().unwrap().iter();
    all.find(|projection| projection["name"] == name)
        .unwrap()
        .clone()
}

pub async fn pause_and_resume(contract: &Contract) {
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

pub async fn replays(contract: &Contract) {
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
