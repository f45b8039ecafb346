//! Probes, on the operators' listener. `/livez` says that the process runs and
//! asks nothing else; `/readyz` that it can do its work; `/metrics` what it did.

use crate::metrics::{self, Metrics};
use crate::pulse::Pulse;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// All that probes may call.
pub fn router(pulse: Pulse, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(async || Json(json!({ "status": "alive" }))))
        .route("/readyz", get(ready))
        .with_state(pulse)
        .route(
            "/metrics",
            get(async move || {
                (
                    [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
                    metrics.text(),
                )
            }),
        )
}

/// Ready when Postgres answers. NATS and Redis are not asked: without them the
/// service does its work and catches up later.
async fn ready(State(pulse): State<Pulse>) -> (StatusCode, Json<Value>) {
    if pulse.ask().await {
        (StatusCode::OK, Json(json!({ "status": "ready" })))
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "status": "not ready", "reason": "Postgres does not answer" })),
        )
    }
}
