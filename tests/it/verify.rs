//! Whether the read side equals the log can be asked at any time, and a single
//! wrong value in any table is found.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use projections::replay::ReplayError;
use projections::runtime::Progress;
use projections::verify::{self, Compared, schema_of};
use projections::{DailyStats, History, InTables, active_sessions, status};
use rstest::rstest;
use serde_json::json;
use services::connect;
use tests::stack::Corner;
use tests::traffic::{all_live_a_little, live_a_little};
use tests::{App, app, check, unknown};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

async fn tables<P: InTables>(corner: &Corner) -> Vec<Compared> {
    let database = app::settings(corner, &[]).database;
    let live = connect::maintenance_pool(&database).unwrap();
    let scratch = connect::replay_pool(&database, &schema_of(P::NAME)).unwrap();
    let progress = watch::Sender::new(Progress::default());
    let go = CancellationToken::new();
    let (position, compared) = verify::tables::<P>(&live, scratch, &progress, &go)
        .await
        .unwrap();
    assert!(position > 0);
    compared
}

async fn cache(corner: &Corner) -> Result<Compared, ReplayError> {
    let settings = app::settings(corner, &[]);
    let cache = connect::cache(&settings.redis).unwrap();
    let pool = connect::projections_pool(&settings.database).unwrap();
    active_sessions::check(&cache, &pool, &CancellationToken::new()).await
}

/// Everything that can be verified: name, rows, differences.
async fn all(corner: &Corner) -> Vec<Compared> {
    let mut all = tables::<History>(corner).await;
    all.extend(tables::<DailyStats>(corner).await);
    all.push(cache(corner).await.unwrap());
    all
}

fn differing(compared: &[Compared]) -> Vec<(&str, u64)> {
    compared
        .iter()
        .filter(|compared| compared.differing > 0)
        .map(|compared| (compared.name.as_str(), compared.differing))
        .collect()
}

async fn lived() -> App {
    let app = App::start().await;
    app.settled().await;
    all_live_a_little(&app, 1..10).await;
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    check::everything(&app).await;
    app
}

