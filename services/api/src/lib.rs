//! The HTTP edge for client apps: routes, in the order of the data's path, and
//! the layers around them, in the order a request meets them. Layers stand in one
//! list, and no router inside of another: each of them is boxed and cloned for
//! itself, at every request.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use ::commands::CommandService;
use projections::cache::Cache;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

pub mod routes;

pub mod serve;

pub mod admission;
pub mod cors;
pub mod http_metrics;
pub mod idempotency;
pub mod in_flight;
pub mod middleware;
pub mod rate_limit;
pub mod request_log;

pub mod auth;
pub mod secret;

pub mod extract;
pub mod problem;
pub mod read_your_writes;
pub mod response;
pub mod session;

pub mod export;
pub mod health;
pub mod openapi;

use admission::{Admission, Anonymous, RequireReader};
use export::Exports;
use http_metrics::HttpMetrics;
use idempotency::Idempotency;
use in_flight::InFlightLimit;
use middleware::MiddlewareLayer;
use prometheus_client::registry::Registry;
use problem::Problem;
use rate_limit::Preset;
use request_log::RequestLog;
use routes::privacy::erase::Erasing;
use routes::queries::ReadTable;
use routes::queries::active::ActiveReads;
use routes::{commands, privacy, queries};

/// Where client apps find what they may call.
const API: &str = "/api/v1/reading-sessions";

/// The largest body taken, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Answers larger than this are compressed for who takes that, in bytes.
const COMPRESS_ABOVE: u16 = 1_000;

/// What the handlers work with; all of it is cheap to clone.
pub struct Handles {
    /// The command side, and sessions as they stand in the log.
    pub sessions: CommandService,
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
    admission: &Admission,
    origins: &[HeaderValue],
    registry: &mut Registry,
) -> Router {
    let Handles {
        sessions,
        active,
        cache,
        history,
        daily_stats,
    } = handles;
    let places = InFlightLimit::default();
    let anyone = MiddlewareLayer(Anonymous {
        admission: admission.clone(),
        places: places.clone(),
    });
    let admitted = |preset| {
        MiddlewareLayer(RequireReader {
            admission: admission.clone(),
            places: places.clone(),
            preset,
        })
    };
    let once = MiddlewareLayer(Idempotency::new(history.primary.clone()));
    let edge = (
        MiddlewareLayer(RequestLog(HttpMetrics::of_apps(registry))),
        cors::CorsForBrowsers::of(origins),
        CompressionLayer::new().compress_when(SizeAbove::new(COMPRESS_ABOVE)),
    );
    let body = DefaultBodyLimit::max(MAX_BODY);

    let at = |path| format!("{API}{path}");
    let updates = Router::new()
        .route(&at("/{id}/update"), put(commands::update::handle))
        .route(&at("/batch-update"), post(commands::batch_update::handle))
        .with_state(sessions.clone())
        .method_not_allowed_fallback(method_not_allowed)
        .layer((
            edge.clone(),
            admitted(Preset::HighFrequency),
            body,
            once.clone(),
        ));
    let commands = Router::new()
        .route(&at("/start"), post(commands::start::handle))
        .route(&at("/{id}/end"), put(commands::end::handle))
        .with_state(sessions.clone())
        .method_not_allowed_fallback(method_not_allowed)
        .layer((edge.clone(), admitted(Preset::Normal), body, once));
    let queries = Router::new()
        .route(&at("/active"), get(queries::active::handle))
        .with_state(active)
        .route(&at("/history"), get(queries::history::handle))
        .with_state(history.clone())
        .route(&at("/stats/daily"), get(queries::daily::handle))
        .route(&at("/stats/weekly"), get(queries::weekly::handle))
        .route(&at("/stats/streak"), get(queries::streak::handle))
        .route(&at("/stats/patterns"), get(queries::patterns::handle))
        .with_state(daily_stats)
        .route(&at("/{id}"), get(queries::session::handle))
        .with_state(sessions.clone())
        .method_not_allowed_fallback(method_not_allowed)
        .layer((edge.clone(), admitted(Preset::Normal), body));
    let data = Router::new()
        .route(&at("/export"), get(privacy::export::handle))
        .with_state(Exports::new(history.primary.clone()))
        .route(&at(""), delete(privacy::erase::handle))
        .with_state(Erasing {
            sessions,
            cache,
            pool: history.primary,
        })
        .method_not_allowed_fallback(method_not_allowed)
        .layer((edge.clone(), admitted(Preset::LowFrequency), body));
    openapi::router()
        .fallback(async || {
            Problem::not_found("There is nothing at this address; /docs describes what there is")
        })
        .method_not_allowed_fallback(method_not_allowed)
        .layer((edge, anyone))
        .merge(updates)
        .merge(commands)
        .merge(queries)
        .merge(data)
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
