//! Readers who read on while projections are made again, and who look all the
//! time at what there is of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use projections::active_sessions::{self, Known};
use projections::replay::ReplayError;
use projections::{DailyStats, History};
use reqwest::Method;
use serde_json::{Value, json};
use services::connect;
use tests::reader::{Reader, id};
use tests::stack::Corner;
use tests::{App, app, check};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::replayed;

/// Seconds between two updates of a reader, all of them active time.
const STEP: u32 = 20;

/// A reader who only reads on, so what there is of it never shrinks.
struct OneWhoReads {
    reader: Reader,
    done: Arc<AtomicBool>,
    /// Updates begun; each has an effect before it is answered, or none.
    begun: Arc<AtomicU32>,
}

impl OneWhoReads {
    async fn read(&self) {
        let mut at = services::clock::now() - chrono::TimeDelta::hours(20);
        while !self.done.load(Ordering::Relaxed) {
            let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": at });
            let session = id(&self.reader.start_with(start).await.ok());
            for n in 0..20 {
                at += chrono::TimeDelta::seconds(STEP.into());
                self.begun.fetch_add(1, Ordering::Relaxed);
                let update = json!({ "current_position": n, "occurred_at": at });
                let answer = self.reader.update_with(session, update).await;
                assert_eq!(answer.status, 200, "{}", answer.body);
            }
        }
    }

    /// Everything that was there is still there, and once.
    async fn look(&self) -> (u32, Duration) {
        let (mut looks, mut slowest) = (0, Duration::ZERO);
        let (mut sessions, mut total, mut seconds, mut minutes) = (0, 0, 0.0, 0.0);
        while !self.done.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let history = self.reader.history("?page_size=100").await.ok();
            let daily = self.reader.call(Method::GET, "/stats/daily", None).await;
            let daily = daily.ok();
            slowest = slowest.max(asked.elapsed());
            looks += 1;

            let listed = history["sessions"].as_array().unwrap();
            let ids: BTreeSet<Uuid> = listed.iter().map(id).collect();
            assert_eq!(ids.len(), listed.len(), "a session is there twice");
            assert!(listed.len() >= sessions, "{} of {sessions}", listed.len());
            // Counted at about the same time.
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
            let most = f64::from(self.begun.load(Ordering::Relaxed) * STEP);
            assert!(
                read <= most && day * 60.0 <= most,
                "{read} s, {day} of {most} s"
            );
            (sessions, total, seconds, minutes) = (listed.len(), counted, read, day);
        }
        (looks, slowest)
    }

    /// There always is an active session, and what Redis says of it is never
    /// older than it was.
    async fn look_at_active(&self, corner: &Corner) -> u32 {
        let cache = connect::cache(&app::settings(corner, &[]).redis).unwrap();
        let (mut looks, mut newest) = (0, (String::new(), 0));
        while !self.done.load(Ordering::Relaxed) {
            if self.begun.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
                continue;
            }
            let active = self.reader.active().await.ok();
            assert!(active["id"].is_string(), "{active}");
            // Redis may be late, and have nothing between an end and a start.
            let entry = active_sessions::get(&cache, self.reader.id.into(), None).await;
            if let Ok(Known::Active(entry)) = entry {
                let found = (entry.session_id.to_string(), entry.sequence);
                assert!(found >= newest, "{found:?} after {newest:?}");
                newest = found;
                looks += 1;
            }
        }
        looks
    }
}

fn eight_who_read(app: &App, done: &Arc<AtomicBool>) -> Vec<Arc<OneWhoReads>> {
    let one = |_| {
        Arc::new(OneWhoReads {
            reader: app.reader(),
            done: Arc::clone(done),
            begun: Arc::default(),
        })
    };
    (0..8).map(one).collect()
}

#[tokio::test]
async fn readers_notice_nothing_of_replays_under_traffic() {
    let app = App::start().await;
    let done = Arc::new(AtomicBool::new(false));
    let readers = eight_who_read(&app, &done);
    let spawn = |of: &Arc<OneWhoReads>| {
        let (one, other) = (Arc::clone(of), Arc::clone(of));
        let read = tokio::spawn(async move { one.read().await });
        (read, tokio::spawn(async move { other.look().await }))
    };
    let tasks: Vec<_> = readers.iter().map(spawn).collect();
    let go = CancellationToken::new();
    for _ in 0..3 {
        let (history, stats) = tokio::join!(
            replayed::<History>(&app.corner, &go),
            replayed::<DailyStats>(&app.corner, &go)
        );
        let (history, stats) = (history.unwrap(), stats.unwrap());
        println!("{history:?} and {stats:?}");
        // By design half a second; the machine may be busy.
        let most = Duration::from_secs(3);
        assert!(history.held < most && stats.held < most);
    }
    done.store(true, Ordering::Relaxed);
    for (read, look) in tasks {
        read.await.unwrap();
        let (looks, slowest) = look.await.unwrap();
        println!("{looks} looks, the slowest took {slowest:?}");
        assert!(looks > 3, "{looks} looks");
    }
    check::everything(&app).await;
}

#[tokio::test]
async fn readers_notice_nothing_of_a_rebuild_of_the_cache_under_traffic() {
    let app = App::start().await;
    app.settled().await;
    let done = Arc::new(AtomicBool::new(false));
    let readers = eight_who_read(&app, &done);
    let spawn = |of: &Arc<OneWhoReads>| {
        let (one, other, corner) = (Arc::clone(of), Arc::clone(of), app.corner.clone());
        let read = tokio::spawn(async move { one.read().await });
        let look = tokio::spawn(async move { other.look_at_active(&corner).await });
        (read, look)
    };
    let tasks: Vec<_> = readers.iter().map(spawn).collect();
    let settings = app::settings(&app.corner, &[]);
    let cache = connect::cache(&settings.redis).unwrap();
    let pool = connect::projections_pool(&settings.database).unwrap();
    let begun = |of: &Arc<OneWhoReads>| of.begun.load(Ordering::Relaxed) > 0;
    while !readers.iter().all(begun) {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        let (progress, go) = (watch::Sender::default(), CancellationToken::new());
        let rebuilt = loop {
            match active_sessions::rebuild(&cache, &pool, &progress, &go).await {
                // Upkeep fills the cache at its start.
                Err(ReplayError::Running(_)) => tokio::task::yield_now().await,
                rebuilt => break rebuilt.unwrap(),
            }
        };
        assert_eq!((rebuilt.sessions, rebuilt.removed), (8, 0), "{rebuilt:?}");
    }
    done.store(true, Ordering::Relaxed);
    for (read, look) in tasks {
        read.await.unwrap();
        let looks = look.await.unwrap();
        assert!(looks > 3, "{looks} looks");
    }
    check::everything(&app).await;
}
