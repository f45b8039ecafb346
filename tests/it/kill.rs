//! Promises I1 (durability) and I2 (at most once) under `kill -9`: a kill of the
//! whole service during traffic loses no acknowledged command. No command is
//! applied twice, although clients repeat requests that received no response.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use tests::process::Process;
use tests::reader::id;
use tests::{ApiResponse, Reader, Stack, app, invariants, until};
use uuid::Uuid;

const KILLS: usize = 5;

/// Acknowledged commands between two kills.
const COMMANDS: usize = 400;

/// Time limit for [`COMMANDS`] acknowledged commands.
const ROUND_TIMEOUT: Duration = Duration::from_mins(1);

/// A reader's app. Each update has a unique key and locator. The app sends an
/// update until it is acknowledged.
struct Client {
    reader: Reader,
    /// Path and locator of the update that received no response.
    unanswered: Option<(String, String)>,
    /// The locators of the acknowledged updates.
    acknowledged: Vec<String>,
    /// Repeated updates that the service had applied before the kill.
    replayed: usize,
    /// Repeated updates that the service had not applied before the kill.
    applied_on_retry: usize,
}

impl Client {
    fn new() -> Self {
        Self {
            reader: Reader::with_id(Uuid::new_v4()),
            unanswered: None,
            acknowledged: Vec::new(),
            replayed: 0,
            applied_on_retry: 0,
        }
    }

    /// Sends an update; `None` if the service is down.
    async fn send(&mut self, path: String, name: String) -> Option<ApiResponse> {
        let update = json!({ "current_position": 1, "locator": name });
        let key = [("idempotency-key", name.as_str())];
        let response = self
            .reader
            .try_call_with(Method::PUT, &path, &key, Some(update))
            .await;
        let Ok(response) = response else {
            self.unanswered = Some((path, name));
            return None;
        };
        assert_eq!(response.status, 200, "{}", response.body);
        self.acknowledged.push(name);
        Some(response)
    }

    /// Repeats the update that received no response.
    async fn retry_unanswered(&mut self) {
        let Some((path, name)) = self.unanswered.take() else {
            return;
        };
        match self.send(path, name).await {
            Some(response) if response.header("idempotent-replayed") == "true" => {
                self.replayed += 1;
            }
            Some(_) => self.applied_on_retry += 1,
            None => {}
        }
    }

    /// Starts a session and updates it until the service is down.
    async fn update_until_killed(mut self, round: usize, acknowledged: Arc<AtomicUsize>) -> Self {
        self.retry_unanswered().await;
        let start = json!({ "book_id": Uuid::new_v4() });
        let start = self.reader.try_call(Method::POST, "/start", Some(start));
        let Ok(response) = start.await else {
            return self;
        };
        let session = id(&response.ok());
        for n in 0_u32.. {
            let name = format!("{}/{round}/{n}", self.reader.id);
            let path = format!("/{session}/update");
            if self.send(path, name).await.is_none() {
                break;
            }
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        self
    }
}

/// While NATS is paused, the relay holds committed events that are not in the
/// stream yet.
#[tokio::test]
async fn kill_between_commit_and_publish_leaves_no_gap_in_stream() {
    const UPDATES: u32 = 30;
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let pool = app::pool(&env).await;
    let process = Process::start(&env).await;
    let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app::settled(&pool, &env).await;
    invariants::check_env(&pool, &env).await;

    stack.servers.lock().await.nats.pause().unwrap();
    for position in 1..=UPDATES {
        let _ = reader.update(session, f64::from(position)).await.ok();
    }
    process.kill().await;
    stack.servers.lock().await.nats.resume().unwrap();

    let process = Process::start(&env).await;
    app::settled(&pool, &env).await;
    invariants::check_env(&pool, &env).await;
    let log = invariants::read_log(&pool).await;
    assert_eq!(log.len(), 1 + UPDATES as usize);
    process.kill().await;
}

#[tokio::test]
async fn kill_during_traffic_loses_and_repeats_no_command() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let pool = app::pool(&env).await;
    let mut clients: Vec<Client> = (0..20).map(|_| Client::new()).collect();

    for round in 0..KILLS {
        let process = Process::start(&env).await;
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let running: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                client.reader = client.reader.at(&process.url);
                tokio::spawn(client.update_until_killed(round, Arc::clone(&acknowledged)))
            })
            .collect();
        until("enough acknowledged commands", ROUND_TIMEOUT, async || {
            acknowledged.load(Ordering::Relaxed) >= COMMANDS
        })
        .await;
        process.kill().await;
        clients = join_all(running)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
    }

    // The next process continues where the killed one stopped, and each
    // unanswered command receives its response.
    let process = Process::start(&env).await;
    for client in &mut clients {
        client.reader = client.reader.at(&process.url);
        client.retry_unanswered().await;
        assert_eq!(client.unanswered, None);
    }
    app::settled(&pool, &env).await;
    invariants::check_env(&pool, &env).await;

    let mut written: BTreeMap<String, usize> = BTreeMap::new();
    for event in invariants::read_log(&pool).await {
        let payload: serde_json::Value = serde_json::from_str(&event.payload).unwrap();
        if event.event_type == "PositionUpdated" {
            let name = payload["locator"].as_str().unwrap().to_owned();
            *written.entry(name).or_default() += 1;
        }
    }
    let (mut acknowledged, mut replayed, mut applied_on_retry) = (0, 0, 0);
    for client in clients {
        for name in client.acknowledged {
            acknowledged += 1;
            assert_eq!(
                written.remove(&name),
                Some(1),
                "events of the acknowledged update {name}"
            );
        }
        replayed += client.replayed;
        applied_on_retry += client.applied_on_retry;
    }
    println!(
        "{acknowledged} acknowledged; repeated: {replayed} applied before, {applied_on_retry} not"
    );
    assert!(acknowledged >= KILLS * COMMANDS);
    assert!(written.is_empty(), "no client sent {written:?}");
    process.kill().await;
}
