//! The admin listener: probes and metrics, which need no token; the pages of the console,
//! which contain no data; and the admin API, which requires admin tokens. Long operations
//! run in the background.

use std::sync::Arc;

use ::projections::cache::Cache;
use axum::Router;
use axum::routing::{get, post};
use eventlog::trace::Traces;
use prometheus_client::registry::Registry;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

pub mod recorded;

pub mod projections;

pub mod operation_queue;
pub mod pause;
pub mod replay;
pub mod verify;

pub mod dead_letters;

pub mod cleanup;
pub mod jobs;

pub mod daily;

mod page;

pub mod heap_profile;
pub mod readers;
pub mod sessions;

pub mod access;
pub mod audit;
pub mod live;
pub mod processes;

use crate::admission::{Admission, RequireAdmin};
use crate::export::Exporter;
use crate::health::Readiness;
use crate::http_metrics::HttpMetrics;
use crate::in_flight::InFlightLimit;
use crate::middleware::MiddlewareLayer;
use crate::problem::Problem;
use crate::request_log::RequestLog;
use crate::{console, health, openapi};
use access::Process;
use live::LiveHandles;
use operation_queue::OperationQueue;
use readers::ReaderHandles;
use recorded::RecordActions;

/// The prefix of the admin API.
const PATH: &str = "/api/v1/admin";

/// Admin requests in progress at the same time. Operators send few, and these must
/// not use up the connections that client apps need.
const MAX_IN_FLIGHT: usize = 16;

/// The dependencies of the handlers.
pub struct Handles {
    pub pool: PgPool,
    /// For the streams of `live`.
    pub live_pool: PgPool,
    pub cache: Cache,
    pub operations: OperationQueue,
    pub actions: RecordActions,
    pub admission: Admission,
    /// This process.
    pub process: Process,
    /// Ends the streams.
    pub stop: CancellationToken,
}

/// The routes of the admin listener. Without `handles`, because this process cannot
/// verify tokens, it serves probes and metrics only.
pub fn router(readiness: Readiness, handles: Option<Handles>, mut registry: Registry) -> Router {
    let metrics = HttpMetrics::for_admin(&mut registry);
    let registry = Arc::new(registry);
    let mut router = health::router(readiness, Arc::clone(&registry))
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || Problem::method_not_allowed());
    if let Some(handles) = handles {
        router = router
            .merge(openapi::admin::router())
            .merge(console::router())
            .nest(PATH, admin_api(handles, registry));
    }
    // Probes and scrapes would be most of the traces.
    let traces = Traces::default();
    router.layer(MiddlewareLayer(RequestLog { metrics, traces }))
}

fn admin_api(handles: Handles, registry: Arc<Registry>) -> Router {
    let Handles {
        pool,
        live_pool,
        cache,
        operations,
        actions,
        admission,
        process,
        stop,
    } = handles;
    let live = LiveHandles::new(live_pool, &process, registry, stop);
    let readers = ReaderHandles {
        pool: pool.clone(),
        cache,
        exporter: Exporter::new(pool.clone()),
    };
    Router::new()
        .route("/projections/{name}/replay", post(replay::handle))
        .with_state((pool.clone(), operations.clone()))
        .route("/projections/{name}/verify", post(verify::handle))
        .with_state(operations)
        .route("/readers/{id}", get(readers::show).delete(readers::erase))
        .route("/readers/{id}/export", post(readers::export))
        .with_state(readers)
        .route("/access", get(access::handle))
        .with_state(process.clone())
        .route("/processes", get(processes::list))
        .with_state((pool.clone(), process))
        .route("/live", get(live::handle))
        .with_state(live)
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
        .route("/sessions/{id}", get(sessions::handle))
        .route("/audit", get(audit::list))
        .route("/audit/{id}", get(audit::show))
        .with_state(pool)
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer((
            MiddlewareLayer(RequireAdmin {
                admission,
                in_flight: InFlightLimit::new(MAX_IN_FLIGHT),
            }),
            MiddlewareLayer(actions),
        ))
}
