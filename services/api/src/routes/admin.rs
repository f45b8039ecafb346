//! The operators' listener: probes, which need no token, and operators' calls,
//! for their tokens alone. What takes long runs in the background, and is seen
//! in the list of projections.

use axum::Router;
use axum::routing::{get, post};
use sqlx::PgPool;

pub mod cleanup;
pub mod daily;
pub mod dead_letter;
pub mod dead_letters;
pub mod pause;
pub mod jobs;
pub mod projections;
pub mod replay;
pub mod replay_queue;

use crate::admission::{Admission, RequireAdmin};
use crate::request_log::RequestLog;
use crate::middleware::MiddlewareLayer;
use crate::problem::Problem;
use crate::http_metrics::HttpMetrics;
use crate::in_flight::InFlightLimit;
use crate::{health, openapi};
use prometheus_client::registry::Registry;
use eventlog::database_health::DatabaseHealth;
use replay_queue::ReplayQueue;

/// Operators' calls at work at the same time. They are few, and must not take
/// the connections of those that apps wait for.
const MAX_IN_FLIGHT: usize = 16;

/// What the handlers work with; all of it is cheap to clone.
pub struct Handles {
    /// The tables.
    pub pool: PgPool,
    /// Where replays are begun.
    pub replays: ReplayQueue,
    /// Who comes in.
    pub admission: Admission,
}

/// All that may be called on the operators' listener: probes, and operators'
/// calls where tokens can be verified.
pub fn router(pulse: DatabaseHealth, handles: Option<Handles>, mut registry: Registry) -> Router {
    let traffic = HttpMetrics::of_operators(&mut registry);
    let mut router = health::router(pulse, registry)
        .fallback(nothing)
        .method_not_allowed_fallback(async || Problem::method_not_allowed());
    if let Some(handles) = handles {
        router = router
            .merge(openapi::admin::router())
            .nest("/api/v1/admin", calls(handles));
    }
    router.layer(MiddlewareLayer(RequestLog(traffic)))
}

async fn nothing() -> Problem {
    Problem::not_found("There is nothing at this address")
}

fn calls(handles: Handles) -> Router {
    let Handles {
        pool,
        replays,
        admission,
    } = handles;
    Router::new()
        .route("/projections/{name}/replay", post(replay::handle))
        .with_state((pool.clone(), replays))
        .route("/stats/daily", get(daily::handle))
        .route("/projections", get(projections::handle))
        .route("/projections/{name}/pause", post(pause::pause))
        .route("/projections/{name}/resume", post(pause::resume))
        .route("/cache/warmup", post(jobs::warm_up))
        .route("/jobs", get(jobs::handle))
        .route("/jobs/{name}/run", post(jobs::run))
        .route("/reading-sessions/cleanup-stats", get(cleanup::stats))
        .route("/reading-sessions/cleanup", post(cleanup::now))
        .route("/dead-letters", get(dead_letters::handle))
        .route("/dead-letters/{id}", get(dead_letter::show))
        .route("/dead-letters/{id}/retry", post(dead_letter::retry))
        .route("/dead-letters/{id}/discard", post(dead_letter::discard))
        .with_state(pool)
        .fallback(nothing)
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(MiddlewareLayer(RequireAdmin {
            admission,
            places: InFlightLimit::of(MAX_IN_FLIGHT),
        }))
}
