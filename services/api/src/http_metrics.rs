//! Requests, counted: how many, with which answers, and how long they took.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use prometheus_client::registry::Registry;

/// Upper bounds of the latencies told apart, in seconds: from a read of Redis
/// to the deadline of a request.
const LATENCIES: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0,
];

/// What is counted of the requests to a listener; cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    answered: Family<Answered, Counter>,
    took: Family<Route, Histogram>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: Arc<str>,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    method: &'static str,
    route: Arc<str>,
}

impl HttpMetrics {
    /// That of client apps.
    #[must_use]
    pub fn of_apps(registry: &mut Registry) -> Self {
        Self::new(registry, "reading_sessions_http", "client apps")
    }

    /// That of operators and probes.
    #[must_use]
    pub fn of_operators(registry: &mut Registry) -> Self {
        Self::new(registry, "reading_sessions_admin_http", "operators")
    }

    fn new(registry: &mut Registry, prefix: &str, whose: &str) -> Self {
        let latencies: fn() -> Histogram = || Histogram::new(LATENCIES);
        let answered = Family::default();
        registry.register(&format!("{prefix}_requests"), &format!("Requests of {whose}, by their answer's status"), answered.clone());
        let took = Family::new_with_constructor(latencies);
        registry.register(&format!("{prefix}_request_duration_seconds"), &format!("Time from a request of {whose} to the head of its answer"), took.clone());
        Self {
            answered,
            took,
        }
    }

    /// Counts an answer; `route` is the pattern of its path.
    pub fn count(&self, method: &Method, route: &Arc<str>, status: StatusCode, took: Duration) {
        let method = known(method);
        let answered = Answered {
            method,
            route: Arc::clone(route),
            status: status.as_u16(),
        };
        self.answered.get_or_create(&answered).inc();
        let route = Arc::clone(route);
        let route = Route { method, route };
        self.took.get_or_create(&route).observe(took.as_secs_f64());
    }
}

/// A client may send any method; a label must not grow with that.
fn known(method: &Method) -> &'static str {
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
        let traffic = HttpMetrics::of_apps(&mut registry);
        let took = Duration::from_millis(3);
        for status in [StatusCode::OK, StatusCode::OK, StatusCode::NOT_FOUND] {
            traffic.count(&Method::GET, &"/{id}".into(), status, took);
        }
        traffic.count(
            &Method::from_bytes(b"X").unwrap(),
            &"none".into(),
            StatusCode::OK,
            took,
        );
        let text = crate::health::text(&registry);
        for line in [
            r#"reading_sessions_http_requests_total{method="GET",route="/{id}",status="200"} 2"#,
            r#"reading_sessions_http_requests_total{method="GET",route="/{id}",status="404"} 1"#,
            r#"reading_sessions_http_requests_total{method="other",route="none",status="200"} 1"#,
            r#"reading_sessions_http_request_duration_seconds_bucket{le="0.002",method="GET",route="/{id}"} 0"#,
            r#"reading_sessions_http_request_duration_seconds_bucket{le="0.005",method="GET",route="/{id}"} 3"#,
        ] {
            assert!(text.lines().any(|said| said == line), "{line}\n{text}");
        }
    }
}
