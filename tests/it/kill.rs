//! I1 and I2: kill -9 of the whole service in the middle of traffic loses no
//! acknowledged command and applies none twice, though what was not answered is
//! sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use tests::process::Process;
use tests::reader::id;
use tests::{Answer, Reader, Stack, app, check};
use uuid::Uuid;

/// How often the service is killed.
const KILLS: usize = 5;

/// Acknowledged commands between two kills.
const COMMANDS: usize = 400;

/// A reader's app. Each update has a key and a locator that no other has, and
/// is sent until it is acknowledged, as apps do.
struct Client {
    reader: Reader,
    /// The update whose answer did not come: its path and its locator.
    unknown: Option<(String, String)>,
    acknowledged: Vec<String>,
    /// Of those that were sent again: found done, and done then.
    replayed: usize,
    done_anew: usize,
}

impl Client {
    fn new() -> Self {
        Self {
            reader: Reader::of(Uuid::new_v4()),
            unknown: None,
            acknowledged: Vec::new(),
            replayed: 0,
            done_anew: 0,
        }
    }

    /// Sends an update; `None` when the service is gone.
    async fn send(&mut self, path: String, name: String) -> Option<Answer> {
        let update = json!({ "current_position": 1, "locator": name });
        let key = [("idempotency-key", name.as_str())];
        let answer = self
            .reader
            .try_call_with(Method::PUT, &path, &key, Some(update))
            .await;
        let Ok(answer) = answer else {
            self.unknown = Some((path, name));
            return None;
        };
        assert_eq!(answer.status, 200, "{}", answer.body);
        self.acknowledged.push(name);
        Some(answer)
    }

    /// Sends again what is not known to be done.
    async fn make_sure(&mut self) {
        let Some((path, name)) = self.unknown.take() else {
            return;
        };
        match self.send(path, name).await {
            Some(answer) if answer.header("idempotent-replayed") == "true" => self.replayed += 1,
            Some(_) => self.done_anew += 1,
            None => {}
        }
    }

    /// Updates a new session until the service is gone.
    async fn update_until_gone(mut self, round: usize, acknowledged: Arc<AtomicUsize>) -> Self {
        self.make_sure().await;
        let start = json!({ "book_id": Uuid::new_v4() });
        let start = self.reader.try_call(Method::POST, "/start", Some(start));
        let Ok(answer) = start.await else {
            return self;
        };
        let session = id(&answer.ok());
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

/// NATS stands still, so what is committed is in the relay's hand or on its way.
#[tokio::test]
async fn kill_9_between_a_commit_and_its_publishing_leaves_no_hole_in_the_stream() {
    const UPDATES: u32 = 30;
    let stack = Stack::own().await;
    let corner = stack.corner().await;
    let pool = app::pool(&corner).await;
    let process = Process::start(&corner).await;
    let reader = Reader::of(Uuid::new_v4()).at(&process.url);
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app::settled(&pool, &corner).await;
    check::all(&pool, &corner).await;

    stack.servers.lock().await.nats.pause().unwrap();
    for position in 1..=UPDATES {
        let _ = reader.update(session, f64::from(position)).await.ok();
    }
    process.kill().await;
    stack.servers.lock().await.nats.resume().unwrap();

    let process = Process::start(&corner).await;
    app::settled(&pool, &corner).await;
    check::all(&pool, &corner).await;
    let log = check::log(&pool).await;
    assert_eq!(log.len(), 1 + UPDATES as usize);
    process.kill().await;
}

#[tokio::test]
async fn kill_9_in_the_middle_of_traffic_loses_and_repeats_nothing() {
    let stack = Stack::shared().await;
    let corner = stack.corner().await;
    let pool = app::pool(&corner).await;
    let mut clients: Vec<Client> = (0..20).map(|_| Client::new()).collect();

    for round in 0..KILLS {
        let process = Process::start(&corner).await;
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let running: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                client.reader = client.reader.at(&process.url);
                tokio::spawn(client.update_until_gone(round, Arc::clone(&acknowledged)))
            })
            .collect();
        while acknowledged.load(Ordering::Relaxed) < COMMANDS {
            tokio::task::yield_now().await;
        }
        process.kill().await;
        clients = join_all(running)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
    }

    // Whoever starts next carries on where the killed one stopped, and each
    // command becomes known.
    let process = Process::start(&corner).await;
    for client in &mut clients {
        client.reader = client.reader.at(&process.url);
        client.make_sure().await;
        assert_eq!(client.unknown, None);
    }
    app::settled(&pool, &corner).await;
    check::all(&pool, &corner).await;

    let mut written: BTreeMap<String, usize> = BTreeMap::new();
    for event in check::log(&pool).await {
        let payload: serde_json::Value = serde_json::from_str(&event.payload).unwrap();
        if event.event_type == "PositionUpdated" {
            let name = payload["locator"].as_str().unwrap().to_owned();
            *written.entry(name).or_default() += 1;
        }
    }
    let (mut acknowledged, mut replayed, mut done_anew) = (0, 0, 0);
    for client in clients {
        for name in client.acknowledged {
            acknowledged += 1;
            assert_eq!(written.remove(&name), Some(1), "{name} was acknowledged");
        }
        replayed += client.replayed;
        done_anew += client.done_anew;
    }
    println!("{acknowledged} acknowledged; sent again: {replayed} done before, {done_anew} not");
    assert!(acknowledged >= KILLS * COMMANDS);
    assert!(written.is_empty(), "nobody sent {written:?}");
    process.kill().await;
}
