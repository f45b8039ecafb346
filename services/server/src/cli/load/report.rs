//! The report of a load test, as text and as JSON. Contains no token.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

mod text;

use super::criteria::{Criteria, CriterionReport};
use super::figures::{Call, Figures, Latencies};

/// The conditions of a run.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    pub users: usize,
    pub length: Duration,
    pub was_stopped: bool,
}

#[derive(Debug, Serialize)]
pub struct Report {
    address: String,
    /// Users that the run has started.
    users: usize,
    /// From the first request to the end of the run, without requests in progress then.
    seconds: f64,
    /// Whether Ctrl-C or SIGTERM ended the run.
    stopped_early: bool,
    calls: Vec<CallReport>,
    total: CallReport,
    errors: Vec<ErrorReport>,
    /// Requests that failed with 429, also contained in the errors.
    rate_limited: u64,
    criteria: Vec<CriterionReport>,
    met: bool,
    readers: ReadersReport,
}

#[derive(Debug, Serialize)]
struct CallReport {
    call: &'static str,
    requests: u64,
    errors: u64,
    /// Errors by HTTP status, or by `timeout`, `connection` or `invalid response`.
    failures: BTreeMap<String, u64>,
    requests_per_second: f64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

#[derive(Debug, Serialize)]
struct ErrorReport {
    call: &'static str,
    error: String,
    count: u64,
    example: String,
}

/// The readers after the run.
#[derive(Debug, Default, Serialize)]
pub struct ReadersReport {
    /// Sessions that were active at the end of the run, and are ended.
    pub sessions_ended: u64,
    /// Sessions that may remain active.
    pub sessions_not_ended: u64,
    /// New readers; `None` if the tokens come from a file.
    pub new: Option<NewReadersReport>,
}

#[derive(Debug, Serialize)]
pub struct NewReadersReport {
    pub count: u64,
    /// Ids; the last twelve digits count from 0 in hexadecimal.
    pub first: String,
    pub last: String,
    pub erased: u64,
    /// Why `--erase` has not erased all of them; null if it has, or without it.
    pub erase_error: Option<String>,
    /// A shell command that erases all of them.
    pub erase_command: String,
}

impl Report {
    pub fn new(
        address: &str,
        conditions: Conditions,
        figures: &Figures,
        criteria: Criteria,
        readers: ReadersReport,
    ) -> Self {
        let seconds = conditions.length.as_secs_f64();
        let calls = Call::ALL
            .into_iter()
            .map(|call| {
                let failures = failures(figures, |failed| failed == call);
                CallReport::new(call.as_str(), figures.latencies(call), failures, seconds)
            })
            .collect();
        let all = figures.all_latencies();
        let total = CallReport::new(
            "total",
            Latencies(&all),
            failures(figures, |_| true),
            seconds,
        );
        let errors = figures.failed().map(|(call, failure, failed)| ErrorReport {
            call: call.as_str(),
            error: failure.to_string(),
            count: failed.count,
            example: failed.example.clone(),
        });
        let rate_limited = figures
            .failed()
            .filter(|(_, failure, _)| failure.is_rate_limit())
            .map(|(_, _, failed)| failed.count)
            .sum();
        let criteria = criteria.check(total.requests, total.errors, total.p95_ms, total.p99_ms);
        Self {
            address: address.to_owned(),
            users: conditions.users,
            seconds,
            stopped_early: conditions.was_stopped,
            calls,
            errors: errors.collect(),
            rate_limited,
            met: criteria.iter().all(|criterion| criterion.met),
            criteria,
            total,
            readers,
        }
    }

    pub const fn is_met(&self) -> bool {
        self.met
    }

    /// How many new readers `--erase` has not erased, and why.
    pub fn not_erased(&self) -> Option<(u64, &str)> {
        let new = self.readers.new.as_ref()?;
        let error = new.erase_error.as_deref()?;
        Some((new.count - new.erased, error))
    }
}

impl CallReport {
    fn new(
        call: &'static str,
        latencies: Latencies<'_>,
        failures: BTreeMap<String, u64>,
        seconds: f64,
    ) -> Self {
        let requests = latencies.count();
        Self {
            call,
            requests,
            errors: failures.values().sum(),
            failures,
            requests_per_second: decimal(requests) / seconds.max(0.001),
            p50_ms: latencies.quantile(0.5),
            p95_ms: latencies.quantile(0.95),
            p99_ms: latencies.quantile(0.99),
            max_ms: latencies.max(),
        }
    }
}

/// The failures of some calls by status.
fn failures(figures: &Figures, is_wanted: impl Fn(Call) -> bool) -> BTreeMap<String, u64> {
    let mut failures = BTreeMap::new();
    for (call, failure, failed) in figures.failed() {
        if is_wanted(call) {
            *failures.entry(failure.status()).or_default() += failed.count;
        }
    }
    failures
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
fn decimal(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::load::figures::Failure;
    use crate::cli::load::http::CallError;

    /// The report on 2,000 requests in ten seconds. The last `errors` of them failed with
    /// 429.
    pub fn report(errors: u64) -> Report {
        let mut figures = Figures::new();
        let error = CallError {
            failure: Failure::Status {
                status: 429,
                code: "rate_limited".to_owned(),
            },
            example: "Rate limit exceeded".to_owned(),
        };
        for n in 0..2_000 {
            let failed = n >= 2_000 - errors;
            let latency = Duration::from_millis(5);
            figures.record(Call::Active, latency, failed.then_some(&error));
        }
        let conditions = Conditions {
            users: 100,
            length: Duration::from_secs(10),
            was_stopped: false,
        };
        let readers = ReadersReport::default();
        let address = "http://reading.example";
        Report::new(address, conditions, &figures, Criteria::default(), readers)
    }

    #[test]
    fn json_adds_up() {
        let json = serde_json::to_value(report(500)).unwrap();
        assert_eq!(json["total"]["failures"]["429"], 500);
        assert_eq!(json["calls"][4]["requests"], 2_000);
        assert_eq!(json["calls"][4]["requests_per_second"], 200.0);
        assert_eq!(json["rate_limited"], 500);
        assert_eq!(json["met"], false);
        assert!(report(0).is_met());
    }
}
