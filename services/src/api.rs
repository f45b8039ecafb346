//! The HTTP edge for client apps: routes, in the order of the data's path, and
//! the layers around them, in the order a request meets them.

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Router, middleware};
use eventlog::Sessions;
use projections::cache::Cache;
use projections::checkpoint::Awaited;
use sqlx::PgPool;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

pub mod admission;
pub mod answer;
pub mod auth;
pub mod commands;
pub mod cors;
pub mod edge;
pub mod extract;
pub mod freshness;
pub mod health;
pub mod idempotency;
pub mod openapi;
pub mod problem;
pub mod queries;
pub mod rate_limit;
pub mod serve;
pub mod session;

use admission::Admission;
use idempotency::Idempotency;
use problem::Problem;
use rate_limit::Preset;

/// The largest body taken, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Answers larger than this are compressed for who takes that, in bytes.
const COMPRESS_ABOVE: u16 = 1_000;

/// What the handlers work with; all of it is cheap to clone.
#[derive(Clone)]
pub struct State {
    /// The command side, and sessions as they stand in the log.
    pub sessions: Sessions,
    /// The read tables.
    pub pool: PgPool,
    /// How far the history is.
    pub history: Awaited,
    /// How far the statistics are.
    pub daily_stats: Awaited,
    /// The active sessions.
    pub cache: Cache,
}

/// All that client apps may call.
pub fn router(state: State, admission: Admission, origins: &[HeaderValue]) -> Router {
    let admitted =
        |preset| middleware::from_fn_with_state((admission.clone(), preset), admission::readers);
    let once =
        middleware::from_fn_with_state(Idempotency::new(state.pool.clone()), idempotency::once);
    let updates = Router::new()
        .route("/{id}/update", put(commands::update::handle))
        .route("/batch-update", post(commands::batch_update::handle))
        .route_layer(once.clone())
        .method_not_allowed_fallback(method_not_allowed)
        .layer(admitted(Preset::HighFrequency));
    let commands = Router::new()
        .route("/start", post(commands::start::handle))
        .route("/{id}/end", put(commands::end::handle))
        .route_layer(once);
    let calls = commands
        .route("/active", get(queries::active::handle))
        .route("/history", get(queries::history::handle))
        .route("/stats/daily", get(queries::daily::handle))
        .route("/stats/weekly", get(queries::weekly::handle))
        .route("/stats/streak", get(queries::streak::handle))
        .route("/stats/patterns", get(queries::patterns::handle))
        .route("/{id}", get(queries::session::handle))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(admitted(Preset::Normal));
    let sessions = updates
        .merge(calls)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(state);

    let router = openapi::router()
        .fallback(async || Problem::not_found("There is nothing at this address"))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(admission, admission::anyone))
        .nest("/api/v1/reading-sessions", sessions)
        .layer(CompressionLayer::new().compress_when(SizeAbove::new(COMPRESS_ABOVE)))
        .layer(middleware::from_fn_with_state(
            edge::Places::default(),
            edge::edge,
        ));
    // Outside, so that a browser can read every problem.
    cors::apply(router, origins)
}

/// The router adds which methods are allowed; to who only asks, that is the
/// answer.
async fn method_not_allowed(method: Method) -> Response {
    if method == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        Problem::method_not_allowed().into_response()
    }
}
