//! A request at work: its place among those in flight and its deadline. Inside
//! of admission, so that whoever is turned away here knows what is left.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::request_log;
use super::problem::Problem;

/// How long a request may take. A command goes on in a task of its own even
/// when its answer comes too late.
const DEADLINE: Duration = Duration::from_secs(15);

/// Requests at work at the same time; more are refused at once. Far more than
/// a saturated service needs to be busy, few enough that those taken are
/// answered within their deadline. A refusal costs too, and who is refused comes
/// again at once: a quarter of these served less than half as much in an overload.
const MAX_IN_FLIGHT: usize = 4_096;

/// The places for requests at work; cheap to clone.
#[derive(Clone)]
pub struct InFlightLimit(Arc<Semaphore>);

impl InFlightLimit {
    /// So many.
    #[must_use]
    pub fn of(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// The answer to a request, if there is a place for it and it comes in time.
    pub async fn work(&self, answer: impl Future<Output = Response>) -> Response {
        let Ok(_place) = self.0.try_acquire() else {
            return Problem::unavailable("The service is overloaded; try again shortly")
                .into_response();
        };
        // A panic is caught here already, so that what is outside says its part.
        match tokio::time::timeout(DEADLINE, request_log::uncaught(answer)).await {
            Ok(response) => response,
            Err(late) => Problem::unavailable("The answer took too long")
                .because(&late)
                .into_response(),
        }
    }
}

impl Default for InFlightLimit {
    fn default() -> Self {
        Self::of(MAX_IN_FLIGHT)
    }
}
