//! Bounds the number of requests in flight, and the time that each may take.
//!
//! This runs after admission, so that a response with 503 also carries the
//! rate-limit headers.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use crate::problem::{Problem, ProblemCode};
use crate::request_log::catch_panic;

/// The time limit of a request. A command runs in its own task, so it may still
/// take effect after its request has timed out.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The default limit of concurrent requests. Further requests get 503 at once.
///
/// The limit is far above what keeps a saturated service busy, and low enough for
/// accepted requests to finish within [`REQUEST_TIMEOUT`]. A lower limit is not
/// better, because rejections also cost time and rejected clients retry at once:
/// in an overload test, a quarter of this limit served less than half as many
/// requests.
const MAX_IN_FLIGHT: usize = 4_096;

/// Limits concurrent requests; clones share the limit.
#[derive(Clone)]
pub struct InFlightLimit(Arc<Semaphore>);

impl InFlightLimit {
    #[must_use]
    pub fn new(max_in_flight: usize) -> Self {
        Self(Arc::new(Semaphore::new(max_in_flight)))
    }

    /// Runs the handler of a request. Returns 503 if the limit is reached or the
    /// handler takes too long, and 500 if it panics.
    pub async fn run(&self, handler: impl Future<Output = Response>) -> Response {
        let Ok(_permit) = self.0.try_acquire() else {
            return Problem::overloaded().into_response();
        };
        // Catching a panic here lets the outer layers add their headers to the 500.
        match tokio::time::timeout(REQUEST_TIMEOUT, catch_panic(handler)).await {
            Ok(response) => response,
            Err(elapsed) => Problem::new(
                ProblemCode::DeadlineExceeded,
                "The request took too long; a command may still take effect",
            )
            .because(&elapsed)
            .into_response(),
        }
    }
}

impl Default for InFlightLimit {
    fn default() -> Self {
        Self::new(MAX_IN_FLIGHT)
    }
}
