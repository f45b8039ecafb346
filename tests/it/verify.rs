//! Verification compares the read tables and Redis with the log while the service
//! runs. It finds a single wrong value in any table.

use std::time::Duration;

use eventlog::load_state;
use futures::StreamExt;
use futures::stream;
use projections::OperationError;
use projections::verify::{self, Compared, scratch_schema};
use projections::worker::WorkerProgress;
use projections::zones::Zones;
use projections::{DailyStats, History, TableProjection, active_sessions, status};
use redis::AsyncCommands;
use rstest::rstest;
use serde_json::json;
use server::connect;
use sqlx::PgPool;
use tests::random_history::{write_random_histories, write_random_history};
use tests::reader::id;
use tests::stack::TestEnv;
use tests::{App, app, future_events, invariants, until};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// The connections of a verification.
fn pools<P: TableProjection>(env: &TestEnv) -> (PgPool, PgPool) {
    let database = app::settings(env, &[]).database;
    let live = connect::migrations_pool(&database).unwrap();
    let scratch = connect::replay_pool(&database, &scratch_schema(P::NAME)).unwrap();
    (live, scratch)
}

async fn verify_history(env: &TestEnv) -> Vec<Compared> {
    let (live, scratch) = pools::<History>(env);
    let progress = watch::Sender::new(WorkerProgress::default());
    let stop = CancellationToken::new();
    let verified = verify::history(&live, scratch, &Zones::built_in(), &progress, &stop).await;
    let (global_position, compared) = verified.unwrap();
    assert!(global_position > 0);
    compared
}

async fn verify_daily_stats(env: &TestEnv) -> Vec<Compared> {
    let (live, scratch) = pools::<DailyStats>(env);
    let progress = watch::Sender::new(WorkerProgress::default());
    let stop = CancellationToken::new();
    let verified =
        verify::tables::<DailyStats>(&live, scratch, &Zones::built_in(), &progress, &stop).await;
    let (global_position, compared) = verified.unwrap();
    assert!(global_position > 0);
    compared
}

async fn verify_cache(env: &TestEnv) -> Result<Compared, OperationError> {
    let settings = app::settings(env, &[]);
    let cache = connect::cache(&settings.redis).unwrap();
    let pool = connect::projections_pool(&settings.database).unwrap();
    active_sessions::check(&cache, &pool, &CancellationToken::new()).await
}

/// Verifies all projections.
pub(crate) async fn verify_all(env: &TestEnv) -> Vec<Compared> {
    let mut compared = verify_history(env).await;
    compared.extend(verify_daily_stats(env).await);
    compared.push(verify_cache(env).await.unwrap());
    compared
}

pub(crate) fn differing(compared: &[Compared]) -> Vec<(&str, u64)> {
    compared
        .iter()
        .filter(|compared| compared.differing > 0)
        .map(|compared| (compared.name.as_str(), compared.differing))
        .collect()
}

/// Starts a service and writes random histories and some active sessions. Most sessions
/// of the histories are in the past, so they are not active.
async fn start_with_histories() -> App {
    let app = App::start().await;
    app.settled().await;
    write_random_histories(&app, 1..10).await;
    for updates in 0..4 {
        let reader = app.reader();
        let session = id(&reader.start(Uuid::new_v4()).await.ok());
        for position in 0..updates {
            assert_eq!(
                reader.update(session, f64::from(position)).await.status,
                200
            );
        }
    }
    invariants::check(&app).await;
    app
}

#[tokio::test]
async fn verification_finds_no_differences_under_traffic() {
    let app = start_with_histories().await;
    let readers: Vec<_> = (20..60).map(|n| (app.reader(), n)).collect();
    let traffic = readers
        .into_iter()
        .map(|(reader, n)| write_random_history(reader, n));
    let traffic = tokio::spawn(
        stream::iter(traffic)
            .buffer_unordered(8)
            .collect::<Vec<()>>(),
    );
    let mut rounds = 0;
    while !traffic.is_finished() || rounds < 2 {
        let compared = verify_all(&app.env).await;
        assert_eq!(differing(&compared), [], "{compared:#?}");
        let names: Vec<&str> = compared.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "history",
                "history_totals",
                "claims",
                "sessions",
                "session_days",
                "days",
                "active_sessions"
            ]
        );
        assert!(compared.iter().all(|one| one.rows > 0), "{compared:#?}");
        rounds += 1;
    }
    println!("{rounds} rounds");
    traffic.await.unwrap();
    let schemas: Vec<String> =
        sqlx::query_scalar("select nspname::text from pg_namespace where nspname like 'verify%'")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    assert!(schemas.is_empty(), "{schemas:?}");
}

