//! Each role of Postgres may do what its process needs, and no more. In particular, no
//! role can change what the log contains.

mod refusals;
mod upgrade;

use std::process::Stdio;
use std::sync::Arc;

use eventlog::roles::DatabaseRole;
use eventlog::sqlstate::SqlState;
use serde_json::json;
use server::config::Role;
use sqlx::{Executor, PgPool};
use tests::process::command;
use tests::stack::TestEnv;
use tests::{App, Stack, app, eventually, invariants};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use uuid::Uuid;

/// A pool of a role.
async fn pool_of(env: &TestEnv, role: DatabaseRole) -> PgPool {
    sqlx::PgPool::connect(&env.as_role(role).database_url)
        .await
        .unwrap()
}

/// Runs a statement. Returns the SQLSTATE of its error; `None` if it succeeds.
async fn refusal(pool: &PgPool, statement: &str) -> Option<SqlState> {
    // In a transaction that is never committed.
    let mut transaction = pool.begin().await.unwrap();
    let result = transaction.execute(statement).await;
    result.err().and_then(|error| SqlState::from_error(&error))
}

/// Runs a command and returns its standard output and standard error.
async fn succeeds(mut command: Command, arguments: &[&str]) -> String {
    let output = command.args(arguments).output().await.unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

#[tokio::test]
async fn each_process_works_with_its_own_role() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let start = async |role: DatabaseRole, roles: &[Role]| {
        let env = env.as_role(role);
        let settings = app::settings(&env, roles);
        App::run(Arc::clone(&stack), env, &settings).await
    };
    let relay = start(DatabaseRole::Relay, &[Role::Relay]).await;
    let projections = start(DatabaseRole::Projections, &[Role::Projections]).await;
    let jobs = start(DatabaseRole::Jobs, &[Role::Jobs]).await;
    let api = start(DatabaseRole::Api, &[Role::Api]).await;

    let (reader, erased) = (api.reader(), api.reader());
    for reader in [&reader, &erased] {
        let session = tests::reader::id(&reader.start(Uuid::new_v4()).await.ok());
        let _ = reader.update(session, 12.5).await.ok();
        let _ = reader.end(session, json!({})).await.ok();
        let _ = reader.start(Uuid::new_v4()).await.ok();
    }
    api.settled().await;
    assert_eq!(reader.history("").await.ok()["total"], 2);
    assert_eq!(erased.erase().await.status, 202);
    let id = erased.id.into();
    tests::until("the erasure is done", 2 * app::SETTLE, async || {
        let erasure = eventlog::erase::find(&api.pool, id).await.unwrap();
        erasure.is_some_and(|erasure| erasure.done_at.is_some())
    })
    .await;

    // The admin API of the role `jobs` may do what an operator may do.
    let operator = jobs.operator();
    let rebuild = operator.call(reqwest::Method::POST, "/projections/history/replay", None);
    assert_eq!(rebuild.await.status, 202);
    let relay_lease = async |app: &App| {
        let operator = app.operator();
        let processes = operator.call(reqwest::Method::GET, "/processes", None);
        processes.await.ok()["leases"][0].clone()
    };
    let lease = relay_lease(&jobs).await;
    assert_eq!(lease["kind"], "relay");
    assert_eq!(lease["holder"], "127.0.0.1");
    // The admin API of the role `api` may not, and sees no connections of other roles.
    assert_eq!(relay_lease(&api).await["holder"], "unknown");
    let operator = api.operator();
    let pause = operator.call(reqwest::Method::POST, "/projections/history/pause", None);
    assert_eq!(pause.await.problem_code(403), "forbidden");

    api.settled().await;
    invariants::check_env(&api.pool, &env).await;
    for app in [api, projections, relay, jobs] {
        app.stop().await;
    }
}

#[tokio::test]
async fn operators_work_with_their_own_role() {
    let app = App::start().await;
    let reader = app.reader();
    let session = tests::reader::id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 12.5).await.ok();
    app.settled().await;
    app.warmed_up().await;
    let operator = app.env.as_role(DatabaseRole::Operator);
    let (reader_id, session) = (reader.id.to_string(), session.to_string());
    for arguments in [
        &["projections", "pause", "history"][..],
        &["projections", "resume", "history"],
        &["replay", "history"],
        &["replay", "daily_stats"],
        &["replay", "active_sessions"],
        &["verify"],
        &["warm-up"],
        &["dead-letters"],
        &["jobs"],
        &["events", "show", &session],
        &["reader", "export", &reader_id],
        &["reader", "erase", &reader_id, "--yes"],
    ] {
        let _ = succeeds(command(&operator), arguments).await;
    }
    let jobs = app.env.as_role(DatabaseRole::Jobs);
    for job in jobs::Job::ALL {
        let _ = succeeds(command(&jobs), &["jobs", "run", job.as_str()]).await;
    }
    app.settled().await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn process_with_too_few_rights_does_not_start() {
    let env = Stack::shared().await.new_env().await;
    let starts = async |role: DatabaseRole, roles: &str| {
        let mut serve = command(&env.as_role(role));
        serve
            .env("ROLES", roles)
            .env("HTTP_ADDR", "127.0.0.1:0")
            .env("ADMIN_ADDR", "127.0.0.1:0");
        let output = serve.arg("serve").output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    for (role, roles, missing) in [
        (DatabaseRole::Relay, "api", "reading_api"),
        (DatabaseRole::Api, "jobs", "reading_jobs"),
        (DatabaseRole::Relay, "projections", "reading_projections"),
        (DatabaseRole::Operator, "relay", "reading_relay"),
        (DatabaseRole::Jobs, "api,jobs", "reading_api"),
    ] {
        let error = starts(role, roles).await;
        assert!(
            error.contains(&format!("lacks the rights of {missing}")),
            "{roles}: {error}"
        );
    }
    // Without a server, the error names its address.
    let unused = tests::proxy::unused_address().await;
    let mut serve = command(&env);
    serve
        .env(
            "DATABASE_URL",
            format!("postgres://reading_api@{unused}/reading"),
        )
        .env("ADMIN_ADDR", "127.0.0.1:0");
    let output = serve.arg("serve").output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains(&unused.to_string()) && error.contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn doctor_and_a_start_name_a_role_with_too_many_rights() {
    let app = App::start().await;
    let row = async |url: &str| {
        let mut doctor = command(&app.env);
        let output = doctor.env("DATABASE_URL", url).arg("doctor").output();
        let text = String::from_utf8(output.await.unwrap().stdout).unwrap();
        let mut rows = text.lines().map(str::to_owned);
        rows.find(|line| line.contains("Postgres roles")).unwrap()
    };
    let operator = row(&app.env.as_role(DatabaseRole::Operator).database_url).await;
    assert!(operator.starts_with("ok"), "{operator}");
    let superuser = row(&app.env.admin_url).await;
    assert!(
        superuser.starts_with("FAILURE") && superuser.contains("is a superuser"),
        "{superuser}"
    );

    let mut serve = command(&app.env);
    serve
        .env("DATABASE_URL", &app.env.admin_url)
        .env("ROLES", "relay")
        .env("ADMIN_ADDR", "127.0.0.1:0")
        .arg("serve")
        .stderr(Stdio::piped());
    let mut serve = serve.spawn().unwrap();
    let log = BufReader::new(serve.stderr.take().unwrap());
    let mut lines = log.lines();
    let warning = eventually("the warning", app::SETTLE, async || {
        let line = lines.next_line().await.unwrap().unwrap();
        line.contains("is a superuser").then_some(line)
    });
    assert!(warning.await.contains("WARN"));
    serve.kill().await.unwrap();
}
