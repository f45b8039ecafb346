//! Background jobs end idle sessions, remove old data and refill a lost cache. One
//! process at a time runs each job, and another one takes over after a kill.

mod retention;

use std::time::Duration;

use chrono::TimeDelta;
use eventlog::active_claims;
use eventlog::clock;
use futures::future::join_all;
use jobs::Job;
use jobs::store::{self, JobLease};
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Role;
use tests::app::{self, SETTLE};
use tests::process::{Process, command};
use tests::reader::{Reader, id};
use tests::{App, Stack, backdate, invariants, until};
use uuid::Uuid;

/// Longest time until a job starts and ends.
const JOB_TIMEOUT: Duration = Duration::from_secs(20);

/// Longer than the idle limit of two hours.
const IDLE_TIME: TimeDelta = TimeDelta::hours(3);

async fn get(app: &App, path: &str) -> Value {
    app.operator().call(Method::GET, path, None).await.ok()
}

/// Requests a run of a job, waits for it and returns its result.
pub async fn run(app: &App, job: &str) -> String {
    let status = async || {
        let jobs = get(app, "/jobs").await;
        let mut jobs = jobs["jobs"].as_array().unwrap().iter();
        jobs.find(|one| one["name"] == job).unwrap().clone()
    };
    until("the job is not running", JOB_TIMEOUT, async || {
        status().await["state"] == "waiting"
    })
    .await;
    let before = status().await["last"]["ended_at"].clone();
    let path = format!("/jobs/{job}/run");
    let accepted = app.operator().call(Method::POST, &path, None).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    until("the requested run has ended", JOB_TIMEOUT, async || {
        let now = status().await;
        now["state"] == "waiting" && now["last"]["ended_at"] != before
    })
    .await;
    let last = status().await["last"].clone();
    assert_eq!(last["failed"], false, "{last}");
    last["result"].as_str().unwrap().to_owned()
}

/// Starts a session five hours ago and reads for `minutes`.
async fn start_reading(app: &App, minutes: i64) -> (Reader, Uuid) {
    let reader = app.reader();
    let at = clock::now() - TimeDelta::hours(5);
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": at });
    let session = id(&reader.start_with(start).await.ok());
    for minute in 1..=minutes {
        let at = at + TimeDelta::minutes(minute);
        let update = json!({ "current_position": minute, "occurred_at": at });
        let _ = reader.update_with(session, update).await.ok();
    }
    (reader, session)
}

#[tokio::test]
async fn idle_session_ends_at_its_last_activity() {
    let app = App::start().await;
    let (idle, session) = start_reading(&app, 7).await;
    let (unread, unread_session) = start_reading(&app, 0).await;
    // This session was read hours ago, but its events arrived just now.
    let (synced, synced_session) = start_reading(&app, 3).await;
    backdate::shift_session(&app.pool, session, IDLE_TIME).await;
    backdate::shift_session(&app.pool, unread_session, IDLE_TIME).await;
    let cleanup = async || {
        let path = "/reading-sessions/cleanup";
        app.operator().call(Method::POST, path, None).await.ok()
    };
    let done = cleanup().await;
    // The scheduled job may have ended them already.
    assert!(done["closed_count"].as_i64().unwrap() <= 2, "{done}");
    assert_eq!(
        (&done["complete"], &done["error"]),
        (&json!(true), &Value::Null)
    );

    let ended = idle
        .call(Method::GET, &format!("/{session}"), None)
        .await
        .ok();
    assert_eq!(ended["end_reason"], "idle");
    assert_eq!(ended["ended_at"], ended["last_activity_at"]);
    assert_eq!(ended["end_position"], 7);
    assert_eq!(ended["active_seconds"], 7 * 60);
    assert_eq!(idle.active().await.ok(), Value::Null);
    assert_eq!(unread.active().await.ok(), Value::Null);
    assert_eq!(id(&synced.active().await.ok()), synced_session);
    let update = synced.update(synced_session, 50.0).await;
    assert_eq!(update.status, 200, "{}", update.body);

    let stats = get(&app, "/reading-sessions/cleanup-stats").await;
    assert_eq!(stats["total_closed"], 2);
    assert_eq!(stats["total_active"], 1);
    assert_eq!(stats["avg_duration_minutes"], 3.5);
    assert_eq!(stats["no_progress_count"], 1);
    // A second run finds no idle session.
    assert_eq!(cleanup().await["closed_count"], 0);
    invariants::check(&app).await;
}

