//! Around every request: its id, its deadline, its line in the log, and the
//! body of a problem. A panic is a problem like any other.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use uuid::Uuid;

use super::problem::Problem;

/// How long a request may take. A command goes on in a task of its own even
/// when its answer comes too late.
const DEADLINE: Duration = Duration::from_secs(15);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id taken from a client.
const MAX_REQUEST_ID: usize = 128;

/// The middleware; the outermost one.
pub async fn edge(request: Request, next: Next) -> Response {
    let request_id = request_id(&request);
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let started = Instant::now();

    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut response = match tokio::time::timeout(DEADLINE, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            tracing::error!(request.id = ?request_id, %method, route, "a handler panicked");
            Problem::internal().into_response()
        }
        Err(_late) => Problem::unavailable("The answer took too long").into_response(),
    };

    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if let Some(cause) = problem.cause() {
            tracing::error!(request.id = ?request_id, %method, route, cause, "a request failed");
        }
        problem.write(&mut response, request_id.to_str().unwrap_or_default());
    }
    tracing::debug!(
        request.id = ?request_id,
        %method,
        route,
        status = response.status().as_u16(),
        duration_us = started.elapsed().as_micros(),
        "answered"
    );
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
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
