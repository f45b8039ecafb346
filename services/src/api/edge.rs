//! Around every request: its id, its line in the log and its count, the body of
//! a problem, and the headers that every answer has.

use std::any::Any;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use super::problem::Problem;
use super::traffic::Traffic;

/// Names a request in its answer, in a problem and in the log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id taken from a client.
const MAX_REQUEST_ID: usize = 128;

/// All that is around every request, and nothing else.
pub fn around(router: Router, traffic: Traffic) -> Router {
    router.layer((
        middleware::from_fn_with_state(traffic, edge),
        CatchPanicLayer::custom(panicked),
    ))
}

/// The answer to a panic. What was said at it stands in the log already.
#[must_use]
pub fn panicked(_said: Box<dyn Any + Send>) -> Response {
    Problem::internal().into_response()
}

/// The middleware; a panic is caught inside of it.
pub async fn edge(State(traffic): State<Traffic>, request: Request, next: Next) -> Response {
    let request_id = request_id(&request);
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let started = Instant::now();

    let mut response = next.run(request).await;

    let status = response.status();
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if let Some(cause) = problem.cause() {
            tracing::error!(request.id = ?request_id, %method, route, cause, "a request failed");
        }
        problem.write(&mut response, request_id.to_str().unwrap_or_default());
    }
    let took = started.elapsed();
    traffic.count(&method, &route, status, took);
    let duration_us = took.as_micros();
    if is_news(status) {
        tracing::info!(request.id = ?request_id, %method, route, status = status.as_u16(), duration_us, "refused");
    } else {
        tracing::debug!(request.id = ?request_id, %method, route, status = status.as_u16(), duration_us, "answered");
    }
    response.headers_mut().insert(REQUEST_ID, request_id);
    weaken_tag(&mut response);
    harden(&method, &mut response);
    response
}

/// Whether the log tells of an answer by default: of what an app's developer
/// may ask about, but not of what comes in floods.
fn is_news(status: StatusCode) -> bool {
    status.is_client_error()
        && status != StatusCode::UNAUTHORIZED
        && status != StatusCode::TOO_MANY_REQUESTS
}

/// A compressed body is another one than the plain one, of the same version
/// (RFC 9110, section 8.8.3.3).
fn weaken_tag(response: &mut Response) {
    let headers = response.headers_mut();
    if headers.contains_key(header::CONTENT_ENCODING)
        && let Some(tag) = headers.get_mut(header::ETAG)
        && let Ok(text) = tag.to_str()
        && !text.starts_with("W/")
        && let Ok(weak) = HeaderValue::try_from(format!("W/{text}"))
    {
        *tag = weak;
    }
}

/// What browsers and caches between here and the app must not do with an
/// answer, unless it says something else itself.
fn harden(method: &Method, response: &mut Response) {
    let caching = if matches!(*method, Method::GET | Method::HEAD) {
        "private, no-cache, must-revalidate"
    } else {
        "no-store, no-cache, must-revalidate"
    };
    for (name, value) in [
        (header::CACHE_CONTROL, caching),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        response
            .headers_mut()
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
}

/// The client's id when it is short and readable, else a new one.
fn request_id(request: &Request) -> HeaderValue {
    request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.to_str().is_ok())
        .cloned()
        .unwrap_or_else(|| {
            HeaderValue::try_from(Uuid::new_v4().simple().to_string())
                .expect("hexadecimal digits are a header's value")
        })
}
