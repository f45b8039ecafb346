//! I1 and I2: kill -9 of the whole service in the middle of traffic loses no
//! acknowledged command and applies none twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tests::process::Process;
use tests::reader::id;
use tests::{Reader, Stack, app, check};
use uuid::Uuid;

/// How often the service is killed.
const KILLS: usize = 5;

/// Acknowledged commands between two kills.
const COMMANDS: usize = 400;

/// What a client knows of one command, as Jepsen records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Acknowledged,
    Unknown,
}

/// A client's history: the locator of each update, which no other has.
type History = BTreeMap<String, Outcome>;

/// Updates until the service is gone.
async fn update_until_gone(
    reader: Reader,
    round: usize,
    acknowledged: Arc<AtomicUsize>,
) -> History {
    let mut history = History::new();
    let start = json!({ "book_id": Uuid::new_v4() });
    let Ok(answer) = reader
        .try_call(reqwest::Method::POST, "/start", Some(start))
        .await
    else {
        return history;
    };
    let session = id(&answer.ok());
    for n in 0_u32.. {
        let name = format!("{}/{round}/{n}", reader.id);
        let update = json!({ "current_position": n % 100, "locator": name });
        let path = format!("/{session}/update");
        let answer = reader
            .try_call(reqwest::Method::PUT, &path, Some(update))
            .await;
        match answer {
            Ok(answer) if answer.status == 200 => {
                history.insert(name, Outcome::Acknowledged);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => panic!("{}: {}", answer.status, answer.body),
            Err(_) => {
                history.insert(name, Outcome::Unknown);
                return history;
            }
        }
    }
    history
}

#[tokio::test]
async fn kill_9_in_the_middle_of_traffic_loses_and_repeats_nothing() {
    let stack = Stack::shared().await;
    let corner = stack.corner().await;
    let pool = app::pool(&corner).await;
    let readers: Vec<Reader> = (0..20).map(|_| Reader::of(Uuid::new_v4())).collect();

    let mut history = History::new();
    for round in 0..KILLS {
        let process = Process::start(&corner).await;
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = readers
            .iter()
            .map(|reader| {
                let reader = reader.at(&process.url);
                tokio::spawn(update_until_gone(reader, round, Arc::clone(&acknowledged)))
            })
            .collect();
        while acknowledged.load(Ordering::Relaxed) < COMMANDS {
            tokio::task::yield_now().await;
        }
        process.kill().await;
        for client in clients {
            history.extend(client.await.unwrap());
        }
    }

    // Whoever starts next carries on where the killed one stopped.
    let process = Process::start(&corner).await;
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
    assert!(history.len() >= KILLS * COMMANDS);
    for (name, outcome) in &history {
        let times = written.remove(name).unwrap_or(0);
        match outcome {
            Outcome::Acknowledged => assert_eq!(times, 1, "{name} was acknowledged"),
            Outcome::Unknown => assert!(times <= 1, "{name} took effect {times} times"),
        }
    }
    assert!(written.is_empty(), "nobody sent {written:?}");
    process.kill().await;
}
