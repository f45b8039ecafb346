//! Waits of requests for a connection of the pool `api`, from the service's histogram
//! `reading_sessions_pool_wait_seconds`.

use anyhow::{Context, ensure};

const PREFIX: &str = "reading_sessions_pool_wait_seconds_bucket{";

/// The cumulative buckets: upper bound in seconds, and waits up to it. The last bound is
/// infinite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waits(Vec<(f64, u64)>);

impl Waits {
    /// Parses the metrics of a process.
    pub fn parse(metrics: &str) -> anyhow::Result<Self> {
        let mut buckets = Vec::new();
        for line in metrics.lines() {
            let Some((labels, count)) = line
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split_once("} "))
            else {
                continue;
            };
            let label = |name: &str| {
                let (_, value) = labels.split_once(&format!("{name}=\""))?;
                Some(value.split_once('"')?.0)
            };
            if label("pool") != Some("api") {
                continue;
            }
            let bound = match label("le").context("a bucket has no bound")? {
                "+Inf" => f64::INFINITY,
                bound => bound.parse()?,
            };
            buckets.push((bound, count.trim().parse()?));
        }
        ensure!(!buckets.is_empty(), "the metrics have no waits of the pool");
        Ok(Self(buckets))
    }

    /// The waits since an earlier measurement of the same process.
    pub fn since(&self, before: &Self) -> Self {
        let buckets = self.0.iter().zip(&before.0);
        Self(
            buckets
                .map(|((bound, now), (_, before))| (*bound, now.saturating_sub(*before)))
                .collect(),
        )
    }

    pub fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// A percentile in milliseconds, interpolated linearly within its bucket. Infinite if
    /// it is above the last finite bound; 0 without waits.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = self.count() as f64 * percent / 100.0;
        let (mut lower, mut below) = (0.0, 0);
        for (bound, count) in &self.0 {
            if *count as f64 >= rank && *count > below {
                let within = (rank - below as f64) / (*count - below) as f64;
                return 1_000.0 * (lower + (bound - lower) * within);
            }
            (lower, below) = (*bound, *count);
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
        reading_sessions_pool_wait_seconds_sum{pool=\"api\"} 0.5\n\
        reading_sessions_pool_wait_seconds_bucket{le=\"0.001\",pool=\"api\"} 900\n\
        reading_sessions_pool_wait_seconds_bucket{le=\"0.005\",pool=\"api\"} 980\n\
        reading_sessions_pool_wait_seconds_bucket{le=\"0.01\",pool=\"api\"} 1000\n\
        reading_sessions_pool_wait_seconds_bucket{le=\"+Inf\",pool=\"api\"} 1000\n\
        reading_sessions_pool_wait_seconds_bucket{le=\"0.001\",pool=\"reads\"} 7\n";

    #[test]
    fn percentiles_are_interpolated_within_their_bucket() {
        let waits = Waits::parse(METRICS).unwrap();
        assert_eq!(waits.count(), 1_000);
        assert!((waits.percentile(99.0) - 7.5).abs() < 1e-9);
        assert!((waits.percentile(45.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn waits_of_one_run_are_the_difference() {
        let before = Waits::parse(METRICS).unwrap();
        let metrics = METRICS.replace(" 980", " 990").replace(" 1000", " 1010");
        let waits = Waits::parse(&metrics).unwrap().since(&before);
        assert_eq!(waits.count(), 10);
        assert!((waits.percentile(99.0) - 4.96).abs() < 1e-9);
    }

    #[test]
    fn a_wait_above_all_bounds_is_infinite() {
        let metrics = METRICS.replace("\"+Inf\",pool=\"api\"} 1000", "\"+Inf\",pool=\"api\"} 2000");
        let waits = Waits::parse(&metrics).unwrap();
        assert!(waits.percentile(99.0).is_infinite());
    }

    #[test]
    fn no_waits_have_a_percentile_of_zero() {
        let before = Waits::parse(METRICS).unwrap();
        assert!(before.since(&before).percentile(99.0).abs() < f64::EPSILON);
        assert!(Waits::parse("").is_err());
    }
}
