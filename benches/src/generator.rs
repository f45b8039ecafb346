//! The load generator. It uses the same cores as the measured service, so it must cost
//! little: one or two threads poll their connections, write requests into a reused buffer,
//! and parse only the status and the length of responses. A [`Script`] determines the
//! requests; [`closed`] and [`open`] determine when they are sent.

use std::time::Duration;

pub mod closed;
mod connection;
pub mod open;
pub mod reader_pool;
pub mod scripts;

pub use connection::Response;

/// Longest wait for responses after the last request.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

/// A sequence of requests.
pub trait Script: Send {
    /// The next request of a lane, or `None` at its end. In a closed loop, each connection
    /// is a lane. An open loop has one lane.
    fn next(&mut self, lane: usize) -> Option<&[u8]>;

    /// Whether a response with status 200 or 201 has the expected body.
    fn is_success(&self, _response: &Response<'_>) -> bool {
        true
    }
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Requests that the run intended to send.
    pub offered: usize,
    /// Successful responses.
    pub successful: usize,
    /// Responses with status 429 or 503.
    pub rejected: usize,
    /// Other responses, and requests without a complete response.
    pub failed: usize,
    /// Requests that were not sent, because no connection became free in time.
    pub unsent: usize,
    /// Time from the first request to the last response.
    pub elapsed: Duration,
    /// Latencies of successful responses, in microseconds, ascending.
    pub latencies: Vec<u32>,
    /// Latencies of rejections, in microseconds, ascending.
    pub rejection_latencies: Vec<u32>,
}

impl Load {
    /// Successful responses per second.
    pub fn rate(&self) -> f64 {
        per_second(self.successful, self.elapsed)
    }

    /// Requests that did not succeed.
    pub fn errors(&self) -> usize {
        self.rejected + self.failed + self.unsent
    }

    /// A percentile of the latencies of successful responses, in milliseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        percentile(&self.latencies, percent)
    }

    fn record(&mut self, latency: Duration, outcome: Outcome) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        match outcome {
            Outcome::Successful => {
                self.successful += 1;
                self.latencies.push(micros);
            }
            Outcome::Rejected => {
                self.rejected += 1;
                self.rejection_latencies.push(micros);
            }
            Outcome::Failed => self.failed += 1,
        }
    }

    fn merge(&mut self, other: Self) {
        self.offered += other.offered;
        self.successful += other.successful;
        self.rejected += other.rejected;
        self.failed += other.failed;
        self.unsent += other.unsent;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latencies.extend(other.latencies);
        self.rejection_latencies.extend(other.rejection_latencies);
    }

    fn sort(&mut self) {
        self.latencies.sort_unstable();
        self.rejection_latencies.sort_unstable();
    }
}

/// A percentile of ascending microseconds, in milliseconds. 0 if there are none.
pub fn percentile(ascending: &[u32], percent: usize) -> f64 {
    let index = ascending.len() * percent / 100;
    let value = ascending.get(index).or(ascending.last());
    f64::from(value.copied().unwrap_or(0)) / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub fn per_second(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

#[derive(Clone, Copy)]
enum Outcome {
    Successful,
    Rejected,
    Failed,
}

fn classify(script: &impl Script, response: &Response<'_>) -> Outcome {
    match response.status {
        200 | 201 if script.is_success(response) => Outcome::Successful,
        429 | 503 => Outcome::Rejected,
        _ => Outcome::Failed,
    }
}