#[tokio::test]
async fn session_with_an_event_after_the_scan_stays_active() {
    let app = App::start().await;
    // The run that is due at the start of the service must not interfere.
    run(&app, "idle_sessions").await;
    let settings = app::settings(&app.env, &[]);
    let server::app::Jobs { context, appender } = server::app::jobs(
        &settings.database,
        &settings.redis,
        &settings.rules,
        &settings.jobs,
    )
    .unwrap();
    let appender = tokio::spawn(appender);
    let (reader, session) = start_reading(&app, 1).await;
    backdate::shift_session(&app.pool, session, IDLE_TIME).await;
    let found = active_claims::idle(&app.pool, clock::now() - TimeDelta::hours(2), None, 10);
    let [idle] = found.await.unwrap()[..] else {
        panic!("one is idle")
    };
    let _ = reader.update(session, 9.0).await.ok();
    assert!(context.commands.end_idle(idle).await.unwrap().is_none());
    assert_eq!(id(&reader.active().await.ok()), session);

    // The job does not end a session that the reader has started since, either.
    let (reader, session) = start_reading(&app, 1).await;
    backdate::shift_session(&app.pool, session, IDLE_TIME).await;
    let found = active_claims::idle(&app.pool, clock::now() - TimeDelta::hours(2), None, 10);
    let [idle] = found.await.unwrap()[..] else {
        panic!("one is idle")
    };
    let next = id(&reader.start(Uuid::new_v4()).await.ok());
    assert!(context.commands.end_idle(idle).await.unwrap().is_none());
    assert_eq!(id(&reader.active().await.ok()), next);
    drop(context);
    appender.await.unwrap();
    invariants::check(&app).await;
}

#[tokio::test]
async fn concurrent_cleanups_and_updates_end_each_session_once() {
    let app = App::start().await;
    let other = app.alongside(&[Role::Jobs]).await;
    let sessions: Vec<_> = join_all((0..40).map(|_| start_reading(&app, 1))).await;
    for (_, session) in &sessions {
        backdate::shift_session(&app.pool, *session, IDLE_TIME).await;
    }
    let cleanups = async || {
        for app in [&app, &other] {
            let path = "/reading-sessions/cleanup";
            let _ = app.operator().call(Method::POST, path, None).await.ok();
        }
    };
    let updates = join_all(sessions[..20].iter().map(async |(reader, session)| {
        let response = reader.update(*session, 20.0).await;
        // The update or the cleanup may come first.
        assert!(
            response.status == 200 || response.status == 400,
            "{}",
            response.body
        );
        response.status == 200
    }));
    let (accepted, ()) = tokio::join!(updates, cleanups());
    app.settled().await;
    for (n, (_, session)) in sessions.iter().enumerate() {
        let ends: i64 = sqlx::query_scalar(
            "select count(*) from events
            where aggregate_id = $1 and event_type = 'SessionEnded'",
        )
        .bind(session.to_string())
        .fetch_one(&app.pool)
        .await
        .unwrap();
        let expected = i64::from(!accepted.get(n).copied().unwrap_or(false));
        assert_eq!(ends, expected, "session {n}");
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn job_of_a_killed_process_is_run_by_another_process() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let first = Process::start(&env).await;
    let pool = app::pool(&env).await;
    // The job waits for this table lock, so the process holds it until it is killed.
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("lock idempotency_keys in access exclusive mode")
        .execute(&mut *lock)
        .await
        .unwrap();
    let holder = async || -> Option<String> {
        let job = store::find(&pool, Job::IdempotencyKeys).await.unwrap();
        job.unwrap().holder
    };
    store::request(&pool, Job::IdempotencyKeys).await.unwrap();
    until("the first process holds the job", JOB_TIMEOUT, async || {
        holder().await.is_some()
    })
    .await;
    let killed = holder().await.unwrap();
    first.kill().await;
    lock.rollback().await.unwrap();
    let _second = Process::start(&env).await;
    // Expire the lease of the killed process now.
    sqlx::query("update jobs set held_until = now() where holder = $1")
        .bind(&killed)
        .execute(&pool)
        .await
        .unwrap();
    until(
        "the second process has run the job",
        JOB_TIMEOUT,
        async || {
            let done: bool = sqlx::query_scalar(
                "select ended_at is not null and holder is null from jobs
            where job = 'idempotency_keys'",
            )
            .fetch_one(&pool)
            .await
            .unwrap();
            done
        },
    )
    .await;
}

#[tokio::test]
async fn held_job_rejects_other_holders_and_runs_after_release() {
    let app = App::start().await;
    app.warmed_up().await;
    let mine = JobLease::take(&app.pool, Job::Retention, "me")
        .await
        .unwrap();
    let Some(mine) = mine else {
        // The service is running the job.
        return;
    };
    assert!(
        JobLease::take(&app.pool, Job::Retention, "other")
            .await
            .unwrap()
            .is_none()
    );
    assert!(mine.renew(1).await.unwrap());
    let busy = command(&app.env)
        .args(["jobs", "run", "retention"])
        .output()
        .await
        .unwrap();
    assert_eq!(busy.status.code(), Some(1));
    let error = String::from_utf8(busy.stderr).unwrap();
    assert!(
        error.contains("retention is already running in me"),
        "{error}"
    );
    mine.release().await.unwrap();
    // A released job that did not finish is due again.
    until("the service runs the job", JOB_TIMEOUT, async || {
        let job = store::find(&app.pool, Job::Retention)
            .await
            .unwrap()
            .unwrap();
        job.holder.is_none() && job.due_at.is_some_and(|due| due > clock::now())
    })
    .await;
}

#[tokio::test]
async fn idempotency_key_expires_after_seven_days() {
    let app = App::start().await;
    // The run that is due at the start of the service must not interfere.
    run(&app, "idempotency_keys").await;
    let reader = app.reader();
    let start = async |key: &'static str, book: Uuid| {
        let body = json!({ "book_id": book });
        let key = [("idempotency-key", key)];
        reader
            .call_with(Method::POST, "/start", &key, Some(body))
            .await
    };
    for key in ["old", "new"] {
        let _ = start(key, Uuid::new_v4()).await.ok();
    }
    sqlx::query(
        "update idempotency_keys set recorded_at = now() - interval '8 days' where key = 'old'",
    )
    .execute(&app.pool)
    .await
    .unwrap();
    assert_eq!(run(&app, "idempotency_keys").await, "1 keys deleted");
    // Another command with a stored key is rejected.
    let _ = start("new", Uuid::new_v4()).await.problem(422);
    let _ = start("old", Uuid::new_v4()).await.ok();
    assert_eq!(run(&app, "idempotency_keys").await, "0 keys deleted");
}

