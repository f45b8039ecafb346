//! Replays and cache rebuilds while readers write and query without a pause.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use projections::OperationError;
use projections::active_sessions::{self, CacheLookup};
use projections::{DailyStats, History};
use reqwest::Method;
use serde_json::{Value, json};
use server::connect;
use tests::app::SETTLE;
use tests::reader::{Reader, id};
use tests::stack::TestEnv;
use tests::{App, app, eventually, invariants, scaled, until};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::replayed;

/// Seconds between two updates of a reader. All of it is active time.
const UPDATE_INTERVAL_SECONDS: u32 = 20;

const NEVER_IDLE: Duration = Duration::from_hours(48);

/// A reader who only adds reading time, so that history and statistics never shrink.
struct GrowingReader {
    reader: Reader,
    done: Arc<AtomicBool>,
    /// The number of updates sent. An update takes effect after it is sent and before
    /// its response.
    sent: Arc<AtomicU32>,
}

impl GrowingReader {
    async fn write(&self) {
        let mut at = eventlog::clock::now() - chrono::TimeDelta::hours(20);
        while !self.done.load(Ordering::Relaxed) {
            let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": at });
            let session = id(&self.reader.start_with(start).await.ok());
            for n in 0..20 {
                at += chrono::TimeDelta::seconds(UPDATE_INTERVAL_SECONDS.into());
                self.sent.fetch_add(1, Ordering::Relaxed);
                let update = json!({ "current_position": n, "occurred_at": at });
                let response = self.reader.update_with(session, update).await;
                assert_eq!(response.status, 200, "{}", response.body);
            }
        }
    }

    /// Queries history and statistics. Sessions and sums never decrease, and no session
    /// appears twice. Returns the number of queries and the time of the slowest.
    async fn query(&self) -> (u32, Duration) {
        let (mut queries, mut slowest) = (0, Duration::ZERO);
        let (mut sessions, mut total, mut seconds, mut minutes) = (0, 0, 0.0, 0.0);
        while !self.done.load(Ordering::Relaxed) {
            let sent = Instant::now();
            let history = self.reader.history("?page_size=100").await.ok();
            let daily = self.reader.call(Method::GET, "/stats/daily", None).await;
            let daily = daily.ok();
            slowest = slowest.max(sent.elapsed());
            queries += 1;

            let listed = history["sessions"].as_array().unwrap();
            let ids: BTreeSet<Uuid> = listed.iter().map(id).collect();
            assert_eq!(ids.len(), listed.len(), "a session appears twice");
            assert!(listed.len() >= sessions, "{} of {sessions}", listed.len());
            let counted = history["total"].as_u64().unwrap();
            assert!(counted >= total, "{counted} of {total}");
            let sum = |rows: &Value, field: &str| -> f64 {
                let rows = rows.as_array().unwrap().iter();
                rows.map(|row| row[field].as_f64().unwrap()).sum()
            };
            let read = sum(&history["sessions"], "active_seconds");
            assert!(read >= seconds, "{read} s of {seconds}");
            let day = sum(&daily["days"], "active_minutes");
            assert!(day >= minutes, "{day} minutes of {minutes}");
            let limit = f64::from(self.sent.load(Ordering::Relaxed) * UPDATE_INTERVAL_SECONDS);
            assert!(
                read <= limit && day * 60.0 <= limit,
                "{read} s and {day} minutes of {limit} s"
            );
            (sessions, total, seconds, minutes) = (listed.len(), counted, read, day);
        }
        (queries, slowest)
    }

    /// Queries the active session. There is always one, and the version in Redis never
    /// decreases. Returns the number of entries found in Redis.
    async fn query_active(&self, env: &TestEnv) -> u32 {
        let cache = connect::cache(&app::settings(env, &[]).redis).unwrap();
        let (mut hits, mut newest) = (0, (String::new(), 0));
        while !self.done.load(Ordering::Relaxed) {
            if self.sent.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
                continue;
            }
            let active = self.reader.active().await.ok();
            assert!(active["id"].is_string(), "{active}");
            // A read of Redis may exceed its deadline. Between an end and a start there
            // is no entry.
            let entry = active_sessions::get(&cache, self.reader.id.into(), None).await;
            if let Ok(CacheLookup::Active(entry)) = entry {
                let found = (entry.session_id.to_string(), entry.sequence);
                assert!(found >= newest, "{found:?} after {newest:?}");
                newest = found;
                hits += 1;
            }
        }
        hits
    }
}

