//! The service keeps itself in order: what is idle ends, what is old leaves, what
//! is lost comes back, and each job is run by one process at a time, however many
//! there are and whatever is killed.

mod retention;

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use eventlog::active_claims;
use futures::future::join_all;
use jobs::store::{self, Held};
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Role;
use server::{clock, roles};
use tests::app::{self, SETTLE, until};
use tests::process::{Process, command};
use tests::reader::{Reader, id};
use tests::{App, Stack, invariants, backdate};
use uuid::Uuid;

const LONG: TimeDelta = TimeDelta::hours(3);

async fn get(app: &App, path: &str) -> Value {
    app.operator().call(Method::GET, path, None).await.ok()
}

/// Has a job be run, and waits for that; returns what it came to.
async fn run(app: &App, job: &str) -> String {
    let standing = async || {
        let jobs = get(app, "/jobs").await;
        let mut jobs = jobs["jobs"].as_array().unwrap().iter();
        jobs.find(|one| one["name"] == job).unwrap().clone()
    };
    until("nobody runs it", async || {
        standing().await["state"] == "waiting"
    })
    .await;
    let before = standing().await["last"]["ended_at"].clone();
    let path = format!("/jobs/{job}/run");
    let asked = app.operator().call(Method::POST, &path, None).await;
    assert_eq!(asked.status, 202, "{}", asked.body);
    until("it is run", async || {
        let now = standing().await;
        now["state"] == "waiting" && now["last"]["ended_at"] != before
    })
    .await;
    let last = standing().await["last"].clone();
    assert_eq!(last["failed"], false, "{last}");
    last["result"].as_str().unwrap().to_owned()
}

