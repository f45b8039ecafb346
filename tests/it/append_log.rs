//! The log is append-only and has one order. A command that fails does not affect
//! the other commands of its batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cqrs_es::persist::PersistedEventStore;
use cqrs_es::{AggregateError, CqrsFramework};
use domain::clock::Occurrence;
use domain::event::SessionStarted;
use domain::session::{CompleteSession, Rules};
use domain::{
    Position, ReaderId, SessionCommand, SessionEvent, SessionId, Standing, StartSession,
    UpdatePosition, ZoneName,
};
use eventlog::append::{ActiveClaimChange, Append, KeyedResponse, NewEvent};
use eventlog::commit_feed;
use eventlog::cqrs_es::CqrsEventRepository;
use eventlog::{AppendError, Appender, read};
use futures::future::join_all;
use sqlx::PgPool;
use tests::proxy::Proxy;
use tests::{Stack, app, invariants, scaled, until};
use uuid::Uuid;

async fn log() -> (PgPool, Appender) {
    let env = Stack::shared().await.new_env().await;
    let pool = app::pool(&env).await;
    let (appender, task) = Appender::new(pool.clone(), commit_feed::channel().0, |_| {});
    tokio::spawn(task);
    (pool, appender)
}

fn started(id: SessionId, sequence: i64, title: &str) -> NewEvent {
    let event = SessionEvent::SessionStarted(SessionStarted {
        reader_id: ReaderId::from(Uuid::new_v4()),
        book_id: Uuid::new_v4().into(),
        started_at: eventlog::clock::now(),
        position: Position::START,
        device_time: None,
        device_type: None,
        device_id: None,
        time_zone: ZoneName::default(),
        locator: Some(title.to_owned()),
        book: None,
        end_reason: None,
    });
    NewEvent {
        session_id: id,
        sequence,
        event,
        metadata: "{}".to_owned(),
    }
}

fn new_id() -> SessionId {
    SessionId::new(eventlog::clock::now())
}

fn events(events: Vec<NewEvent>) -> Append {
    Append {
        events,
        ..Append::default()
    }
}

#[tokio::test]
async fn conflict_fails_only_its_own_command() {
    let (pool, appender) = log().await;
    let taken = new_id();
    appender
        .append(events(vec![started(taken, 1, "first")]))
        .await
        .unwrap();

    // Append concurrently, so that the appends share batches.
    let appends = (0..50).map(|n| {
        let appender = appender.clone();
        let events = if n % 5 == 0 {
            // The second event conflicts, so neither is written.
            events(vec![
                started(new_id(), 1, "torn"),
                started(taken, 1, "torn"),
            ])
        } else {
            events(vec![started(new_id(), 1, "good")])
        };
        async move { (n, appender.append(events).await) }
    });
    for (n, result) in join_all(appends).await {
        if n % 5 == 0 {
            assert_eq!(result, Err(AppendError::Conflict), "{n}");
        } else {
            assert_eq!(result.unwrap().len(), 1, "{n}");
        }
    }
    let log = invariants::read_log(&pool).await;
    invariants::sequences_have_no_gaps(&log);
    assert_eq!(log.len(), 41);
    assert!(log.iter().all(|event| !event.payload.contains("torn")));
}

#[tokio::test]
async fn whole_sessions_are_appended_together() {
    let (pool, appender) = log().await;
    // More events than a batch holds.
    let appends = (0..40).map(|_| {
        let appender = appender.clone();
        let id = new_id();
        let session = (1..=502).map(|sequence| started(id, sequence, "x"));
        let session = events(session.collect());
        async move { appender.append(session).await }
    });
    let mut all = Vec::new();
    for result in join_all(appends).await {
        let global_positions = result.unwrap();
        assert_eq!(global_positions.len(), 502);
        assert!(global_positions.is_sorted());
        all.extend(global_positions);
    }
    // In the order of the queue.
    assert!(all.is_sorted());
    let log = invariants::read_log(&pool).await;
    assert_eq!(log.len(), 40 * 502);
    invariants::sequences_have_no_gaps(&log);
}