#[tokio::test]
async fn flushed_redis_is_refilled_automatically() {
    let app = App::start().await;
    let sessions = join_all((0..10).map(|_| start_reading(&app, 1))).await;
    app.settled().await;
    app.warmed_up().await;
    let redis = redis::Client::open(app.env.redis_url.as_str()).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.unwrap();
    until("all sessions are in Redis", SETTLE, async || {
        let keys: Vec<String> = redis::AsyncCommands::keys(&mut redis, "reading_session:active:*")
            .await
            .unwrap();
        keys.len() >= sessions.len()
    })
    .await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn command_line_lists_and_runs_jobs() {
    let app = App::start().await;
    let stdout = async |arguments: &[&str]| {
        let output = command(&app.env).args(arguments).output().await.unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{err}");
        String::from_utf8(output.stdout).unwrap()
    };
    // The run that is due at the start of the service must not interfere.
    let _ = run(&app, "statistics_window").await;
    let result = stdout(&["jobs", "run", "statistics_window"]).await;
    assert_eq!(
        result.trim(),
        "statistics_window: statistics are kept permanently"
    );
    let (_, session) = start_reading(&app, 1).await;
    backdate::shift_session(&app.pool, session, IDLE_TIME).await;
    // The command fails while the service runs the job, so it is repeated.
    until("the command runs the job", JOB_TIMEOUT, async || {
        let output = command(&app.env)
            .args(["jobs", "run", "idle_sessions"])
            .output();
        let output = output.await.unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        stdout.starts_with("idle_sessions: ") && output.status.success()
    })
    .await;
    let listed: Value = serde_json::from_str(&stdout(&["jobs", "-o", "json"]).await).unwrap();
    let names: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 7, "{names:?}");
    let table = stdout(&["jobs"]).await;
    assert!(table.contains("daily at 02:00 UTC"), "{table}");
    let warm = stdout(&["warm-up"]).await;
    assert!(warm.contains("active sessions in"), "{warm}");
    invariants::check(&app).await;
}
