//! The criteria of a load test: limits of the errors and latencies of all calls together.

use clap::Args;
use serde::Serialize;

/// The limits that a run must meet.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Criteria")]
pub struct Criteria {
    /// Percent of requests that may fail; the errors must be fewer. 0 allows none.
    #[arg(long = "max-error-percent", value_name = "PERCENT", default_value = "1", value_parser = non_negative)]
    pub error_percent: f64,
    /// Milliseconds that the 95th percentile of all latencies must be below.
    #[arg(long = "max-p95", value_name = "MS", default_value = "100", value_parser = non_negative)]
    pub p95: f64,
    /// Milliseconds that the 99th percentile of all latencies must be below.
    #[arg(long = "max-p99", value_name = "MS", default_value = "200", value_parser = non_negative)]
    pub p99: f64,
}

/// Parses a limit.
fn non_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("expected a number of at least 0".to_owned()),
    }
}

#[derive(Debug, Serialize)]
pub struct CriterionReport {
    pub criterion: &'static str,
    pub value: f64,
    pub limit: f64,
    pub met: bool,
}

impl Criteria {
    /// Latencies are milliseconds. A run without requests meets no criterion.
    pub fn check(self, requests: u64, errors: u64, p95: f64, p99: f64) -> Vec<CriterionReport> {
        let is_measured = requests > 0;
        let criterion = |criterion, value, limit, met: bool| CriterionReport {
            criterion,
            value,
            limit,
            met: met && is_measured,
        };
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
        let error_percent = 100.0 * errors as f64 / requests.max(1) as f64;
        let few_errors = errors == 0 || error_percent < self.error_percent;
        vec![
            criterion(
                "error_percent",
                error_percent,
                self.error_percent,
                few_errors,
            ),
            criterion("p95_ms", p95, self.p95, p95 < self.p95),
            criterion("p99_ms", p99, self.p99, p99 < self.p99),
        ]
    }
}

#[cfg(test)]
impl Default for Criteria {
    fn default() -> Self {
        Self {
            error_percent: 1.0,
            p95: 100.0,
            p99: 200.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which criteria are met.
    fn met(criteria: Criteria, requests: u64, errors: u64, p95: f64, p99: f64) -> Vec<bool> {
        let checked = criteria.check(requests, errors, p95, p99).into_iter();
        checked.map(|criterion| criterion.met).collect()
    }

    #[test]
    fn criteria_are_strict_limits() {
        let met = |requests, errors, p95, p99| met(Criteria::default(), requests, errors, p95, p99);
        assert_eq!(met(1_000, 9, 99.9, 199.9), [true, true, true]);
        assert_eq!(met(1_000, 10, 99.9, 199.9), [false, true, true]);
        assert_eq!(met(1_000, 0, 100.0, 199.9), [true, false, true]);
        assert_eq!(met(1_000, 0, 5.0, 200.0), [true, true, false]);
        assert_eq!(met(0, 0, 0.0, 0.0), [false, false, false]);
    }

    #[test]
    fn zero_percent_allows_no_error() {
        let none = Criteria {
            error_percent: 0.0,
            ..Criteria::default()
        };
        assert_eq!(met(none, 10, 0, 1.0, 1.0), [true, true, true]);
        assert_eq!(met(none, 10, 1, 1.0, 1.0), [false, true, true]);
    }

    #[test]
    fn limits_are_numbers_from_zero_on() {
        assert!(non_negative("0").is_ok() && non_negative("0.5").is_ok());
        for invalid in ["-1", "nan", "inf", "x", ""] {
            assert!(non_negative(invalid).is_err(), "{invalid}");
        }
    }
}