async fn reading(app: &App, minutes: i64) -> (Reader, Uuid) {
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
async fn a_session_of_which_nothing_was_heard_ends_where_it_was() {
    let app = App::start().await;
    let (idle, session) = reading(&app, 7).await;
    let (unread, unread_session) = reading(&app, 0).await;
    // Read hours ago, and told of just now: its app goes on to tell.
    let (synced, going_on) = reading(&app, 3).await;
    backdate::shift_session(&app.pool, session, LONG).await;
    backdate::shift_session(&app.pool, unread_session, LONG).await;
    let cleanup = async || {
        let path = "/reading-sessions/cleanup";
        app.operator().call(Method::POST, path, None).await.ok()
    };
    let done = cleanup().await;
    // The job itself may have been faster.
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
    assert_eq!(id(&synced.active().await.ok()), going_on);
    let update = synced.update(going_on, 50.0).await;
    assert_eq!(update.status, 200, "{}", update.body);

    let stats = get(&app, "/reading-sessions/cleanup-stats").await;
    assert_eq!(stats["total_closed"], 2);
    assert_eq!(stats["total_active"], 1);
    assert_eq!(stats["avg_duration_minutes"], 3.5);
    assert_eq!(stats["no_progress_count"], 1);
    // A second time there is nothing to do.
    assert_eq!(cleanup().await["closed_count"], 0);
    invariants::check(&app).await;
}

#[tokio::test]
async fn a_session_that_is_read_on_meanwhile_is_left_alone() {
    let app = App::start().await;
    // The service's own look, which is due at its start, is over.
    run(&app, "idle_sessions").await;
    let settings = app::settings(&app.env, &[]);
    let (tools, writer) = roles::tools(
        &settings.database,
        &settings.redis,
        &settings.rules,
        &settings.upkeep,
    )
    .unwrap();
    let writer = tokio::spawn(writer);
    let (reader, session) = reading(&app, 1).await;
    backdate::shift_session(&app.pool, session, LONG).await;
    let found = claims::idle(&app.pool, clock::now() - TimeDelta::hours(2), None, 10);
    let [idle] = found.await.unwrap()[..] else {
        panic!("one is idle")
    };
    let _ = reader.update(session, 9.0).await.ok();
    assert!(tools.sessions.end_idle(idle).await.unwrap().is_none());
    assert_eq!(id(&reader.active().await.ok()), session);

    // Nor is another one that the reader has begun since.
    let (reader, session) = reading(&app, 1).await;
    backdate::shift_session(&app.pool, session, LONG).await;
    let found = claims::idle(&app.pool, clock::now() - TimeDelta::hours(2), None, 10);
    let [idle] = found.await.unwrap()[..] else {
        panic!("one is idle")
    };
    let next = id(&reader.start(Uuid::new_v4()).await.ok());
    assert!(tools.sessions.end_idle(idle).await.unwrap().is_none());
    assert_eq!(id(&reader.active().await.ok()), next);
    drop(tools);
    writer.await.unwrap();
    invariants::check(&app).await;
}

#[tokio::test]
async fn two_processes_and_readers_who_go_on_end_each_session_once() {
    let app = App::start().await;
    let other = app.alongside(&[Role::Maintenance]).await;
    let sessions: Vec<_> = join_all((0..40).map(|_| reading(&app, 1))).await;
    for (_, session) in &sessions {
        backdate::shift_session(&app.pool, *session, LONG).await;
    }
    let upkeep = async || {
        for app in [&app, &other] {
            let path = "/reading-sessions/cleanup";
            let _ = app.operator().call(Method::POST, path, None).await.ok();
        }
    };
    let read_on = join_all(sessions[..20].iter().map(async |(reader, session)| {
        let answer = reader.update(*session, 20.0).await;
        // It was faster, or not.
        assert!(
            answer.status == 200 || answer.status == 400,
            "{}",
            answer.body
        );
        answer.status == 200
    }));
    let (went_on, ()) = tokio::join!(read_on, upkeep());
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
        let expected = i64::from(!went_on.get(n).copied().unwrap_or(false));
        assert_eq!(ends, expected, "session {n}");
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn a_job_whose_process_was_killed_is_run_by_another() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let first = Process::start(&env).await;
    let pool = app::pool(&env).await;
    // It holds the job until it is killed: what it does waits for a lock.
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("lock idempotency_keys in access exclusive mode")
        .execute(&mut *lock)
        .await
        .unwrap();
    let holder = async || -> Option<String> {
        let jobs = upkeep::list(&pool).await.unwrap();
        let mut jobs = jobs.into_iter();
        let job = jobs.find(|one| one.job == "idempotency_keys").unwrap();
        job.holder
    };
    upkeep::ask(&pool, "idempotency_keys").await.unwrap();
    until("the first has it", async || holder().await.is_some()).await;
    let killed = holder().await.unwrap();
    first.kill().await;
    lock.rollback().await.unwrap();
    let _second = Process::start(&env).await;
    // Its time is over sooner than it would be.
    sqlx::query("update jobs set held_until = now() where holder = $1")
        .bind(&killed)
        .execute(&pool)
        .await
        .unwrap();
    until("the second has done it", async || {
        let done: bool = sqlx::query_scalar(
            "select ended_at is not null and holder is null from jobs
            where job = 'idempotency_keys'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        done
    })
    .await;
}

#[tokio::test]
async fn a_job_is_held_by_one_who_says_so() {
    let app = App::start().await;
    app.warmed_up().await;
    let mine = Held::take(&app.pool, "retention", "me").await.unwrap();
    let Some(mine) = mine else {
        // The service was at it.
        return;
    };
    assert!(
        Held::take(&app.pool, "retention", "other")
            .await
            .unwrap()
            .is_none()
    );
    assert!(mine.renew(1).await.unwrap());
    let busy = command(&app.env)
        .args(["upkeep", "run", "retention"])
        .output()
        .await
        .unwrap();
    assert_eq!(busy.status.code(), Some(1));
    let said = String::from_utf8(busy.stderr).unwrap();
    assert!(said.contains("retention is being run by me"), "{said}");
    mine.give_back().await.unwrap();
    // What nobody came to the end of is due again.
    until("the service does it", async || {
        let jobs = upkeep::list(&app.pool).await.unwrap();
        let mut jobs = jobs.into_iter();
        let job = jobs.find(|one| one.job == "retention").unwrap();
        job.holder.is_none() && job.due_at.is_some_and(|due| due > clock::now())
    })
    .await;
}

#[tokio::test]
async fn an_old_idempotency_key_is_forgotten_and_a_new_one_is_not() {
    let app = App::start().await;
    // What is due at the start of the service is over.
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
    assert_eq!(run(&app, "idempotency_keys").await, "1 keys forgotten");
    // Another command under the same key.
    let _ = start("new", Uuid::new_v4()).await.problem(422);
    let _ = start("old", Uuid::new_v4()).await.ok();
    assert_eq!(run(&app, "idempotency_keys").await, "0 keys forgotten");
}

#[tokio::test]
async fn an_emptied_redis_is_filled_by_itself() {
    let app = App::start().await;
    let sessions = join_all((0..10).map(|_| reading(&app, 1))).await;
    app.settled().await;
    app.warmed_up().await;
    let redis = redis::Client::open(app.env.redis_url.as_str()).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.unwrap();
    let mut filled = 0;
    let started = Instant::now();
    while filled < sessions.len() {
        assert!(started.elapsed() < SETTLE, "{filled} are filled");
        let keys: Vec<String> = redis::AsyncCommands::keys(&mut redis, "reading_session:active:*")
            .await
            .unwrap();
        filled = keys.len();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn operators_see_jobs_and_run_them_on_the_command_line() {
    let app = App::start().await;
    let said = async |arguments: &[&str]| {
        let output = command(&app.env).args(arguments).output().await.unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{err}");
        String::from_utf8(output.stdout).unwrap()
    };
    // The service is at it when it starts.
    let _ = run(&app, "statistics_window").await;
    let done = said(&["upkeep", "run", "statistics_window"]).await;
    assert_eq!(
        done.trim(),
        "statistics_window: statistics are kept for ever"
    );
    let (_, session) = reading(&app, 1).await;
    backdate::shift_session(&app.pool, session, LONG).await;
    // The service may be at it; then it is asked again.
    until("it is ended", async || {
        let output = command(&app.env)
            .args(["upkeep", "run", "idle_sessions"])
            .output();
        let output = output.await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        said.starts_with("idle_sessions: ") && output.status.success()
    })
    .await;
    let listed: Value = serde_json::from_str(&said(&["upkeep", "-o", "json"]).await).unwrap();
    let names: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 7, "{names:?}");
    let table = said(&["upkeep"]).await;
    assert!(table.contains("daily at 02:00 UTC"), "{table}");
    let warm = said(&["warmup"]).await;
    assert!(warm.contains("active sessions in"), "{warm}");
    invariants::check(&app).await;
}