#[tokio::test]
async fn verification_waits_for_a_slow_commit() {
    let app = start_with_histories().await;
    let mut commit = app.pool.begin().await.unwrap();
    sqlx::query("select from checkpoints where projection = 'history' for update")
        .execute(&mut *commit)
        .await
        .unwrap();
    let env = app.env.clone();
    let verified = tokio::spawn(async move { verify_history(&env).await });
    // Wait until the verification has reached its lock timeout and waits again.
    let mut waits = std::collections::BTreeSet::new();
    until("a second wait for the lock", WAIT_TIMEOUT, async || {
        let waiting: Vec<String> = sqlx::query_scalar(
            "select query_start::text from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'
                and application_name = 'reading-sessions-migrations'",
        )
        .fetch_all(&app.pool)
        .await
        .unwrap();
        waits.extend(waiting);
        waits.len() >= 2
    })
    .await;
    commit.rollback().await.unwrap();
    assert_eq!(differing(&verified.await.unwrap()), []);
}

#[tokio::test]
async fn sessions_with_dead_letters_are_not_differences() {
    let app = start_with_histories().await;
    let mut readers = Vec::new();
    for reader_id in ["invalid", "00000000-0000-0000-0000-000000000001"] {
        let session = Uuid::now_v7();
        let payload = json!({ "reader_id": reader_id });
        future_events::write(&app.pool, session, "SessionStarted", "99", &payload).await;
        readers.push((reader_id, session));
    }
    sqlx::query("insert into claims values ($1::uuid, $2)")
        .bind(readers[1].0)
        .bind(readers[1].1.to_string())
        .execute(&app.pool)
        .await
        .unwrap();
    app.settled().await;
    assert_eq!(differing(&verify_all(&app.env).await), []);
    // Events that the projection has not reached are no differences either.
    assert!(status::pause(&app.pool, "history", true).await.unwrap());
    until("the paused worker stops", WAIT_TIMEOUT, async || {
        status::list(&app.pool).await.unwrap()[2].holder.is_none()
    })
    .await;
    future_events::write(
        &app.pool,
        Uuid::now_v7(),
        "SessionStarted",
        "99",
        &json!({}),
    )
    .await;
    assert_eq!(differing(&verify_history(&app.env).await), []);
}

/// Each table with a wrong, missing or additional row.
#[rstest]
#[case::history("update history set position = position + 1 where session_id = (select max(session_id) from history)", &[("history", 1)])]
#[case::history_lost("delete from history where session_id = (select max(session_id) from history)", &[("history", 1)])]
#[case::history_totals("update history_totals set sessions = sessions + 1", &[("history_totals", 0)])]
#[case::claims("delete from claims where reader_id = (select reader_id from claims limit 1)", &[("claims", 1)])]
#[case::claims_without_session("insert into claims values ('00000000-0000-0000-0000-000000000001', 'x')", &[("claims", 1)])]
#[case::session_days("update session_days set active = '{}' where (session_id, day) = (select session_id, day from session_days where not isempty(active) limit 1)", &[("session_days", 1)])]
#[case::session_days_without_events("insert into session_days values ('x', '2026-01-01', '00000000-0000-0000-0000-000000000001', 'UTC', '{}', now(), 1, null, null, null, 1, 0, false, false)", &[("session_days", 1)])]
#[case::days("update days set long_sessions = long_sessions + 1 where day = (select max(day) from days)", &[("days", 1)])]
#[tokio::test]
async fn wrong_row_is_reported_with_its_differences(
    #[case] corruption: &str,
    #[case] expected: &[(&str, u64)],
) {
    let app = start_with_histories().await;
    let changed = sqlx::query(corruption).execute(&app.pool).await.unwrap();
    let compared = verify_all(&app.env).await;
    let (name, count) = expected[0];
    // 0 means all changed rows.
    let count = if count == 0 {
        changed.rows_affected()
    } else {
        count
    };
    assert!(count > 0);
    assert_eq!(differing(&compared), [(name, count)]);
    let reported = compared.iter().find(|one| one.name == name).unwrap();
    assert_eq!(
        reported.first.len(),
        usize::try_from(count)
            .unwrap()
            .min(verify::MAX_DIFFERENCES_SHOWN)
    );
    assert!(
        reported.first.iter().all(|one| one.found != one.expected),
        "{reported:#?}"
    );
}

