//! Which web pages may call. Tokens come in a header that no browser adds by
//! itself, so any page may by default: it has no more power than its token.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use super::{answer, edge, idempotency, rate_limit};

/// How long a browser need not ask again.
const MAX_AGE: Duration = Duration::from_hours(2);

/// The middleware around [`layer`], which takes every OPTIONS request for a
/// browser's preflight: those that are none go past it.
pub async fn unless_preflight(
    State(past): State<Router>,
    request: Request,
    next: Next,
) -> Response {
    let is_preflight = request
        .headers()
        .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() == Method::OPTIONS && !is_preflight {
        past.oneshot(request).await.into_response()
    } else {
        next.run(request).await
    }
}

/// Lets web pages of these origins call; without any, all of them.
pub fn layer(origins: &[HeaderValue]) -> CorsLayer {
    let origins = if origins.is_empty() {
        AllowOrigin::from(Any)
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            idempotency::KEY,
            edge::REQUEST_ID,
            HeaderName::from_static("traceparent"),
        ])
        .expose_headers([
            header::CONTENT_DISPOSITION,
            header::ETAG,
            header::LINK,
            header::RETRY_AFTER,
            header::WARNING,
            answer::GLOBAL_POSITION,
            idempotency::REPLAYED,
            edge::REQUEST_ID,
            rate_limit::LIMIT,
            rate_limit::REMAINING,
            rate_limit::RESET,
        ])
        .max_age(MAX_AGE)
}
