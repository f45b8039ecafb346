//! Around every request: its id, its place among those in flight, its
//! deadline, its line in the log, the body of a problem, and the headers that
//! every answer has. A panic is a problem like any other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::problem::Problem;

/// How long a request may take. A command goes on in a task of its own even
/// when its answer comes too late.
const DEADLINE: Duration = Duration::from_secs(15);

/// Requests at work at the same time; more are refused at once. Far more than
/// a saturated service needs to be busy, few enough that those taken are
/// answered within their deadline.
const MAX_IN_FLIGHT: usize = 4_096;

/// Names a request in its answer, in a problem and in the log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id taken from a client.
const MAX_REQUEST_ID: usize = 128;

/// The places for requests in flight; cheap to clone.
#[derive(Clone)]
pub struct Places(Arc<Semaphore>);

impl Places {
    /// So many.
    #[must_use]
    pub fn of(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::of(MAX_IN_FLIGHT)
    }
}

/// The middleware.
pub async fn edge(State(places): State<Places>, request: Request, next: Next) -> Response {
    let request_id = request_id(&request);
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let started = Instant::now();

    let answer = AssertUnwindSafe(async {
        match places.0.try_acquire() {
            Ok(_place) => next.run(request).await,
            Err(_full) => {
                Problem::unavailable("The service is overloaded; try again shortly").into_response()
            }
        }
    })
    .catch_unwind();
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
    response.headers_mut().insert(REQUEST_ID, request_id);
    harden(&method, &mut response);
    response
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