/// Commands load a session from three events. The second event is not one of them here, so
/// only a complete load finds that it is corrupt.
#[rstest]
#[case::undecodable("payload = '{}'")]
#[case::erased(
    "event_type = 'SessionErased', payload = json_build_object(
        'type', 'SessionErased', 'reader_id', payload ->> 'reader_id',
        'erased_at', payload ->> 'occurred_at'
    )"
)]
#[tokio::test]
async fn corrupt_event_makes_the_two_loads_of_a_session_differ(#[case] corruption: &str) {
    let app = start_with_histories().await;
    // The verification takes a random sample of events, so a session with many events is
    // in it.
    let session: String = sqlx::query_scalar(
        r#"select aggregate_id from events
        group by aggregate_id
        having bool_or(
            sequence > 2 and sequence < 6 and event_type = 'PositionUpdated'
            and payload::text !~ '"applied"\s*:\s*false'
        )
        order by count(*) desc
        limit 1"#,
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    let mut transaction = app.pool.begin().await.unwrap();
    for statement in [
        // Disables the triggers that forbid changes of events.
        "set local session_replication_role = replica".to_owned(),
        format!("update events set {corruption} where aggregate_id = '{session}' and sequence = 2"),
    ] {
        let changed = sqlx::query(&statement).execute(&mut *transaction);
        let _ = changed.await.unwrap();
    }
    transaction.commit().await.unwrap();
    let loaded = load_state::session(&app.pool, session.parse().unwrap()).await;
    assert!(loaded.unwrap().is_some(), "the three events are intact");

    let compared = verify_history(&app.env).await;
    let sessions = compared.iter().find(|one| one.name == "sessions").unwrap();
    assert_eq!(sessions.differing, 1, "{compared:#?}");
    let difference = &sessions.first[0];
    for side in [&difference.found, &difference.expected] {
        assert_eq!(side.as_ref().unwrap()["session_id"], session.as_str());
    }
    assert_ne!(difference.found, difference.expected);
}

#[tokio::test]
async fn rebuild_repairs_wrong_cache_entries_that_check_finds() {
    let app = start_with_histories().await;
    let settings = app::settings(&app.env, &[]);
    let cache = connect::cache(&settings.redis).unwrap();
    let pool = connect::projections_pool(&settings.database).unwrap();
    let (progress, stop) = (watch::Sender::default(), CancellationToken::new());
    app.warmed_up().await;
    // A session that became active again has no entry yet.
    let _ = active_sessions::warm_up(&cache, &pool, &progress, &stop)
        .await
        .unwrap();
    let redis = redis::Client::open(app.env.redis_url.as_str()).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    // Readers whose sessions have more events come first.
    let readers: Vec<Uuid> = sqlx::query_scalar(
        "select c.reader_id from claims as c join history using (session_id)
        order by version desc",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert!(readers.len() >= 3, "{readers:?}");
    // A session that becomes active by an update enters the cache when it is read.
    for reader in &readers {
        let _ = app.reader_with_id(*reader).active().await.ok();
    }
    let key = |reader: Uuid| format!("reading_session:active:{reader}");
    // The fields of the first line: version, session id, sequence, furthest position and
    // active time.
    let mut set = async |key: String, field: usize, value: String| {
        let entry: String = redis.get(&key).await.unwrap();
        let (head, rest) = entry.split_once('\n').unwrap();
        let mut fields: Vec<&str> = head.split(' ').collect();
        fields[field] = &value;
        let changed = format!("{}\n{rest}", fields.join(" "));
        let _: () = redis.set(key, changed).await.unwrap();
    };
    // A wrong value with the version of another session's event, an entry that misses
    // an event, and an entry of a reader without an active session.
    let head = eventlog::read::head(&app.pool).await.unwrap();
    set(key(readers[0]), 4, "123456789".to_owned()).await;
    set(key(readers[0]), 0, format!("{head:019}")).await;
    set(key(readers[1]), 2, "1".to_owned()).await;
    // A version above all events, which would block all updates of the entry.
    set(key(readers[2]), 0, format!("{:019}", 999_999_999)).await;
    let without_session = format!("{:019} x 1", 1);
    let _: () = redis
        .set(key(Uuid::new_v4()), without_session)
        .await
        .unwrap();
    let found = verify_cache(&app.env).await.unwrap();
    assert_eq!(found.differing, 4, "{found:#?}");

    let progress = watch::Sender::default();
    let rebuilt = active_sessions::rebuild(&cache, &pool, &progress, &stop)
        .await
        .unwrap();
    assert_eq!(rebuilt.sessions, readers.len() as u64);
    assert_eq!(rebuilt.removed, 4, "{rebuilt:?}");
    let found = verify_cache(&app.env).await.unwrap();
    assert_eq!(found.differing, 0, "{found:#?}");
    invariants::check(&app).await;
}
