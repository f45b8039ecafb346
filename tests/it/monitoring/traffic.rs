//! Readers that use the service until the test ends. They ignore errors.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tests::Reader;
use tests::reader::id;
use tokio::task::JoinSet;
use uuid::Uuid;

/// The readers of each address.
const READERS: usize = 4;

/// Time between two rounds of a reader.
const ROUND_INTERVAL: Duration = Duration::from_millis(400);

/// Time between two equal queries of a reader.
const QUERY_INTERVAL: Duration = Duration::from_millis(50);

/// Longest wait for a response. A service that is frozen must not stop a reader.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(4);

/// Reads of the active session after each update. Most of them find the entry in Redis.
const READS: usize = 4;

const QUERIES: [&str; 6] = [
    "/history",
    "/stats/daily",
    "/stats/weekly",
    "/stats/streak",
    "/stats/patterns",
    "/active",
];

/// Running readers. They end when this is dropped.
pub struct Traffic(JoinSet<()>);

impl Traffic {
    /// Starts readers at each of these addresses.
    pub fn start(urls: &[String]) -> Self {
        let mut readers = JoinSet::new();
        for url in urls {
            for _ in 0..READERS {
                readers.spawn(read(Reader::with_id(Uuid::new_v4()).at(url)));
            }
        }
        Self(readers)
    }

    /// Starts readers that send the same query to an address as often as they can.
    pub fn of_query(url: &str, path: &'static str, count: usize) -> Self {
        let mut readers = JoinSet::new();
        for _ in 0..count {
            let reader = Reader::with_id(Uuid::new_v4()).at(url);
            readers.spawn(async move {
                loop {
                    send(&reader, Method::GET, path, None).await;
                    // A service that refuses at once must not keep the test busy.
                    tokio::time::sleep(QUERY_INTERVAL).await;
                }
            });
        }
        Self(readers)
    }

    /// Ends all readers.
    pub async fn stop(mut self) {
        self.0.shutdown().await;
    }
}

async fn read(reader: Reader) {
    let mut rounds = tokio::time::interval(ROUND_INTERVAL);
    loop {
        let book = json!({ "book_id": Uuid::new_v4() });
        let Some(session) = send(&reader, Method::POST, "/start", Some(book)).await else {
            rounds.tick().await;
            continue;
        };
        let session = id(&session);
        for (position, query) in QUERIES.iter().cycle().take(30).enumerate() {
            rounds.tick().await;
            let update = json!({ "current_position": position });
            let path = format!("/{session}/update");
            send(&reader, Method::PUT, &path, Some(update)).await;
            for _ in 0..READS {
                send(&reader, Method::GET, "/active", None).await;
            }
            send(&reader, Method::GET, query, None).await;
            send(&reader, Method::GET, &format!("/{session}"), None).await;
        }
        let path = format!("/{session}/end");
        send(&reader, Method::PUT, &path, Some(json!({}))).await;
    }
}

/// The body of a success.
async fn send(
    reader: &Reader,
    method: Method,
    path: &str,
    body: Option<serde_json::Value>,
) -> Option<serde_json::Value> {
    let call = reader.try_call(method, path, body);
    let response = tokio::time::timeout(RESPONSE_TIMEOUT, call).await.ok()?;
    let response = response.ok()?;
    response.status.is_success().then_some(response.body)
}
