//! `/readyz` and `doctor` report what each role really does, and name each failure.

use std::sync::Arc;

use async_nats::jetstream;
use serde_json::Value;
use server::config::Role;
use sqlx::{Connection, Executor, PgConnection};
use tests::app::{SETTLE, settings};
use tests::log_loss::SavedLog;
use tests::production_nats::ProductionNats;
use tests::reader::id;
use tests::stack::TestEnv;
use tests::{App, Stack, eventually_ok, until};
use uuid::Uuid;

use super::doctor::finding;
use super::run;

/// The status code and the body of `/readyz`.
async fn readyz(app: &App) -> (u16, Value) {
    let url = format!("{}/readyz", app.admin_url);
    let response = app.client.get(url).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Waits until `/readyz` lists a failure. Returns the status code and the reason.
async fn until_failing(app: &App, failure: &str) -> (u16, String) {
    eventually_ok(failure, 2 * SETTLE, async || {
        let (code, body) = readyz(app).await;
        let failures = body["failures"].as_array().unwrap();
        let found = failures.iter().find(|one| one["name"] == failure);
        match found {
            Some(found) => Ok((code, found["reason"].as_str().unwrap().to_owned())),
            None => Err(body),
        }
    })
    .await
}

/// Waits until `/readyz` returns 200 without a failure.
async fn until_healthy(app: &App) {
    eventually_ok("no failure", 2 * SETTLE, async || {
        let (code, body) = readyz(app).await;
        let is_healthy = code == 200 && body["failures"].as_array().unwrap().is_empty();
        if is_healthy { Ok(()) } else { Err(body) }
    })
    .await;
}

/// The state and the details of a check of `doctor`.
async fn doctor(env: &TestEnv, check: &str) -> (String, String) {
    // The exit code is 1 in any case, because the test server runs without fsync.
    let findings = run(env, &["doctor", "-o", "json"]).await.json(1);
    let (state, details) = finding(&findings, check);
    (state.to_owned(), details.to_owned())
}

async fn failing_metric(app: &App, failure: &str) -> u64 {
    let name = format!(r#"reading_sessions_failure{{name="{failure}"}}"#);
    app.metrics().await.count(&name)
}

#[tokio::test]
async fn relay_that_stopped_permanently_is_a_named_failure() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.settled().await;
    let saved = SavedLog::save(&app.pool).await;
    let _ = reader.update(session, 10.0).await.ok();
    let head = eventlog::read::head(&app.pool).await.unwrap();
    until("the update is published", SETTLE, async || {
        let position = app.metrics().await.count("reading_sessions_relay_position");
        position == head.unsigned_abs()
    })
    .await;
    let (stack, env) = (Arc::clone(&app.stack), app.env.clone());
    saved.reset(&app.pool).await;
    app.stop().await;

    let relay = App::run(
        Arc::clone(&stack),
        env.clone(),
        &settings(&env, &[Role::Relay]),
    )
    .await;
    let all = relay.alongside(&[Role::Api, Role::Relay]).await;
    let lost = format!("at global position {head}, which is not in the log");
    let (code, reason) = until_failing(&relay, "relay_stopped").await;
    assert_eq!(code, 503);
    assert!(reason.contains(&lost), "{reason}");
    assert_eq!(failing_metric(&relay, "relay_stopped").await, 1);
    // The API of the other process works, and its relay has stopped too.
    let (code, reason) = until_failing(&all, "relay_stopped").await;
    assert_eq!(code, 200);
    assert!(reason.contains(&lost), "{reason}");
    let (state, details) = doctor(&env, "relay").await;
    assert_eq!(state, "failure");
    assert!(details.contains(&lost), "{details}");

    // The remedy that the error names.
    let jetstream = server::connect::jetstream(&settings(&env, &[]).nats)
        .await
        .unwrap();
    let stream = messaging::Subjects::new(&env.nats_prefix)
        .stream()
        .to_owned();
    jetstream.delete_stream(stream).await.unwrap();
    until_healthy(&relay).await;
    until_healthy(&all).await;
    assert_eq!(failing_metric(&relay, "relay_stopped").await, 0);
    let (state, details) = doctor(&env, "relay").await;
    assert_eq!(state, "ok", "{details}");
}

#[tokio::test]
async fn failing_projection_makes_its_process_unready_and_no_other() {
    let api = App::start_roles(&[Role::Api]).await;
    let worker = api.alongside(&[Role::Projections]).await;
    let standby = api.alongside(&[Role::Projections]).await;
    let _ = api.reader().start(Uuid::new_v4()).await.ok();
    api.settled().await;
    let rename = async |from: &str, to: &str| {
        let statement = format!("alter table read.{from} rename to {to}");
        api.pool.execute(statement.as_str()).await.unwrap();
    };
    rename("history", "renamed").await;
    let _ = api.reader().start(Uuid::new_v4()).await.ok();
    let failing = async || {
        eventually_ok("a failing projection", 2 * SETTLE, async || {
            // One of the two has the lease.
            for app in [&worker, &standby] {
                let (code, body) = readyz(app).await;
                if code == 503 {
                    return Ok(body);
                }
            }
            Err("both are ready")
        })
        .await
    };
    let body = failing().await;
    assert_eq!(body["failures"][0]["name"], "projection_failing");
    let reason = body["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("history cannot apply events"),
        "{reason}"
    );
    assert!(reason.contains("does not exist"), "{reason}");
    until_healthy(&api).await;
    eventually_ok("doctor reports the projection", 2 * SETTLE, async || {
        let (state, details) = doctor(&api.env, "projections").await;
        let is_named = state == "failure" && details.contains("history fails: ");
        if is_named { Ok(()) } else { Err(details) }
    })
    .await;

    rename("renamed", "history").await;
    until_healthy(&worker).await;
    until_healthy(&standby).await;
}

#[tokio::test]
async fn read_only_postgres_makes_every_process_unready() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let pool = tests::app::pool(&env).await;
    let mut operator = PgConnection::connect(&env.admin_url).await.unwrap();
    let database: String = sqlx::query_scalar("select current_database()::text")
        .fetch_one(&mut operator)
        .await
        .unwrap();
    let setting = format!("alter database {database} set default_transaction_read_only");
    operator
        .execute(format!("{setting} = on").as_str())
        .await
        .unwrap();
    let api = App::run(
        Arc::clone(&stack),
        env.clone(),
        &settings(&env, &[Role::Api]),
    )
    .await;
    let jobs = api.alongside(&[Role::Jobs]).await;
    for app in [&api, &jobs] {
        let (code, reason) = until_failing(app, "postgres_read_only").await;
        assert_eq!(code, 503);
        assert!(reason.contains("refuses writes"), "{reason}");
    }
    assert_eq!(failing_metric(&api, "postgres_read_only").await, 1);
    let (state, details) = doctor(&env, "Postgres").await;
    assert_eq!(state, "failure");
    assert!(details.contains("the server refuses writes"), "{details}");

    operator
        .execute(format!("{setting} = off").as_str())
        .await
        .unwrap();
    // A setting of the database applies to new connections.
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name like 'reading-sessions%'",
    )
    .execute(&pool)
    .await
    .unwrap();
    until_healthy(&api).await;
    until_healthy(&jobs).await;
    let (_, details) = doctor(&env, "Postgres").await;
    assert!(!details.contains("refuses writes"), "{details}");
}

