//! A load that costs little itself, since it takes the same cores as what it
//! measures: a thread or two that poll their connections, requests that are
//! written into one buffer, answers that are looked at just enough to know
//! their status and their end. What is asked is a [`Script`]'s; when, that of
//! [`closed`] or [`open`].

use std::time::Duration;

pub mod closed;
mod connection;
pub mod crowd;
pub mod open;
pub mod scripts;

pub use connection::Answer;

/// How long answers are waited for after the last request.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked, over and over.
pub trait Script: Send {
    /// The next request of a lane; none when it has no more. A lane is a
    /// connection in a closed loop; an open one has a single lane.
    fn next(&mut self, lane: usize) -> Option<&[u8]>;

    /// Whether an answer with status 200 or 201 is what was asked for.
    fn is_good(&self, _answer: &Answer<'_>) -> bool {
        true
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Requests that were to be sent.
    pub offered: usize,
    /// Answers that were asked for.
    pub good: usize,
    /// Answers 429 and 503.
    pub refused: usize,
    /// Other answers, none, and those that broke off.
    pub failed: usize,
    /// Requests that found no connection in time, and were not sent.
    pub unsent: usize,
    /// From the first request to the last answer.
    pub took: Duration,
    /// Latencies of good answers, in microseconds, ascending.
    pub latencies: Vec<u32>,
    /// Those of refusals.
    pub refusals: Vec<u32>,
}

impl Load {
    /// Good answers a second.
    pub fn rate(&self) -> f64 {
        per_second(self.good, self.took)
    }

    /// What an app would have to handle.
    pub fn errors(&self) -> usize {
        self.refused + self.failed + self.unsent
    }

    /// A percentile of the latencies of good answers, in milliseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        percentile(&self.latencies, percent)
    }

    fn take(&mut self, latency: Duration, verdict: Verdict) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        match verdict {
            Verdict::Good => {
                self.good += 1;
                self.latencies.push(micros);
            }
            Verdict::Refused => {
                self.refused += 1;
                self.refusals.push(micros);
            }
            Verdict::Failed => self.failed += 1,
        }
    }

    fn merge(&mut self, other: Self) {
        self.offered += other.offered;
        self.good += other.good;
        self.refused += other.refused;
        self.failed += other.failed;
        self.unsent += other.unsent;
        self.took = self.took.max(other.took);
        self.latencies.extend(other.latencies);
        self.refusals.extend(other.refusals);
    }

    fn sort(&mut self) {
        self.latencies.sort_unstable();
        self.refusals.sort_unstable();
    }
}

/// A percentile of ascending microseconds, in milliseconds; 0 of none.
pub fn percentile(ascending: &[u32], percent: usize) -> f64 {
    let index = ascending.len() * percent / 100;
    let value = ascending.get(index).or(ascending.last());
    f64::from(value.copied().unwrap_or(0)) / 1_000.0
}

/// So many in such a time.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

#[derive(Clone, Copy)]
enum Verdict {
    Good,
    Refused,
    Failed,
}

fn judge(script: &impl Script, answer: &Answer<'_>) -> Verdict {
    match answer.status {
        200 | 201 if script.is_good(answer) => Verdict::Good,
        429 | 503 => Verdict::Refused,
        _ => Verdict::Failed,
    }
}