#[tokio::test]
async fn event_that_postgres_rejects_fails_alone() {
    let (pool, appender) = log().await;
    // There is no partition for the year 2100.
    let no_partition: SessionId = "03bb2cc3-d800-7000-8000-000000000000".parse().unwrap();
    let appends = (0..20).map(|n| {
        let appender = appender.clone();
        let id = if n == 7 { no_partition } else { new_id() };
        async move { appender.append(events(vec![started(id, 1, "x")])).await }
    });
    let results = join_all(appends).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 19);
    assert_eq!(results[7], Err(AppendError::Unavailable));
    assert_eq!(invariants::read_log(&pool).await.len(), 19);
}

#[tokio::test]
async fn unreachable_postgres_fails_all_waiting_appends_together() {
    let connect_timeout = Duration::from_secs(1);
    // Nothing listens on this port.
    let port = tests::proxy::unused_address().await.port();
    let pool = sqlx::postgres::PgPoolOptions::new()
        .acquire_timeout(connect_timeout)
        .connect_lazy(&format!("postgres://user@127.0.0.1:{port}/none"))
        .unwrap();
    let (appender, task) = Appender::new(pool, commit_feed::channel().0, |_| {});
    tokio::spawn(task);
    let started_at = Instant::now();
    // Far more than a batch holds.
    let appends = (0..3_000).map(|_| {
        let appender = appender.clone();
        async move {
            appender
                .append(events(vec![started(new_id(), 1, "x")]))
                .await
        }
    });
    for result in join_all(appends).await {
        assert_eq!(result, Err(AppendError::Unavailable));
    }
    assert!(
        started_at.elapsed() < scaled(4 * connect_timeout),
        "{:?}",
        started_at.elapsed()
    );
}

#[tokio::test]
async fn silent_connection_blocks_the_appender_only_for_seconds() {
    let env = Stack::shared().await.new_env().await;
    let pool = app::pool(&env).await;
    let wire = Proxy::start(&env.database_url).await;
    let through = sqlx::PgPool::connect(&wire.url).await.unwrap();
    let (appender, task) = Appender::new(through, commit_feed::channel().0, |_| {});
    tokio::spawn(task);
    let append = || appender.append(events(vec![started(new_id(), 1, "x")]));
    assert!(append().await.is_ok());

    wire.cut();
    let result = tokio::time::timeout(scaled(app::SETTLE), append()).await;
    assert_eq!(result, Ok(Err(AppendError::Unknown)));
    wire.restore();
    assert!(append().await.is_ok());
    assert_eq!(invariants::read_log(&pool).await.len(), 2);
}

#[tokio::test]
async fn append_with_outdated_claim_conflicts() {
    let (pool, appender) = log().await;
    let reader_id = ReaderId::from(Uuid::new_v4());
    let claim = async |expected, next| {
        let append = Append {
            events: vec![started(new_id(), 1, "x")],
            claim: Some(ActiveClaimChange {
                reader_id,
                expected,
                next,
                expected_newest: None,
                next_newest: None,
            }),
            ..Append::default()
        };
        appender.append(append).await.map(|_| ())
    };
    let (a, b) = (new_id(), new_id());
    assert_eq!(claim(Some(a), Some(b)).await, Err(AppendError::Conflict));
    assert_eq!(claim(None, Some(a)).await, Ok(()));
    assert_eq!(claim(None, Some(b)).await, Err(AppendError::Conflict));
    assert_eq!(claim(Some(a), Some(b)).await, Ok(()));
    let active = async || {
        let activity = eventlog::active_claims::reader_activity(&pool, reader_id).await;
        activity.unwrap().active
    };
    assert_eq!(active().await, Some(b));
    assert_eq!(claim(Some(b), None).await, Ok(()));
    assert_eq!(active().await, None);
    assert_eq!(invariants::read_log(&pool).await.len(), 3);
}

#[tokio::test]
async fn idempotency_key_is_accepted_once() {
    let (pool, appender) = log().await;
    let reader_id = ReaderId::from(Uuid::new_v4());
    let appends = (0..20).map(|n| {
        let append = Append {
            events: vec![started(new_id(), 1, "x")],
            response: Some(KeyedResponse {
                reader_id,
                key: "same".to_owned(),
                fingerprint: vec![1, 2, 3],
                response: format!("{{\"n\": {n}}}"),
            }),
            ..Append::default()
        };
        let appender = appender.clone();
        async move { appender.append(append).await }
    });
    let results = join_all(appends).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(invariants::read_log(&pool).await.len(), 1);
}