#[tokio::test]
async fn hour_without_a_run_of_a_job_is_a_named_failure() {
    let api = App::start_roles(&[Role::Api]).await;
    let (state, details) = doctor(&api.env, "jobs").await;
    assert_eq!(state, "failure");
    assert!(
        details.contains("no process has completed a run of a job yet"),
        "{details}"
    );
    // Another process holds all leases and completes nothing.
    let stall = "update jobs set holder = 'elsewhere', held_until = now() + interval '1 h',
        ended_at = now() - interval '2 h', asked = false";
    api.pool.execute(stall).await.unwrap();

    let jobs = api.alongside(&[Role::Jobs]).await;
    let expected = "no process has completed a run of a job for 120 min";
    let (code, reason) = until_failing(&jobs, "jobs_not_running").await;
    assert_eq!((code, reason.as_str()), (503, expected));
    let (state, details) = doctor(&api.env, "jobs").await;
    assert_eq!(state, "failure");
    assert!(details.contains(expected), "{details}");
    until_healthy(&api).await;

    let release = "update jobs set holder = null, held_until = '-infinity', due_at = now()";
    api.pool.execute(release).await.unwrap();
    until_healthy(&jobs).await;
    let (state, details) = doctor(&api.env, "jobs").await;
    assert_eq!(state, "ok", "{details}");
}

#[tokio::test]
async fn permission_that_nats_refused_is_a_named_failure() {
    let stack = Stack::shared().await;
    let nats = ProductionNats::with_all_roles_user(&stack).await;
    let env = stack.new_env().await;
    let role = async |user: &str, role: Role| {
        let env = nats.env_for(&env, user);
        let settings = settings(&env, &[role]);
        App::run(Arc::clone(&stack), env, &settings).await
    };
    // The users are exchanged.
    let relay = role("api", Role::Relay).await;
    let api = role("relay", Role::Api).await;
    let (code, reason) = until_failing(&relay, "nats_permission_refused").await;
    assert_eq!(code, 503);
    assert!(reason.contains("Permissions Violation"), "{reason}");
    assert_eq!(failing_metric(&relay, "nats_permission_refused").await, 1);
    let _ = api.reader().start(Uuid::new_v4()).await.ok();
    // The relay finds events without the wake-ups of the API.
    let (code, reason) = until_failing(&api, "nats_permission_refused").await;
    assert_eq!(code, 200);
    assert!(reason.contains("reading.wake"), "{reason}");
    let (state, details) = doctor(&relay.env, "NATS permissions").await;
    assert_eq!(state, "failure");
    assert!(
        details.contains("NATS refused: Permissions Violation"),
        "{details}"
    );
    relay.stop().await;

    let relay = role("relay", Role::Relay).await;
    let stream = async || {
        let url = nats.url("reading");
        let client = async_nats::ConnectOptions::with_user_and_password(
            "reading".into(),
            tests::production_nats::password("reading"),
        );
        let client = client.connect(url).await.unwrap();
        jetstream::new(client).get_stream("READING").await
    };
    until("the start is published", 2 * SETTLE, async || {
        let stream = stream().await;
        stream.is_ok_and(|stream| stream.cached_info().state.messages == 1)
    })
    .await;
    until_healthy(&relay).await;
    for check in ["NATS permissions", "relay"] {
        let (state, details) = doctor(&relay.env, check).await;
        assert_eq!(state, "ok", "{details}");
    }
    let stream = stream().await.unwrap();
    assert_eq!(
        stream.cached_info().state.messages,
        1,
        "doctor stored nothing"
    );
}

#[tokio::test]
async fn processes_on_standby_are_ready() {
    let roles = [Role::Relay, Role::Projections, Role::Jobs];
    let first = App::start().await;
    let second = first.alongside(&roles).await;
    let third = first.alongside(&roles).await;
    let _ = first.reader().start(Uuid::new_v4()).await.ok();
    first.settled().await;
    for app in [&first, &second, &third] {
        until_healthy(app).await;
    }
}