#[tokio::test]
async fn what_is_right_is_found_right_while_traffic_goes_on() {
    let app = lived().await;
    let readers: Vec<_> = (20..60).map(|n| (app.reader(), n)).collect();
    let traffic = readers
        .into_iter()
        .map(|(reader, n)| live_a_little(reader, n));
    let traffic = tokio::spawn(
        stream::iter(traffic)
            .buffer_unordered(8)
            .collect::<Vec<()>>(),
    );
    let mut rounds = 0;
    while !traffic.is_finished() || rounds < 2 {
        let compared = all(&app.corner).await;
        assert_eq!(differing(&compared), [], "{compared:#?}");
        let names: Vec<&str> = compared.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "history",
                "history_totals",
                "claims",
                "reader_days",
                "reader_hours",
                "days",
                "active_sessions"
            ]
        );
        assert!(compared.iter().all(|one| one.rows > 0), "{compared:#?}");
        rounds += 1;
    }
    println!("{rounds} rounds");
    traffic.await.unwrap();
    let left: Vec<String> =
        sqlx::query_scalar("select nspname::text from pg_namespace where nspname like 'verify%'")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_step_that_takes_its_time_is_waited_for() {
    let app = lived().await;
    let mut step = app.pool.begin().await.unwrap();
    sqlx::query("select from checkpoints where projection = 'history' for update")
        .execute(&mut *step)
        .await
        .unwrap();
    let corner = app.corner.clone();
    let verified = tokio::spawn(async move { tables::<History>(&corner).await });
    // Until its lock has timed out, and it waits again.
    let mut waits = std::collections::BTreeSet::new();
    let since = Instant::now();
    while waits.len() < 2 {
        let waiting: Vec<String> = sqlx::query_scalar(
            "select query_start::text from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'
                and application_name = 'reading-sessions-maintenance'",
        )
        .fetch_all(&app.pool)
        .await
        .unwrap();
        waits.extend(waiting);
        assert!(since.elapsed() < Duration::from_secs(20), "{waits:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    step.rollback().await.unwrap();
    assert_eq!(differing(&verified.await.unwrap()), []);
}

#[tokio::test]
async fn sessions_with_dead_letters_are_no_differences() {
    let app = lived().await;
    let mut readers = Vec::new();
    for reader_id in ["nobody", "00000000-0000-0000-0000-000000000001"] {
        let session = Uuid::now_v7();
        let payload = json!({ "reader_id": reader_id });
        unknown::write(&app.pool, session, "SessionStarted", "99", &payload).await;
        readers.push((reader_id, session));
    }
    sqlx::query("insert into claims values ($1::uuid, $2)")
        .bind(readers[1].0)
        .bind(readers[1].1.to_string())
        .execute(&app.pool)
        .await
        .unwrap();
    app.settled().await;
    assert_eq!(differing(&all(&app.corner).await), []);
    // Nor while the projection has not come to them.
    assert!(status::pause(&app.pool, "history", true).await.unwrap());
    let since = Instant::now();
    while status::list(&app.pool).await.unwrap()[2].holder.is_some() {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "it is not given up"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    unknown::write(
        &app.pool,
        Uuid::now_v7(),
        "SessionStarted",
        "99",
        &json!({}),
    )
    .await;
    assert_eq!(differing(&tables::<History>(&app.corner).await), []);
}

/// A row that is wrong, missing or too many, in each table.
#[rstest]
#[case::history("update history set position = position + 1 where session_id = (select max(session_id) from history)", &[("history", 1)])]
#[case::history_lost("delete from history where session_id = (select max(session_id) from history)", &[("history", 1)])]
#[case::history_totals("update history_totals set sessions = sessions + 1", &[("history_totals", 0)])]
#[case::claims("delete from claims where reader_id = (select reader_id from claims limit 1)", &[("claims", 1)])]
#[case::claims_of_nobody("insert into claims values ('00000000-0000-0000-0000-000000000001', 'x')", &[("claims", 1)])]
#[case::reader_days("update reader_days set active_ms = active_ms - 1 where (reader_id, day) = (select reader_id, day from reader_days limit 1)", &[("reader_days", 1)])]
#[case::reader_hours("insert into reader_hours values ('00000000-0000-0000-0000-000000000001', '2026-01-01', 3, 1, 1)", &[("reader_hours", 1)])]
#[case::days("update days set long_sessions = long_sessions + 1 where day = (select max(day) from days)", &[("days", 1)])]
#[tokio::test]
async fn a_wrong_row_is_found_and_told(#[case] corruption: &str, #[case] expected: &[(&str, u64)]) {
    let app = lived().await;
    let changed = sqlx::query(corruption).execute(&app.pool).await.unwrap();
    let compared = all(&app.corner).await;
    let (name, count) = expected[0];
    // 0: all that were changed.
    let count = if count == 0 {
        changed.rows_affected()
    } else {
        count
    };
    assert!(count > 0);
    assert_eq!(differing(&compared), [(name, count)]);
    let told = compared.iter().find(|one| one.name == name).unwrap();
    assert_eq!(
        told.first.len(),
        usize::try_from(count).unwrap().min(verify::TOLD)
    );
    assert!(
        told.first.iter().all(|one| one.found != one.expected),
        "{told:#?}"
    );
}

#[tokio::test]
async fn a_wrong_entry_of_the_cache_is_found_and_a_rebuild_mends_it() {
    let app = lived().await;
    let redis = redis::Client::open(app.corner.redis_url.as_str()).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    // Those with more events than one come first.
    let readers: Vec<Uuid> = sqlx::query_scalar(
        "select c.reader_id from claims as c join history using (session_id)
        order by version desc",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert!(readers.len() >= 3, "{readers:?}");
    let key = |reader: Uuid| format!("reading_session:active:{reader}");
    let mut set = async |key: String, field: &str, value: &str| {
        let _: () = redis::cmd("HSET")
            .arg(key)
            .arg(field)
            .arg(value)
            .query_async(&mut redis)
            .await
            .unwrap();
    };
    // A wrong value, with a version that an event of another session has; an
    // event too few, and a reader who reads nothing.
    let head = eventlog::read::head(&app.pool).await.unwrap().to_string();
    set(key(readers[0]), "active_ms", "123456789").await;
    set(key(readers[0]), "version", &head).await;
    set(key(readers[1]), "sequence", "1").await;
    let nobody = key(Uuid::new_v4());
    for (field, value) in [("version", "1"), ("id", "x"), ("sequence", "1")] {
        set(nobody.clone(), field, value).await;
    }
    // And a version that no event has, which would keep all events out.
    set(key(readers[2]), "version", "999999999").await;
    let found = cache(&app.corner).await.unwrap();
    assert_eq!(found.differing, 4, "{found:#?}");

    let settings = app::settings(&app.corner, &[]);
    app.warmed_up().await;
    let rebuilt = active_sessions::rebuild(
        &connect::cache(&settings.redis).unwrap(),
        &connect::projections_pool(&settings.database).unwrap(),
        &watch::Sender::default(),
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    assert_eq!(rebuilt.sessions, readers.len() as u64);
    assert_eq!(rebuilt.removed, 4, "{rebuilt:?}");
    let found = cache(&app.corner).await.unwrap();
    assert_eq!(found.differing, 0, "{found:#?}");
    check::everything(&app).await;
}
