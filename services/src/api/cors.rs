//! Which web pages may call. Tokens come in a header that no browser adds by
//! itself, so any page may by default: it has no more power than its token.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use super::{answer, edge, idempotency, rate_limit};

/// How long a browser need not ask again.
const MAX_AGE: Duration = Duration::from_hours(2);

/// The layer; without origins, all are allowed.
pub fn layer(origins: &[HeaderValue]) -> CorsLayer {
    let origins = if origins.is_empty() {
        AllowOrigin::from(Any)
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            idempotency::KEY,
            edge::REQUEST_ID,
            HeaderName::from_static("traceparent"),
        ])
        .expose_headers([
            header::ETAG,
            header::LINK,
            header::RETRY_AFTER,
            answer::GLOBAL_POSITION,
            idempotency::REPLAYED,
            edge::REQUEST_ID,
            rate_limit::LIMIT,
            rate_limit::REMAINING,
            rate_limit::RESET,
        ])
        .max_age(MAX_AGE)
}
