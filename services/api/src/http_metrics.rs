//! HTTP metrics: requests by route and status, and their durations.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the histogram's buckets, in seconds. They range from the time
/// of a Redis read to the deadline of a request.
const BUCKETS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0,
];

/// The metrics of one listener; clones are cheap.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: Arc<str>,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DurationLabels {
    method: &'static str,
    route: Arc<str>,
}

impl HttpMetrics {
    /// For the listener of client apps.
    #[must_use]
    pub fn for_clients(registry: &mut Registry) -> Self {
        Self::register(registry, "reading_sessions_http", "client requests")
    }

    /// For the admin listener, which also serves the probes.
    #[must_use]
    pub fn for_admin(registry: &mut Registry) -> Self {
        Self::register(
            registry,
            "reading_sessions_admin_http",
            "requests to the admin listener",
        )
    }

    fn register(registry: &mut Registry, prefix: &str, subject: &str) -> Self {
        let requests = Family::default();
        registry.register(
            format!("{prefix}_requests"),
            format!("Number of {subject}, by method, route and status"),
            requests.clone(),
        );
        let buckets: fn() -> Histogram = || Histogram::new(BUCKETS);
        let durations = Family::new_with_constructor(buckets);
        registry.register(
            format!("{prefix}_request_duration_seconds"),
            format!("Duration of {subject} until the response headers are ready"),
            durations.clone(),
        );
        Self {
            requests,
            durations,
        }
    }

    /// Records a response. `route` is the pattern of the path, such as `/{id}`.
    pub fn record(
        &self,
        method: &Method,
        route: &Arc<str>,
        status: StatusCode,
        duration: Duration,
    ) {
        let method = method_label(method);
        let labels = RequestLabels {
            method,
            route: Arc::clone(route),
            status: status.as_u16(),
        };
        self.requests.get_or_create(&labels).inc();
        let labels = DurationLabels {
            method,
            route: Arc::clone(route),
        };
        self.durations
            .get_or_create(&labels)
            .observe(duration.as_secs_f64());
    }
}

/// Clients can send any method. One label for all unusual methods bounds the
/// number of time series.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_status() {
        let mut registry = Registry::default();
        let metrics = HttpMetrics::for_clients(&mut registry);
        let duration = Duration::from_millis(3);
        for status in [StatusCode::OK, StatusCode::OK, StatusCode::NOT_FOUND] {
            metrics.record(&Method::GET, &"/{id}".into(), status, duration);
        }
        metrics.record(
            &Method::from_bytes(b"X").unwrap(),
            &"none".into(),
            StatusCode::OK,
            duration,
        );
        let text = crate::health::text(&registry);
        for line in [
            r#"reading_sessions_http_requests_total{method="GET",route="/{id}",status="200"} 2"#,
            r#"reading_sessions_http_requests_total{method="GET",route="/{id}",status="404"} 1"#,
            r#"reading_sessions_http_requests_total{method="other",route="none",status="200"} 1"#,
            r#"reading_sessions_http_request_duration_seconds_bucket{le="0.002",method="GET",route="/{id}"} 0"#,
            r#"reading_sessions_http_request_duration_seconds_bucket{le="0.005",method="GET",route="/{id}"} 3"#,
        ] {
            assert!(
                text.lines().any(|text_line| text_line == line),
                "{line}\n{text}"
            );
        }
    }
}
