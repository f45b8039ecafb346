//! Probes, on the operators' listener. `/livez` says that the process runs and
//! asks nothing else; `/readyz` that it can do its work; `/metrics` what it did.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use sqlx::{Connection, PgPool};

use crate::metrics::{self, Metrics};

/// How long Postgres may take to answer a probe.
const DEADLINE: Duration = Duration::from_secs(1);

/// All that probes may call.
pub fn router(pool: PgPool, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(async || Json(json!({ "status": "alive" }))))
        .route("/readyz", get(ready))
        .with_state(pool)
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
async fn ready(State(pool): State<PgPool>) -> (StatusCode, Json<Value>) {
    let ping = async { pool.acquire().await?.ping().await };
    match tokio::time::timeout(DEADLINE, ping).await {
        Ok(Ok(())) => (StatusCode::OK, Json(json!({ "status": "ready" }))),
        Ok(Err(_)) | Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "status": "not ready", "reason": "Postgres does not answer" })),
        ),
    }
}
