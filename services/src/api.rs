//! The HTTP edge for client apps: routes, in the order of the data's path, and
//! the layers around them, in the order a request meets them. Layers stand in one
//! list where they can: a router boxes and clones each for itself, at each request.

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Router, middleware};
use eventlog::Sessions;
use projections::cache::Cache;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

pub mod admin;
pub mod admission;
pub mod answer;
pub mod auth;
pub mod commands;
pub mod cors;
pub mod data;
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
pub mod traffic;
pub mod work;

use crate::export::Exports;
use admission::Admission;
use data::erase::Erasing;
use idempotency::Idempotency;
use problem::Problem;
use queries::ReadTable;
use queries::active::ActiveReads;
use rate_limit::Preset;
use traffic::Traffic;
use work::Places;

use crate::metrics::Metrics;

/// The largest body taken, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Answers larger than this are compressed for who takes that, in bytes.
const COMPRESS_ABOVE: u16 = 1_000;

/// What the handlers work with; all of it is cheap to clone.
pub struct Handles {
    /// The command side, and sessions as they stand in the log.
    pub sessions: Sessions,
    /// The active sessions.
    pub active: ActiveReads,
    /// Where they are kept.
    pub cache: Cache,
    /// All sessions.
    pub history: ReadTable,
    /// Days and hours.
    pub daily_stats: ReadTable,
}

/// All that client apps may call.
pub fn router(
    handles: Handles,
    admission: Admission,
    origins: &[HeaderValue],
    metrics: &Metrics,
) -> Router {
    let Handles {
        sessions,
        active,
        cache,
        history,
        daily_stats,
    } = handles;
    let places = Places::default();
    let anyone = (admission.clone(), places.clone());
    let anyone = middleware::from_fn_with_state(anyone, admission::anyone);
    let admitted = move |preset| {
        let state = (admission.clone(), places.clone(), preset);
        middleware::from_fn_with_state(state, admission::readers)
    };
    let once = Idempotency::new(history.primary.clone());
    let once = middleware::from_fn_with_state(once, idempotency::once);

    let updates = Router::new()
        .route("/{id}/update", put(commands::update::handle))
        .route("/batch-update", post(commands::batch_update::handle))
        .route_layer(once.clone())
        .with_state(sessions.clone());
    let commands = Router::new()
        .route("/start", post(commands::start::handle))
        .route("/{id}/end", put(commands::end::handle))
        .route_layer(once)
        .with_state(sessions.clone());
    let data = Router::new()
        .route("/export", get(data::export::handle))
        .with_state(Exports::new(history.primary.clone()))
        .route("/", delete(data::erase::handle))
        .with_state(Erasing {
            sessions: sessions.clone(),
            cache,
            pool: history.primary.clone(),
        });
    let queries = Router::new()
        .route("/active", get(queries::active::handle))
        .with_state(active)
        .route("/history", get(queries::history::handle))
        .with_state(history)
        .route("/stats/daily", get(queries::daily::handle))
        .route("/stats/weekly", get(queries::weekly::handle))
        .route("/stats/streak", get(queries::streak::handle))
        .route("/stats/patterns", get(queries::patterns::handle))
        .with_state(daily_stats)
        .route("/{id}", get(queries::session::handle))
        .with_state(sessions);
    let behind = |calls: Router, preset| {
        calls
            .method_not_allowed_fallback(method_not_allowed)
            .layer((
                admitted(preset),
                CatchPanicLayer::custom(edge::panicked),
                DefaultBodyLimit::max(MAX_BODY),
            ))
    };
    let sessions = behind(updates, Preset::HighFrequency)
        .merge(behind(commands.merge(queries), Preset::Normal))
        .merge(behind(data, Preset::LowFrequency));

    let router = openapi::router()
        .fallback(async || {
            Problem::not_found("There is nothing at this address; /docs describes what there is")
        })
        .method_not_allowed_fallback(method_not_allowed)
        .layer(anyone)
        .nest("/api/v1/reading-sessions", sessions);
    let compression = CompressionLayer::new().compress_when(SizeAbove::new(COMPRESS_ABOVE));
    router.layer((
        middleware::from_fn_with_state(Traffic::of_apps(metrics), edge::edge),
        CatchPanicLayer::custom(edge::panicked),
        cors::Pages::of(origins),
        compression,
    ))
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
