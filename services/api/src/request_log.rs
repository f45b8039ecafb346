//! The outermost layer of every request: the request id, the access log, the
//! metrics, the body of problems, and the response to a panic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use eventlog::trace::{Span, Traces};
use futures::FutureExt;
use uuid::Uuid;

use crate::headers;
use crate::http_metrics::HttpMetrics;
use crate::middleware::{InnerService, Middleware, Next};
use crate::problem::Problem;
use crate::request_span;

/// Identifies a request in its response, in a problem and in the log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is accepted from a client, in bytes.
const MAX_REQUEST_ID_LENGTH: usize = 128;

/// The route of a request that matches none, in the log and in metrics.
const NO_ROUTE: &str = "none";

#[derive(Clone)]
pub struct RequestLog {
    pub metrics: HttpMetrics,
    pub traces: Traces,
}

impl Middleware for RequestLog {
    async fn handle<S: InnerService>(self, mut request: Request, next: Next<S>) -> Response {
        let entry = RequestLogEntry::new(&request);
        let span = entry.start_span(&self.traces, &mut request);
        let response = catch_panic(next.run(request)).await;
        request_span::end(span, response.status());
        entry.finish(response, &self.metrics)
    }
}

/// Returns 500 if the handler panics. The panic hook has already logged the
/// message of the panic.
pub async fn catch_panic(handler: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(handler)
        .catch_unwind()
        .await
        .unwrap_or_else(|_message| Problem::internal().into_response())
}

/// The data of a request that its log line and its metrics need.
struct RequestLogEntry {
    request_id: HeaderValue,
    method: Method,
    route: Arc<str>,
    started_at: Instant,
}

impl RequestLogEntry {
    fn new(request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>();
        Self {
            request_id: request_id(request),
            method: request.method().clone(),
            route: route.map_or(NO_ROUTE, MatchedPath::as_str).into(),
            started_at: Instant::now(),
        }
    }

    fn start_span(&self, traces: &Traces, request: &mut Request) -> Option<Span> {
        let route = Some(&*self.route).filter(|route| *route != NO_ROUTE);
        request_span::start(traces, request, route, &self.request_id)
    }

    fn finish(self, mut response: Response, metrics: &HttpMetrics) -> Response {
        let Self {
            request_id,
            method,
            route,
            started_at,
        } = self;
        let status = response.status();
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            if let Some(cause) = problem.cause() {
                tracing::error!(request.id = ?request_id, %method, route = &*route, status = status.as_u16(), cause, "request failed: {cause}");
            }
            problem.write(&mut response, request_id.to_str().unwrap_or_default());
        }
        let duration = started_at.elapsed();
        metrics.record(&method, &route, status, duration);
        let duration_us = duration.as_micros();
        if is_logged_by_default(status) {
            tracing::info!(request.id = ?request_id, %method, route = &*route, status = status.as_u16(), duration_us, "request rejected");
        } else {
            tracing::debug!(request.id = ?request_id, %method, route = &*route, status = status.as_u16(), duration_us, "request completed");
        }
        response.headers_mut().insert(REQUEST_ID, request_id);
        headers::weaken_etag(&mut response);
        headers::add_security_headers(&mut response);
        response
    }
}

/// Client errors are logged at `info`, because the developers of apps ask about
/// them. Responses with 401 and 429 are excluded, because they can come in floods.
fn is_logged_by_default(status: StatusCode) -> bool {
    status.is_client_error()
        && status != StatusCode::UNAUTHORIZED
        && status != StatusCode::TOO_MANY_REQUESTS
}

/// The id that the client sent, or a new one if it is missing, empty, too long or
/// not ASCII.
fn request_id(request: &Request) -> HeaderValue {
    request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| !id.is_empty() && id.len() <= MAX_REQUEST_ID_LENGTH && id.to_str().is_ok())
        .cloned()
        .unwrap_or_else(|| {
            HeaderValue::try_from(Uuid::new_v4().simple().to_string())
                .expect("hexadecimal digits are valid in a header")
        })
}
