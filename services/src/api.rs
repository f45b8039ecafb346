//! The HTTP edge for client apps: routes, in the order of the data's path, and
//! the layers around them, in the order a request meets them.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post, put};
use eventlog::Sessions;
use projections::cache::Cache;
use sqlx::PgPool;

pub mod auth;
pub mod commands;
pub mod edge;
pub mod extract;
pub mod health;
pub mod problem;
pub mod queries;
pub mod serve;
pub mod session;

use problem::Problem;

/// The largest body taken, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// What the handlers work with; all of it is cheap to clone.
#[derive(Clone)]
pub struct State {
    /// The command side, and sessions as they stand in the log.
    pub sessions: Sessions,
    /// The read tables.
    pub pool: PgPool,
    /// The active sessions.
    pub cache: Cache,
}

/// All that client apps may call.
pub fn router(state: State, keys: auth::Keys) -> Router {
    let sessions = Router::new()
        .route("/start", post(commands::start::handle))
        .route("/batch-update", post(commands::batch_update::handle))
        .route("/active", get(queries::active::handle))
        .route("/history", get(queries::history::handle))
        .route("/stats/daily", get(queries::daily::handle))
        .route("/{id}", get(queries::session::handle))
        .route("/{id}/update", put(commands::update::handle))
        .route("/{id}/end", put(commands::end::handle))
        .layer(middleware::from_fn_with_state(keys, auth::authenticate))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(state);
    Router::new()
        .nest("/api/v1/reading-sessions", sessions)
        .fallback(async || Problem::not_found("There is nothing at this address"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(middleware::from_fn(edge::edge))
}
