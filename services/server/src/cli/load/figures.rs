//! What the load test measures: latencies and failures per call. The size does not grow
//! with the number of requests.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::http::CallError;

/// Longest latency that a histogram distinguishes, in microseconds. Longer than the timeout
/// of a request.
const MAX_MICROS: u64 = 60_000_000;

/// Digits of a latency that are kept: an error of at most 0.1 %.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Kinds of errors that are counted with their code. Codes come from the service.
const MAX_ERRORS: usize = 100;

/// A call of the API in the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Start,
    Update,
    End,
    History,
    Active,
}

impl Call {
    pub const ALL: [Self; 5] = [
        Self::Start,
        Self::Update,
        Self::End,
        Self::History,
        Self::Active,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Update => "update",
            Self::End => "end",
            Self::History => "history",
            Self::Active => "active",
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// `code` is that of the problem document; empty without one.
    Status {
        status: u16,
        code: String,
    },
    /// A successful status with a body that is not that of this service.
    InvalidResponse,
    Timeout,
    /// There was no connection, or it ended before the response.
    Connection,
}

impl Failure {
    /// The HTTP status, or the failure in a word.
    pub fn status(&self) -> String {
        match self {
            Self::Status { status, .. } => status.to_string(),
            other => other.to_string(),
        }
    }

    pub const fn is_rate_limit(&self) -> bool {
        matches!(self, Self::Status { status: 429, .. })
    }
}

/// For example `429 rate_limited`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { status, code } if code.is_empty() => write!(f, "{status}"),
            Self::Status { status, code } => write!(f, "{status} {code}"),
            Self::InvalidResponse => f.write_str("invalid response"),
            Self::Timeout => f.write_str("timeout"),
            Self::Connection => f.write_str("connection"),
        }
    }
}

/// A number of equal failures.
#[derive(Debug)]
pub struct Failed {
    pub count: u64,
    /// The text of the first one.
    pub example: String,
}

/// The requests of a run so far.
pub struct Figures {
    latencies: [Histogram<u64>; Call::ALL.len()],
    failed: BTreeMap<(Call, Failure), Failed>,
}

impl Figures {
    pub fn new() -> Self {
        Self {
            latencies: Call::ALL.map(|_| histogram()),
            failed: BTreeMap::new(),
        }
    }

    /// Records a response, or the time until a request failed.
    pub fn record(&mut self, call: Call, latency: Duration, error: Option<&CallError>) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies[call as usize].saturating_record(micros);
        let Some(error) = error else {
            return;
        };
        let mut key = (call, error.failure.clone());
        if self.failed.len() >= MAX_ERRORS
            && !self.failed.contains_key(&key)
            && let Failure::Status { code, .. } = &mut key.1
        {
            code.clear();
        }
        let failed = self.failed.entry(key).or_insert_with(|| Failed {
            count: 0,
            example: error.example.clone(),
        });
        failed.count += 1;
    }

    pub fn latencies(&self, call: Call) -> Latencies<'_> {
        Latencies(&self.latencies[call as usize])
    }

    /// The latencies of all calls.
    pub fn all_latencies(&self) -> Histogram<u64> {
        let mut all = histogram();
        for latencies in &self.latencies {
            all.add(latencies).expect("the bounds are the same");
        }
        all
    }

    pub fn requests(&self) -> u64 {
        self.latencies.iter().map(Histogram::len).sum()
    }

    pub fn errors(&self) -> u64 {
        self.failed.values().map(|failed| failed.count).sum()
    }

    /// The failures in the order of calls.
    pub fn failed(&self) -> impl Iterator<Item = (Call, &Failure, &Failed)> {
        let failed = self.failed.iter();
        failed.map(|((call, failure), failed)| (*call, failure, failed))
    }
}

fn histogram() -> Histogram<u64> {
    let histogram = Histogram::new_with_bounds(1, MAX_MICROS, SIGNIFICANT_DIGITS);
    histogram.expect("the bounds are valid")
}

/// The latencies of some requests, in milliseconds.
#[derive(Clone, Copy)]
pub struct Latencies<'a>(pub &'a Histogram<u64>);

impl Latencies<'_> {
    pub fn count(self) -> u64 {
        self.0.len()
    }

    /// The latency that this share of the requests did not exceed, from 0 to 1. 0 without a
    /// request.
    pub fn quantile(self, quantile: f64) -> f64 {
        millis(self.0.value_at_quantile(quantile))
    }

    pub fn max(self) -> f64 {
        millis(self.0.max())
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: &str) -> CallError {
        CallError {
            failure: Failure::Status {
                status,
                code: code.to_owned(),
            },
            example: format!("example of {code}"),
        }
    }

    #[test]
    fn quantiles_are_those_of_all_requests() {
        let mut figures = Figures::new();
        for millis in 1..=100 {
            let call = Call::ALL[millis % Call::ALL.len()];
            figures.record(call, Duration::from_millis(millis as u64), None);
        }
        let all = figures.all_latencies();
        let all = Latencies(&all);
        assert_eq!(all.count(), 100);
        for (quantile, expected) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0)] {
            let found = all.quantile(quantile);
            assert!((found - expected).abs() <= 0.1, "{found} {expected}");
        }
        assert!((all.max() - 100.0).abs() <= 0.1);
        assert_eq!(figures.latencies(Call::Start).count(), 20);
    }

    #[test]
    fn failures_are_counted_by_call_and_code() {
        let mut figures = Figures::new();
        let latency = Duration::from_millis(1);
        for _ in 0..2 {
            figures.record(Call::Active, latency, Some(&error(429, "rate_limited")));
        }
        figures.record(Call::Start, latency, Some(&error(503, "overloaded")));
        figures.record(Call::Start, latency, None);
        assert_eq!((figures.requests(), figures.errors()), (4, 3));
        let failed: Vec<String> = figures
            .failed()
            .map(|(call, failure, failed)| {
                let call = call.as_str();
                format!("{call} {failure} {} {}", failed.count, failed.example)
            })
            .collect();
        assert_eq!(
            failed,
            [
                "start 503 overloaded 1 example of overloaded",
                "active 429 rate_limited 2 example of rate_limited"
            ]
        );
    }

    #[test]
    fn a_service_with_countless_codes_does_not_fill_the_memory() {
        let mut figures = Figures::new();
        for code in 0..1_000 {
            let error = error(500, &code.to_string());
            figures.record(Call::End, Duration::from_millis(1), Some(&error));
        }
        assert_eq!(figures.errors(), 1_000);
        assert_eq!(figures.failed().count(), MAX_ERRORS + 1);
    }

    #[test]
    fn latencies_beyond_the_histogram_are_recorded_as_its_maximum() {
        let mut figures = Figures::new();
        figures.record(Call::End, Duration::from_hours(1), None);
        let max = figures.latencies(Call::End).max();
        assert!(max >= 60_000.0, "{max}");
    }
}
