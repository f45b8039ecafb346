//! Probes and metrics, on the admin listener. `/livez` checks the process alone,
//! `/readyz` checks Postgres and reports the failures of the roles, `/metrics` returns
//! `OpenMetrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use eventlog::database_health::DatabaseHealth;
use eventlog::health::{Failure, HealthRegistry};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

/// The content type of `OpenMetrics` 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)
        .expect("writing to a string cannot fail");
    text
}

/// The state of this process, from which `/readyz` decides between 200 and 503.
#[derive(Clone)]
pub struct Readiness {
    pub database: DatabaseHealth,
    pub failures: HealthRegistry,
    /// Whether this process serves client apps. It then receives requests in spite of
    /// failures that do not affect them.
    pub serves_requests: bool,
}

pub fn router(readiness: Readiness, registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/livez", get(async || Json(json!({ "status": "alive" }))))
        .route("/readyz", get(ready))
        .with_state(readiness)
        .route(
            "/metrics",
            get(async move || ([(header::CONTENT_TYPE, OPEN_METRICS)], text(&registry))),
        )
}

/// Ignores that NATS or Redis are unavailable: the service works without them, and
/// catches up later. Lists all failures, also those that do not make the process unready.
async fn ready(State(readiness): State<Readiness>) -> (StatusCode, Json<Value>) {
    readiness.database.check().await;
    let failures = readiness.failures.failures();
    let failures: Vec<(Failure, String)> = failures
        .into_iter()
        .filter_map(|(failure, reason)| Some((failure, reason?)))
        .collect();
    let is_blocking = |failure: &Failure| failure.affects_requests() || !readiness.serves_requests;
    let blocking = failures.iter().find(|(failure, _)| is_blocking(failure));
    let list: Vec<Value> = failures
        .iter()
        .map(|(failure, reason)| json!({ "name": failure.as_str(), "reason": reason }))
        .collect();
    match blocking {
        None => (
            StatusCode::OK,
            Json(json!({ "status": "ready", "failures": list })),
        ),
        Some((_, reason)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "status": "not ready", "reason": reason, "failures": list })),
        ),
    }
}
