//! The description of operators' calls: `OpenAPI` 3.1 at `/openapi.json` of
//! their listener.

use axum::Router;
use serde_json::Value;
use utoipa::OpenApi;

use super::common::{self, Answered, Failures};
use crate::routes::admin::{
    cleanup, daily, dead_letter, dead_letters, jobs, pause, projections, replay,
};
use crate::problem;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Reading Sessions, for operators",
        description = "On a listener of their own (`ADMIN_ADDR`), for tokens with `is_admin: true` \
            or the scope `reading:admin`. What takes long runs in the background; `projections` \
            shows it.",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        projections::handle,
        pause::pause,
        pause::resume,
        replay::handle,
        jobs::warm_up,
        dead_letters::handle,
        dead_letter::show,
        dead_letter::retry,
        dead_letter::discard,
        daily::handle,
        jobs::handle,
        jobs::run,
        cleanup::stats,
        cleanup::now,
    ),
    components(schemas(problem::Json)),
    tags(
        (name = "projections", description = "How far they are, and who works on them"),
        (name = "dead letters", description = "Events that cannot be applied"),
        (name = "statistics", description = "Of all readers"),
        (name = "upkeep", description = "What the service does by itself")
    )
)]
struct Api;

/// The description.
#[must_use]
pub fn document() -> Value {
    let mut document = serde_json::to_value(Api::openapi()).expect("it is plain JSON");
    let failures = Failures {
        problems: &PROBLEMS,
        of: failures,
    };
    common::complete(&mut document, failures);
    document
}

/// `/openapi.json`
pub fn router() -> Router {
    super::served(&document())
}

/// What can go wrong.
const PROBLEMS: [Answered; 8] = [
    (401, "Unauthorized", "Could not validate credentials"),
    (403, "Forbidden", "This needs an operator's token"),
    (404, "NotFound", "There is no dead letter history.1234"),
    (
        409,
        "Conflict",
        "A replay of history is running, or was a moment ago",
    ),
    (422, "Invalid", "days: from 1 to 366"),
    (
        429,
        "TooManyRequests",
        "Rate limit exceeded. Try again in 12 seconds.",
    ),
    (500, "Broken", "The service made a mistake"),
    (
        503,
        "Unavailable",
        "The service cannot answer now; try again shortly",
    ),
];

/// By operation.
fn failures(operation: &str) -> &'static [u16] {
    match operation {
        "projections" | "jobs" | "cleanup" => &[401, 403, 429, 500, 503],
        "dailyStatsOfAll" | "deadLetters" | "cleanupStats" => &[401, 403, 422, 429, 500, 503],
        "pause" | "resume" | "runJob" => &[401, 403, 404, 429, 500, 503],
        "warmUp" => &[401, 403, 409, 429, 500, 503],
        "deadLetter" => &[401, 403, 404, 422, 429, 500, 503],
        _ => &[401, 403, 404, 409, 422, 429, 500, 503],
    }
}
