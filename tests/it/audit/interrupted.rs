//! An action that does not end by itself gets an outcome too, unless its process is killed.

use std::sync::Arc;

use api::routes::admin::operation_queue::{Operation, OperationQueue, StartResult};
use api::routes::admin::recorded::RecordActions;
use eventlog::audit::{NewEntry, Origin};
use projections::operations::{Connections, ProjectionName, ProjectionOps};
use projections::zones::Zones;
use server::config::Role;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::*;

/// The outcome and the error of the only entry; `None` if there is none.
async fn outcome(pool: &PgPool) -> Option<(String, Option<String>)> {
    let found = sqlx::query_as("select outcome, error from audit");
    found.fetch_optional(pool).await.unwrap()
}

async fn is_started(pool: &PgPool) -> bool {
    outcome(pool)
        .await
        .is_some_and(|(outcome, _)| outcome == "started")
}

/// Sends a request in a task, and returns the task when the entry has begun.
async fn begin(app: &App, path: &'static str) -> tokio::task::JoinHandle<()> {
    let operator = app.operator();
    let call = tokio::spawn(async move {
        let _ = operator.call(Method::POST, path, None).await;
    });
    until("the action begins", SETTLE, async || {
        is_started(&app.pool).await
    })
    .await;
    call
}

#[tokio::test]
async fn action_continues_after_its_client_disconnects() {
    let app = App::start_roles(&[Role::Api]).await;
    let mut lock = app.pool.begin().await.unwrap();
    sqlx::query("select from projections for update")
        .execute(&mut *lock)
        .await
        .unwrap();
    begin(&app, "/projections/history/pause").await.abort();
    lock.rollback().await.unwrap();
    until("the action ends", 2 * SETTLE, async || {
        !is_started(&app.pool).await
    })
    .await;
    let paused: bool =
        sqlx::query_scalar("select paused from projections where projection = 'history'")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    // It fails if it waited for the lock longer than `lock_timeout`.
    let (outcome, error) = outcome(&app.pool).await.unwrap();
    assert_eq!(paused, outcome == "succeeded", "{error:?}");
}

#[tokio::test]
async fn action_that_a_shutdown_cuts_off_has_failed() {
    // No process runs the job, so the action waits for ten seconds.
    let app = App::start_roles(&[Role::Api]).await;
    begin(&app, "/reading-sessions/cleanup").await.abort();
    let pool = app.pool.clone();
    app.stop().await;
    let (outcome, error) = outcome(&pool).await.unwrap();
    assert_eq!(outcome, "failed");
    assert!(error.unwrap().starts_with("interrupted"));
}

#[tokio::test]
async fn operation_that_panics_has_failed() {
    let app = App::start_roles(&[Role::Relay]).await;
    let connections = Connections {
        migrations: Arc::new(|| panic!("out of luck")),
        projections: Arc::new(|| panic!("out of luck")),
        replay: Arc::new(|_| panic!("out of luck")),
        cache: Arc::new(|| panic!("out of luck")),
    };
    let ops = ProjectionOps::new(connections, Zones::built_in());
    let (queue, task) = OperationQueue::new(ops, CancellationToken::new());
    let task = tokio::spawn(task);
    let actions = RecordActions::new(app.pool.clone());
    let recorded = actions.begin(&verification()).await.unwrap();
    let started = queue.start(ProjectionName::History, Operation::Verify, Some(recorded));
    assert_eq!(started, StartResult::Started);
    until("the action ends", SETTLE, async || {
        !is_started(&app.pool).await
    })
    .await;
    let expected = ("failed".to_owned(), Some("the action panicked".to_owned()));
    assert_eq!(outcome(&app.pool).await, Some(expected));
    task.abort();
}

#[tokio::test]
async fn shutdown_waits_for_the_outcome_of_an_action_that_was_dropped() {
    let app = App::start_roles(&[Role::Relay]).await;
    let actions = RecordActions::new(app.pool.clone());
    drop(actions.begin(&verification()).await.unwrap());
    let stop = CancellationToken::new();
    stop.cancel();
    actions.finish(stop).await;
    let (outcome, error) = outcome(&app.pool).await.unwrap();
    assert_eq!(outcome, "failed");
    assert!(error.unwrap().starts_with("interrupted"));
}

fn verification() -> NewEntry<'static> {
    NewEntry {
        actor: "anna",
        origin: Origin::Http,
        action: Action::Verify.as_str(),
        target: Some("history"),
        details: json!({}),
    }
}

#[tokio::test]
async fn killed_action_has_an_entry_without_an_outcome() {
    let app = App::start().await;
    let operator = app.operator();
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let reading = app.read_history().await;
    let mut replay = command(&app.env)
        .args(["replay", "history"])
        .spawn()
        .unwrap();
    until("the replay has begun", 2 * SETTLE, async || {
        let projections = operator.call(Method::GET, "/projections", None).await.ok();
        let mut projections = projections["projections"].as_array().unwrap().iter();
        projections.any(|projection| projection["replay"]["running"] == true)
    })
    .await;
    replay.kill().await.unwrap();
    reading.rollback().await.unwrap();
    let [entry] = &entries(&operator).await[..] else {
        panic!("one entry");
    };
    assert_eq!(entry["action"], "replay");
    assert_eq!(entry["outcome"], "started");
    assert_eq!(entry["ended_at"], Value::Null);
}

/// The process is killed between the entry and the first erased session.
#[tokio::test]
async fn erasure_killed_after_its_entry_can_be_repeated() {
    let app = App::start().await;
    let operator = app.operator();
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let id = reader.id.to_string();
    let erase = || {
        let mut erase = command(&app.env);
        erase.args(["reader", "erase", &id, "--yes"]);
        erase
    };
    // An erasure needs this lock, as every append does.
    let mut lock = app.pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(7340001)")
        .execute(&mut *lock)
        .await
        .unwrap();
    let mut killed = erase().spawn().unwrap();
    until("the erasure waits", 2 * SETTLE, async || {
        is_erasing(&app.pool).await
    })
    .await;
    killed.kill().await.unwrap();
    until("Postgres has cancelled it", 2 * SETTLE, async || {
        !is_erasing(&app.pool).await
    })
    .await;
    lock.rollback().await.unwrap();
    assert!(reader.active().await.ok().is_object());
    assert!(is_started(&app.pool).await);

    let repeated = erase().output().await.unwrap();
    assert!(repeated.status.success(), "{repeated:?}");
    assert_eq!(reader.active().await.ok(), Value::Null);
    let outcomes: Vec<Value> = entries(&operator)
        .await
        .into_iter()
        .map(|entry| entry["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["succeeded", "started"]);
}

/// Whether a transaction of an erasure is in progress.
async fn is_erasing(pool: &PgPool) -> bool {
    sqlx::query_scalar(
        "select exists (
            select from pg_stat_activity
            where datname = current_database() and query like '%erase_reader_part%'
                and state = 'active' and pid <> pg_backend_pid()
        )",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}
