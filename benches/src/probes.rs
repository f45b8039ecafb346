//! What readers notice at once during a load: a start and an end appear in the history,
//! and a query with `min_position` returns the update before it. Each probe is a new
//! reader, so that no rate limit applies.

use std::time::{Duration, Instant};

use ::tests::reader::{ApiResponse, Reader};
use anyhow::ensure;
use domain::Timestamp;
use eventlog::clock;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Probes at the same time.
const TASKS: usize = 4;

/// Pause of a task between two probes.
const PAUSE: Duration = Duration::from_millis(200);

pub const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Longest wait for a start or an end in the history.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Times of all probes, in microseconds.
#[derive(Debug, Default)]
pub struct Probes {
    /// From `recorded_at` of a start or an end until it is in the history.
    pub start_end: Vec<u32>,
    /// Latencies of queries with `min_position`.
    pub min_position: Vec<u32>,
}

impl Probes {
    fn merge(&mut self, other: Self) {
        self.start_end.extend(other.start_end);
        self.min_position.extend(other.min_position);
    }
}

/// Probes a service until `stop` is cancelled. `url` ends with `/reading-sessions`.
pub async fn run(pool: PgPool, url: String, stop: CancellationToken) -> anyhow::Result<Probes> {
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn(repeat(pool.clone(), url.clone(), stop.clone()));
    }
    let mut all = Probes::default();
    while let Some(ended) = tasks.join_next().await {
        all.merge(ended??);
    }
    Ok(all)
}

async fn repeat(pool: PgPool, url: String, stop: CancellationToken) -> anyhow::Result<Probes> {
    let client = ::tests::reader::client();
    let mut all = Probes::default();
    while !stop.is_cancelled() {
        let id = Uuid::new_v4();
        let reader = Reader::new(client.clone(), url.clone(), id, ::tests::app::token(id));
        all.merge(probe(&pool, &reader).await?);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(all)
}

/// One session: a start, two updates, each with a query, and an end.
async fn probe(pool: &PgPool, reader: &Reader) -> anyhow::Result<Probes> {
    let mut probes = Probes::default();
    let session = Uuid::now_v7();
    let body = json!({ "book_id": Uuid::new_v4(), "session_id": session });
    call(reader, Method::POST, "/start", Some(body)).await?;
    probes.start_end.push(appeared(pool, session, 1).await?);

    let update = format!("/{session}/update");
    for (percent, path) in [(10, "/history"), (20, "/stats/daily")] {
        let body = json!({ "current_position": percent });
        let updated = call(reader, Method::PUT, &update, Some(body)).await?;
        let path = format!(
            "{path}?min_position={}",
            updated.header("x-global-position")
        );
        let sent = Instant::now();
        let response = call(reader, Method::GET, &path, None).await?;
        probes.min_position.push(micros(sent.elapsed()));
        ensure!(
            contains(&response.body, percent),
            "{path} does not contain the update: {}",
            response.body
        );
    }

    let end = format!("/{session}/end");
    call(
        reader,
        Method::PUT,
        &end,
        Some(json!({ "end_position": 30 })),
    )
    .await?;
    probes.start_end.push(appeared(pool, session, 4).await?);
    Ok(probes)
}

async fn call(
    reader: &Reader,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> anyhow::Result<ApiResponse> {
    let response = reader.try_call(method, path, body).await?;
    ensure!(
        response.status.is_success(),
        "{path} failed with {}: {}",
        response.status,
        response.body
    );
    Ok(response)
}

/// Whether history or daily statistics of a reader's only session contain its position.
fn contains(body: &Value, percent: i64) -> bool {
    let values = [
        &body["sessions"][0]["furthest_position"],
        &body["days"][0]["progress"],
    ];
    #[expect(clippy::cast_precision_loss, reason = "at most 100")]
    let percent = percent as f64;
    values.iter().any(|value| value.as_f64() == Some(percent))
}

/// The time from `recorded_at` of an event until the history contains it, in
/// microseconds.
async fn appeared(pool: &PgPool, session: Uuid, sequence: i64) -> anyhow::Result<u32> {
    let started = Instant::now();
    loop {
        let recorded_at: Option<Timestamp> = sqlx::query_scalar(
            "select recorded_at from events
            join history on session_id = aggregate_id and version >= sequence
            where aggregate_id = $1 and sequence = $2",
        )
        .bind(session.to_string())
        .bind(sequence)
        .fetch_optional(pool)
        .await?;
        if let Some(recorded_at) = recorded_at {
            let lag = (clock::now() - recorded_at).to_std().unwrap_or_default();
            return Ok(micros(lag));
        }
        ensure!(
            started.elapsed() < WAIT_TIMEOUT,
            "event {sequence} of session {session} is not in the history"
        );
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_contains_the_position_of_the_only_session() {
        let history = json!({ "sessions": [{ "furthest_position": 10.0 }] });
        assert!(contains(&history, 10) && !contains(&history, 20));
        let days = json!({ "days": [{ "progress": 20 }] });
        assert!(contains(&days, 20) && !contains(&days, 10));
        assert!(!contains(&json!({ "sessions": [] }), 0));
    }
}