#[tokio::test]
async fn events_cannot_be_updated_or_deleted() {
    let (pool, appender) = log().await;
    appender
        .append(events(vec![started(new_id(), 1, "kept")]))
        .await
        .unwrap();
    let partition: String = sqlx::query_scalar("select tableoid::regclass::text from events")
        .fetch_one(&pool)
        .await
        .unwrap();
    for table in ["events", &partition] {
        for statement in [
            format!("update {table} set payload = '{{}}'"),
            format!("delete from {table}"),
            format!("truncate {table}"),
        ] {
            let error = sqlx::query(&statement).execute(&pool).await.unwrap_err();
            assert!(
                error.to_string().contains("append-only"),
                "{statement}: {error}"
            );
        }
    }
    assert_eq!(invariants::read_log(&pool).await.len(), 1);
}

/// For writers that bypass the appender, such as postgres-es, the table's trigger
/// takes the order lock before it draws a global position. So a global position
/// becomes visible only after all lower ones.
#[tokio::test]
async fn visible_global_position_implies_all_lower_ones() {
    let (pool, _) = log().await;
    let insert = "insert into events (aggregate_id, sequence, aggregate_type, event_type,
        event_version, payload, metadata)
        values ($1, 1, 'reading_session', 'X', '1', '{}', '{}') returning global_position";
    let mut slow = pool.begin().await.unwrap();
    let first: i64 = sqlx::query_scalar(insert)
        .bind(new_id().to_string())
        .fetch_one(&mut *slow)
        .await
        .unwrap();
    let second = tokio::spawn({
        let pool = pool.clone();
        async move {
            sqlx::query_scalar::<_, i64>(insert)
                .bind(new_id().to_string())
                .fetch_one(&pool)
                .await
                .unwrap()
        }
    });
    // The second writer waits for the lock, and has drawn no global position yet.
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted
        and database = (select oid from pg_database where datname = current_database())";
    until(
        "the second writer waits for the lock",
        app::SETTLE,
        async || {
            let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&pool).await.unwrap();
            waiting > 0
        },
    )
    .await;
    let drawn: i64 = sqlx::query_scalar("select last_value from events_global_position")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(drawn, first);
    assert_eq!(read::head(&pool).await.unwrap(), 0);
    slow.commit().await.unwrap();
    assert_eq!(second.await.unwrap(), first + 1);
}

/// The framework of cqrs-es runs on the log: it loads through postgres-es, appends
/// through the group commit, and reports a conflict as its own conflict error.
#[tokio::test]
async fn cqrs_es_framework_runs_on_the_log() {
    let (pool, appender) = log().await;
    let framework = || {
        let repository = CqrsEventRepository::new(pool.clone(), appender.clone());
        let store = PersistedEventStore::<_, CompleteSession>::new_event_store(repository);
        CqrsFramework::new(store, vec![], Rules::default())
    };
    let now = eventlog::clock::now();
    let occurred = Occurrence::untimed(now);
    let id = new_id().to_string();
    let start = SessionCommand::Start(StartSession {
        reader_id: Uuid::new_v4().into(),
        book_id: Uuid::new_v4().into(),
        position: Position::START,
        device_type: None,
        device_id: None,
        time_zone: None,
        locator: None,
        book: None,
        occurred,
        standing: Standing::Active,
    });
    let update = SessionCommand::UpdatePosition(UpdatePosition {
        position: Position::new(7.0).unwrap(),
        locator: None,
        occurred,
        standing: Standing::Active,
    });
    framework().execute(&id, start).await.unwrap();
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let updates = (0..2).map(|_| {
        let (framework, both, id, update) = (framework(), Arc::clone(&both), &id, update.clone());
        async move {
            both.wait().await;
            framework.execute(id, update).await
        }
    });
    let mut accepted = 0;
    for result in join_all(updates).await {
        match result {
            Ok(()) => accepted += 1,
            Err(AggregateError::AggregateConflict) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(accepted >= 1);
    let log = invariants::read_log(&pool).await;
    invariants::sequences_have_no_gaps(&log);
    assert_eq!(log.len(), 1 + accepted);
}
