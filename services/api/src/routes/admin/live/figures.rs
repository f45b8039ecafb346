//! The figures of this process, read from its own metrics in the text form in which
//! `/metrics` returns them. Reading them costs requests nothing, and both agree.

use std::collections::BTreeMap;

use prometheus_client::registry::Registry;
use serde::Serialize;
use utoipa::ToSchema;

use crate::health;

/// The figures of one process. Counts begin at its start.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct ProcessFigures {
    /// Machine, process id and a random part. Leases have the same name.
    name: String,
    /// Requests of client apps.
    requests: u64,
    /// Those with a response of 400 to 499.
    client_errors: u64,
    /// Those with a response of 500 to 599.
    server_errors: u64,
    /// The histogram of their durations.
    durations: Vec<DurationBucket>,
    pools: Vec<PoolFigures>,
    /// Null if the process does not have the role `relay`.
    #[schema(required)]
    relay: Option<RelayFigures>,
}

/// The number of requests that took at most this long.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct DurationBucket {
    /// Null for the last bucket, which contains all requests.
    #[schema(required)]
    seconds: Option<f64>,
    requests: u64,
}

/// A pool of connections to Postgres.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct PoolFigures {
    name: String,
    in_use: u64,
    idle: u64,
    max: u64,
}

/// The relay of the process.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct RelayFigures {
    /// Whether it publishes. A relay on standby does not.
    leads: bool,
    /// The global position up to which it has published. Null until it leads for the first
    /// time, and while another relay leads.
    #[schema(required)]
    position: Option<i64>,
}

impl ProcessFigures {
    /// `name` is the name of this process.
    pub(super) fn from_registry(name: &str, registry: &Registry) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::from_text(&health::text(registry))
        }
    }

    fn from_text(text: &str) -> Self {
        let mut figures = Self::default();
        let mut pools: BTreeMap<&str, PoolFigures> = BTreeMap::new();
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for sample in text.lines().filter_map(Sample::parse) {
            match sample.name {
                "reading_sessions_http_requests_total" => {
                    let count = sample.count();
                    figures.requests += count;
                    match sample
                        .label("status")
                        .and_then(|status| status.bytes().next())
                    {
                        Some(b'4') => figures.client_errors += count,
                        Some(b'5') => figures.server_errors += count,
                        _ => {}
                    }
                }
                "reading_sessions_http_request_duration_seconds_bucket" => {
                    let bound = match sample.label("le") {
                        Some("+Inf") | None => f64::INFINITY,
                        Some(bound) => bound.parse().unwrap_or(f64::INFINITY),
                    };
                    match buckets
                        .iter_mut()
                        .find(|(known, _)| bound.total_cmp(known).is_eq())
                    {
                        Some((_, requests)) => *requests += sample.count(),
                        None => buckets.push((bound, sample.count())),
                    }
                }
                "reading_sessions_pool_connections" => {
                    let pool = pools
                        .entry(sample.label("pool").unwrap_or_default())
                        .or_default();
                    match sample.label("state") {
                        Some("in_use") => pool.in_use += sample.count(),
                        _ => pool.idle += sample.count(),
                    }
                }
                "reading_sessions_pool_max_connections" => {
                    let pool = pools
                        .entry(sample.label("pool").unwrap_or_default())
                        .or_default();
                    pool.max += sample.count();
                }
                "reading_sessions_relay_leads" => {
                    figures.relay.get_or_insert_default().leads = sample.count() > 0;
                }
                "reading_sessions_relay_position" => {
                    let position = i64::try_from(sample.count()).unwrap_or(i64::MAX);
                    figures.relay.get_or_insert_default().position = Some(position);
                }
                _ => {}
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        figures.durations = buckets
            .into_iter()
            .map(|(bound, requests)| DurationBucket {
                seconds: bound.is_finite().then_some(bound),
                requests,
            })
            .collect();
        figures.pools = pools
            .into_iter()
            .map(|(name, pool)| PoolFigures {
                name: name.to_owned(),
                ..pool
            })
            .collect();
        figures
    }
}

/// A line of the text form: `name{label="value",…} value`.
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: &'a str,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (series, value) = line.rsplit_once(' ')?;
        // Routes contain braces.
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.strip_suffix('}').unwrap_or(labels);
        Some(Self {
            name,
            labels,
            value,
        })
    }

    /// The value of a label. The labels that this module reads contain no quotes.
    fn label(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = after.split_once('"')?;
            if label == name {
                return Some(value);
            }
            rest = after.strip_prefix(',')?;
        }
    }

    /// The value of a counter or of a gauge that is never negative.
    fn count(&self) -> u64 {
        self.value.parse().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use axum::http::{Method, StatusCode};

    use super::*;
    use crate::http_metrics::HttpMetrics;

    #[test]
    fn figures_are_the_sums_of_the_metrics() {
        let mut registry = Registry::default();
        let metrics = HttpMetrics::for_clients(&mut registry);
        let admin = HttpMetrics::for_admin(&mut registry);
        let route: Arc<str> = "/{id}".into();
        let other: Arc<str> = "/active".into();
        for (route, status, milliseconds) in [
            (&route, StatusCode::OK, 3),
            (&route, StatusCode::NOT_FOUND, 1),
            (&other, StatusCode::SERVICE_UNAVAILABLE, 60_000),
        ] {
            let duration = Duration::from_millis(milliseconds);
            metrics.record(&Method::GET, route, status, duration);
            admin.record(&Method::GET, route, status, duration);
        }
        let figures = ProcessFigures::from_registry("machine/1/abcd", &registry);
        assert_eq!(
            (
                figures.requests,
                figures.client_errors,
                figures.server_errors
            ),
            (3, 1, 1)
        );
        let bucket = |seconds| {
            let mut found = figures.durations.iter();
            found
                .find(|bucket| bucket.seconds == seconds)
                .unwrap()
                .requests
        };
        assert_eq!(
            (bucket(Some(0.001)), bucket(Some(0.005)), bucket(Some(15.0))),
            (1, 2, 2)
        );
        assert_eq!(bucket(None), 3);
        assert_eq!(figures.durations.last().unwrap().seconds, None);
        assert_eq!(figures.relay, None);
    }

    #[test]
    fn pools_and_relay_are_read_from_the_text_form() {
        let figures = ProcessFigures::from_text(
            "# TYPE reading_sessions_pool_connections gauge\n\
             reading_sessions_pool_connections{pool=\"api\",state=\"in_use\"} 3\n\
             reading_sessions_pool_connections{pool=\"api\",state=\"idle\"} 4\n\
             reading_sessions_pool_max_connections{pool=\"api\"} 20\n\
             reading_sessions_relay_leads 1\n\
             reading_sessions_relay_position 77\n\
             # EOF\n",
        );
        let pool = PoolFigures {
            name: "api".to_owned(),
            in_use: 3,
            idle: 4,
            max: 20,
        };
        assert_eq!(figures.pools, [pool]);
        let relay = RelayFigures {
            leads: true,
            position: Some(77),
        };
        assert_eq!(figures.relay, Some(relay));

        let figures = ProcessFigures::from_text("reading_sessions_relay_leads 0\n");
        assert_eq!(figures.relay, Some(RelayFigures::default()));
    }
}
