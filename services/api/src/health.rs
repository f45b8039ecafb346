//! Probes, on the operators' listener. `/livez` says that the process runs and
//! asks nothing else; `/readyz` that it can do its work; `/metrics` what it did.

use prometheus_client::registry::Registry;
use eventlog::database_health::DatabaseHealth;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// The content type of [`text`] (`OpenMetrics` 1.0).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)
        .expect("writing to a string cannot fail");
    text
}

/// All that probes may call.
pub fn router(pulse: DatabaseHealth, registry: Registry) -> Router {
    let registry = Arc::new(registry);
    Router::new()
        .route("/livez", get(async || Json(json!({ "status": "alive" }))))
        .route("/readyz", get(ready))
        .with_state(pulse)
        .route(
            "/metrics",
            get(async move || ([(header::CONTENT_TYPE, OPEN_METRICS)], text(&registry))),
        )
}

/// Ready when Postgres answers. NATS and Redis are not asked: without them the
/// service does its work and catches up later.
async fn ready(State(pulse): State<DatabaseHealth>) -> (StatusCode, Json<Value>) {
    if pulse.ask().await {
        (StatusCode::OK, Json(json!({ "status": "ready" })))
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "status": "not ready", "reason": "Postgres does not answer" })),
        )
    }
}
