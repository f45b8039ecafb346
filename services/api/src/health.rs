//! Probes and metrics, on the admin listener. `/livez` checks the process alone,
//! `/readyz` checks Postgres, `/metrics` returns `OpenMetrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use eventlog::database_health::DatabaseHealth;
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

pub fn router(database_health: DatabaseHealth, registry: Registry) -> Router {
    let registry = Arc::new(registry);
    Router::new()
        .route("/livez", get(async || Json(json!({ "status": "alive" }))))
        .route("/readyz", get(ready))
        .with_state(database_health)
        .route(
            "/metrics",
            get(async move || ([(header::CONTENT_TYPE, OPEN_METRICS)], text(&registry))),
        )
}

/// Ignores NATS and Redis: without them the service works, and catches up later.
async fn ready(State(database_health): State<DatabaseHealth>) -> (StatusCode, Json<Value>) {
    if database_health.check().await {
        (StatusCode::OK, Json(json!({ "status": "ready" })))
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "status": "not ready", "reason": "Postgres is unavailable" })),
        )
    }
}
