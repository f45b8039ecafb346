//! The admin listener: probes and metrics, which need no token, and the admin API,
//! which requires admin tokens. Long operations run in the background.

use axum::Router;
use axum::routing::{get, post};
use eventlog::trace::Traces;
use prometheus_client::registry::Registry;
use sqlx::PgPool;

pub mod projections;

pub mod pause;
pub mod replay;
pub mod replay_queue;

pub mod dead_letters;

pub mod cleanup;
pub mod jobs;

pub mod daily;

pub mod heap_profile;

use crate::admission::{Admission, RequireAdmin};
use crate::health::Readiness;
use crate::http_metrics::HttpMetrics;
use crate::in_flight::InFlightLimit;
use crate::middleware::MiddlewareLayer;
use crate::problem::Problem;
use crate::request_log::RequestLog;
use crate::{health, openapi};
use replay_queue::ReplayQueue;

/// Admin requests in progress at the same time. Operators send few, and these must
/// not use up the connections that client apps need.
const MAX_IN_FLIGHT: usize = 16;

/// The dependencies of the handlers.
pub struct Handles {
    pub pool: PgPool,
    pub replays: ReplayQueue,
    pub admission: Admission,
}

/// The routes of the admin listener. Without `handles`, because this process cannot
/// verify tokens, it serves probes and metrics only.
pub fn router(readiness: Readiness, handles: Option<Handles>, mut registry: Registry) -> Router {
    let metrics = HttpMetrics::for_admin(&mut registry);
    let mut router = health::router(readiness, registry)
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || Problem::method_not_allowed());
    if let Some(handles) = handles {
        router = router
            .merge(openapi::admin::router())
            .nest("/api/v1/admin", admin_api(handles));
    }
    // Probes and scrapes would be most of the traces.
    let traces = Traces::default();
    router.layer(MiddlewareLayer(RequestLog { metrics, traces }))
}

fn admin_api(handles: Handles) -> Router {
    let Handles {
        pool,
        replays,
        admission,
    } = handles;
    Router::new()
        .route("/projections/{name}/replay", post(replay::handle))
        .with_state((pool.clone(), replays))
        .route("/stats/daily", get(daily::handle))
        .route("/heap-profile", get(heap_profile::handle))
        .route("/projections", get(projections::list))
        .route("/projections/{name}/pause", post(pause::pause))
        .route("/projections/{name}/resume", post(pause::resume))
        .route("/cache/warmup", post(jobs::warm_up))
        .route("/jobs", get(jobs::list))
        .route("/jobs/{name}/run", post(jobs::run))
        .route("/reading-sessions/cleanup-stats", get(cleanup::stats))
        .route("/reading-sessions/cleanup", post(cleanup::run))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/{id}", get(dead_letters::show))
        .route("/dead-letters/{id}/retry", post(dead_letters::retry))
        .route("/dead-letters/{id}/discard", post(dead_letters::discard))
        .with_state(pool)
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(MiddlewareLayer(RequireAdmin {
            admission,
            in_flight: InFlightLimit::new(MAX_IN_FLIGHT),
        }))
}
