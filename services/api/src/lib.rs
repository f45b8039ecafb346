//! The HTTP APIs: one for client apps, one for operators ([`routes::admin`]).
//! Modules are grouped: handlers, connections, middleware, authentication, what the
//! handlers share, and the rest.
//!
//! This crate contains no SQL and makes no domain decision: handlers call
//! `commands` and `projections`.

use ::commands::CommandService;
use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use eventlog::trace::Traces;
use projections::active_sessions;
use projections::cache::Cache;
use projections::zones::Zones;
use prometheus_client::registry::Registry;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

pub mod routes;

pub mod serve;

pub mod admission;
pub mod cors;
mod headers;
pub mod http_metrics;
pub mod idempotency;
pub mod in_flight;
pub mod middleware;
pub mod rate_limit;
pub mod request_log;
mod request_span;

pub mod auth;
pub mod secret;

pub mod extract;
pub mod problem;
pub mod read_your_writes;
pub mod reading_time;
pub mod response;
pub mod session;
pub mod warnings;

pub mod console;
pub mod export;
pub mod health;
pub mod openapi;

use admission::{Admission, Anonymous, RequireReader};
use export::Exporter;
use http_metrics::HttpMetrics;
use idempotency::Idempotency;
use in_flight::InFlightLimit;
use middleware::MiddlewareLayer;
use problem::Problem;
use rate_limit::Preset;
use request_log::RequestLog;
use routes::privacy::erase::EraseHandles;
use routes::queries::ReadTable;
use routes::queries::active::ActiveReads;
use routes::{commands, privacy, queries};

/// The prefix of all paths for client apps.
const API: &str = "/api/v1/reading-sessions";

/// The size limit of request bodies, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// The size limit of the body of a sync, in bytes.
const MAX_SYNC_BODY: usize = 1024 * 1024;

/// Larger responses are compressed if the client accepts that. In bytes.
const COMPRESS_ABOVE: u16 = 1_000;

/// The dependencies of the handlers.
pub struct Handles {
    pub commands: CommandService,
    pub active: ActiveReads,
    /// Stores the active sessions.
    pub cache: Cache,
    pub history: ReadTable,
    pub daily_stats: ReadTable,
    /// For the time zones of commands.
    pub zones: Zones,
    pub traces: Traces,
}

/// The dependencies of commands with a time zone.
#[derive(Clone)]
struct CommandHandles {
    commands: CommandService,
    zones: Zones,
}

impl FromRef<CommandHandles> for CommandService {
    fn from_ref(handles: &CommandHandles) -> Self {
        handles.commands.clone()
    }
}

impl FromRef<CommandHandles> for Zones {
    fn from_ref(handles: &CommandHandles) -> Self {
        handles.zones.clone()
    }
}

/// The API for client apps.
///
/// Each route has all its layers in one list. A nested router or a second list
/// would box and clone its own service for every request.
pub fn router(
    handles: Handles,
    admission: &Admission,
    origins: &[HeaderValue],
    registry: &mut Registry,
) -> Router {
    let Handles {
        commands: service,
        active,
        cache,
        history,
        daily_stats,
        zones,
        traces,
    } = handles;
    let in_flight = InFlightLimit::default();
    let anyone = MiddlewareLayer(Anonymous {
        admission: admission.clone(),
        in_flight: in_flight.clone(),
    });
    let admitted = |preset| {
        MiddlewareLayer(RequireReader {
            admission: admission.clone(),
            in_flight: in_flight.clone(),
            preset,
            prefetch: None,
        })
    };
    let reads_active = MiddlewareLayer(RequireReader {
        admission: admission.clone(),
        in_flight: in_flight.clone(),
        preset: Preset::Normal,
        prefetch: Some(active_sessions::key),
    });
    let idempotency = MiddlewareLayer(Idempotency::new(history.primary.clone()));
    let outer_layers = (
        MiddlewareLayer(RequestLog {
            metrics: HttpMetrics::for_clients(registry),
            traces,
        }),
        cors::CorsForBrowsers::new(origins),
        CompressionLayer::new().compress_when(SizeAbove::new(COMPRESS_ABOVE)),
    );
    let body = DefaultBodyLimit::max(MAX_BODY);
    let with_zones = CommandHandles {
        commands: service.clone(),
        zones,
    };

    let path = |path| format!("{API}{path}");
    let updates = Router::new()
        .route(&path("/{id}/update"), put(commands::update::handle))
        .route(&path("/batch-update"), post(commands::batch_update::handle))
        .with_state(service.clone())
        .method_not_allowed_fallback(method_not_allowed)
        .layer((
            outer_layers.clone(),
            admitted(Preset::HighFrequency),
            body,
            idempotency.clone(),
        ));
    let commands = Router::new()
        .route(&path("/start"), post(commands::start::handle))
        .with_state(with_zones.clone())
        .route(&path("/{id}/end"), put(commands::end::handle))
        .with_state(service.clone())
        .method_not_allowed_fallback(method_not_allowed)
        .layer((
            outer_layers.clone(),
            admitted(Preset::Normal),
            body,
            idempotency.clone(),
        ));
    let syncs = Router::new()
        .route(&path("/sync"), post(commands::sync::handle))
        .with_state(with_zones)
        .method_not_allowed_fallback(method_not_allowed)
        .layer((
            outer_layers.clone(),
            admitted(Preset::Sync),
            DefaultBodyLimit::max(MAX_SYNC_BODY),
            idempotency.clone(),
        ));
    let erase = EraseHandles {
        commands: service.clone(),
        cache,
        pool: history.primary.clone(),
    };
    let correct = patch(commands::correct::handle).layer(idempotency);
    let session = get(queries::session::handle)
        .merge(correct)
        .with_state(service.clone())
        .merge(delete(privacy::delete::handle).with_state(erase.clone()));
    let active = Router::new()
        .route(&path("/active"), get(queries::active::handle))
        .with_state(active)
        .method_not_allowed_fallback(method_not_allowed)
        .layer((outer_layers.clone(), reads_active, body));
    let queries = Router::new()
        .route(&path("/history"), get(queries::history::handle))
        .with_state(history.clone())
        .route(&path("/stats/daily"), get(queries::daily::handle))
        .route(&path("/stats/weekly"), get(queries::weekly::handle))
        .route(&path("/stats/streak"), get(queries::streak::handle))
        .route(&path("/stats/patterns"), get(queries::patterns::handle))
        .with_state(daily_stats)
        .route(&path("/{id}"), session)
        .method_not_allowed_fallback(method_not_allowed)
        .layer((outer_layers.clone(), admitted(Preset::Normal), body));
    let privacy = Router::new()
        .route(&path("/export"), get(privacy::export::handle))
        .with_state(Exporter::new(history.primary.clone()))
        .route(&path(""), delete(privacy::erase::handle))
        .with_state(erase)
        .method_not_allowed_fallback(method_not_allowed)
        .layer((outer_layers.clone(), admitted(Preset::LowFrequency), body));
    openapi::router()
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(method_not_allowed)
        .layer((outer_layers, anyone))
        .merge(updates)
        .merge(commands)
        .merge(syncs)
        .merge(active)
        .merge(queries)
        .merge(privacy)
}

/// The router adds `Allow`, which is the whole response to OPTIONS.
async fn method_not_allowed(method: Method) -> Response {
    if method == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        Problem::method_not_allowed().into_response()
    }
}