fn eight_readers(app: &App, done: &Arc<AtomicBool>) -> Vec<Arc<GrowingReader>> {
    let new = |_| {
        Arc::new(GrowingReader {
            reader: app.reader(),
            done: Arc::clone(done),
            sent: Arc::default(),
        })
    };
    (0..8).map(new).collect()
}

#[tokio::test]
async fn replays_under_traffic_never_show_partial_results() {
    let app = App::start().await;
    let done = Arc::new(AtomicBool::new(false));
    let readers = eight_readers(&app, &done);
    let spawn = |reader: &Arc<GrowingReader>| {
        let (writer, reader) = (Arc::clone(reader), Arc::clone(reader));
        let write = tokio::spawn(async move { writer.write().await });
        (write, tokio::spawn(async move { reader.query().await }))
    };
    let tasks: Vec<_> = readers.iter().map(spawn).collect();
    let token = CancellationToken::new();
    for _ in 0..3 {
        let (history, stats) = tokio::join!(
            replayed::<History>(&app.env, &token),
            replayed::<DailyStats>(&app.env, &token)
        );
        let (history, stats) = (history.unwrap(), stats.unwrap());
        println!("{history:?} and {stats:?}");
        // The design limits the lock to half a second.
        let limit = scaled(Duration::from_secs(3));
        assert!(history.locked_for < limit && stats.locked_for < limit);
    }
    done.store(true, Ordering::Relaxed);
    for (write, query) in tasks {
        write.await.unwrap();
        let (queries, slowest) = query.await.unwrap();
        println!("{queries} queries, the slowest took {slowest:?}");
        assert!(queries > 3, "{queries} queries");
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn cache_rebuild_under_traffic_never_shows_old_versions() {
    // The readers' times are hours ago.
    let app = App::with_settings(|settings| settings.jobs.idle_after = NEVER_IDLE).await;
    app.settled().await;
    let done = Arc::new(AtomicBool::new(false));
    let readers = eight_readers(&app, &done);
    let spawn = |reader: &Arc<GrowingReader>| {
        let (writer, reader, env) = (Arc::clone(reader), Arc::clone(reader), app.env.clone());
        let write = tokio::spawn(async move { writer.write().await });
        let query = tokio::spawn(async move { reader.query_active(&env).await });
        (write, query)
    };
    let tasks: Vec<_> = readers.iter().map(spawn).collect();
    let settings = app::settings(&app.env, &[]);
    let cache = connect::cache(&settings.redis).unwrap();
    let pool = connect::projections_pool(&settings.database).unwrap();
    let has_sent = |reader: &Arc<GrowingReader>| reader.sent.load(Ordering::Relaxed) > 0;
    until("all readers have sent updates", SETTLE, async || {
        readers.iter().all(has_sent)
    })
    .await;
    for _ in 0..20 {
        let (progress, token) = (watch::Sender::default(), CancellationToken::new());
        let rebuilt = eventually("the cache is rebuilt", SETTLE, async || {
            match active_sessions::rebuild(&cache, &pool, &progress, &token).await {
                // The job `warm_up` fills the cache when the service starts.
                Err(OperationError::AlreadyRunning(_)) => None,
                rebuilt => Some(rebuilt.unwrap()),
            }
        })
        .await;
        assert_eq!((rebuilt.sessions, rebuilt.removed), (8, 0), "{rebuilt:?}");
    }
    done.store(true, Ordering::Relaxed);
    for (write, query) in tasks {
        write.await.unwrap();
        let hits = query.await.unwrap();
        assert!(hits > 3, "{hits} hits");
    }
    invariants::check(&app).await;
}
