//! Around every request: its id, its line in the log and its count, the body of
//! a problem, the headers that every answer has, and what is said after a panic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use uuid::Uuid;

use super::middleware::{InnerService, Middleware, Next};
use super::problem::Problem;
use super::http_metrics::HttpMetrics;

/// Names a request in its answer, in a problem and in the log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id taken from a client.
const MAX_REQUEST_ID: usize = 128;

/// What comes first and goes last.
#[derive(Clone)]
pub struct RequestLog(pub HttpMetrics);

impl Middleware for RequestLog {
    async fn answer<S: InnerService>(self, request: Request, next: Next<S>) -> Response {
        let asked = Asked::of(&request);
        let response = uncaught(next.run(request)).await;
        asked.answered(response, &self.0)
    }
}

/// The answer, and one after a panic too. What was said at that stands in the log
/// already.
pub async fn uncaught(answer: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(answer)
        .catch_unwind()
        .await
        .unwrap_or_else(|_said| Problem::internal().into_response())
}

/// What is remembered of a request until it is answered.
struct Asked {
    request_id: HeaderValue,
    method: Method,
    route: Arc<str>,
    at: Instant,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>();
        Self {
            request_id: request_id(request),
            method: request.method().clone(),
            route: route.map_or("none", MatchedPath::as_str).into(),
            at: Instant::now(),
        }
    }

    fn answered(self, mut response: Response, traffic: &HttpMetrics) -> Response {
        let Self {
            request_id,
            method,
            route,
            at,
        } = self;
        let status = response.status();
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            if let Some(cause) = problem.cause() {
                tracing::error!(request.id = ?request_id, %method, route = &*route, cause, "a request failed");
            }
            problem.write(&mut response, request_id.to_str().unwrap_or_default());
        }
        let took = at.elapsed();
        traffic.count(&method, &route, status, took);
        let duration_us = took.as_micros();
        if is_news(status) {
            tracing::info!(request.id = ?request_id, %method, route = &*route, status = status.as_u16(), duration_us, "refused");
        } else {
            tracing::debug!(request.id = ?request_id, %method, route = &*route, status = status.as_u16(), duration_us, "answered");
        }
        response.headers_mut().insert(REQUEST_ID, request_id);
        weaken_tag(&mut response);
        harden(&method, &mut response);
        response
    }
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
