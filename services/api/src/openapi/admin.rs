//! The `OpenAPI` 3.1 document of the admin API, served at `/openapi.json` of the
//! admin listener.

use axum::Router;
use serde_json::Value;
use utoipa::OpenApi;

use super::common::{self, ProblemResponse, Problems};
use crate::problem::{ProblemCode, ProblemDocument};
use crate::routes::admin::{
    access, audit, cleanup, daily, dead_letters, heap_profile, jobs, live, pause, processes,
    projections, readers, replay, sessions, verify,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Reading Sessions, admin API",
        description = "",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        projections::list,
        pause::pause,
        pause::resume,
        replay::handle,
        verify::handle,
        jobs::warm_up,
        dead_letters::list,
        dead_letters::show,
        dead_letters::retry,
        dead_letters::discard,
        daily::handle,
        jobs::list,
        jobs::run,
        cleanup::stats,
        cleanup::run,
        heap_profile::handle,
        sessions::handle,
        readers::show,
        readers::export,
        readers::erase,
        access::handle,
        processes::list,
        live::handle,
        audit::list,
        audit::show,
    ),
    components(schemas(ProblemDocument)),
    tags(
        (name = "projections", description = "Status, pauses and replays of the read models"),
        (name = "dead letters", description = "Events that a projection cannot apply"),
        (name = "statistics", description = "Statistics of all readers"),
        (name = "jobs", description = "Background jobs"),
        (name = "readers", description = "The data of one reader or session"),
        (name = "processes", description = "Processes, leases and live figures"),
        (name = "audit", description = "What operators did")
    )
)]
struct Api;

/// The OpenAPI document of the admin API.
#[must_use]
pub fn document() -> Value {
    let problems = Problems {
        responses: &PROBLEMS,
        statuses,
    };
    common::document(&Api::openapi(), include_str!("admin_guide.md"), problems)
}

pub fn router() -> Router {
    super::document_router(&document())
}

pub(super) const PROBLEMS: [ProblemResponse; 10] = [
    ProblemResponse {
        name: "BadRequest",
        codes: &[ProblemCode::UnknownParameter, ProblemCode::UnexpectedBody],
        detail: "hours: unknown parameter; this call has no parameters",
    },
    common::UNAUTHORIZED,
    ProblemResponse {
        name: "Forbidden",
        codes: &[ProblemCode::Forbidden],
        detail: "This call changes something and requires a token with the scope reading:admin",
    },
    ProblemResponse {
        name: "NotFound",
        codes: &[
            ProblemCode::DeadLetterNotFound,
            ProblemCode::ProjectionNotFound,
            ProblemCode::JobNotFound,
            ProblemCode::SessionNotFound,
            ProblemCode::ReaderNotFound,
            ProblemCode::AuditEntryNotFound,
            ProblemCode::NotFound,
        ],
        detail: "There is no dead letter history.1234",
    },
    common::METHOD_NOT_ALLOWED,
    ProblemResponse {
        name: "Conflict",
        codes: &[
            ProblemCode::ReplayRunning,
            ProblemCode::DeadLetterDiscarded,
            ProblemCode::DeadLetterWaiting,
            ProblemCode::HeapProfilerOff,
        ],
        detail: "A replay or verification of history is running, or ended a moment ago",
    },
    ProblemResponse {
        name: "Invalid",
        codes: &[ProblemCode::Validation],
        detail: "days: must be from 1 to 366",
    },
    common::TOO_MANY_REQUESTS,
    common::INTERNAL_SERVER_ERROR,
    ProblemResponse {
        name: "Unavailable",
        codes: &[
            ProblemCode::Unavailable,
            ProblemCode::Overloaded,
            ProblemCode::KeysUnavailable,
            ProblemCode::DeadlineExceeded,
            ProblemCode::ShuttingDown,
        ],
        detail: "The service cannot process the request at the moment; retry shortly",
    },
];

/// The statuses of the problems that an operation returns.
fn statuses(operation: &str) -> &'static [u16] {
    match operation {
        "projections" | "jobs" | "access" | "processes" | "live" => &[401, 403, 429, 500, 503],
        "warmUp" | "cleanup" => &[400, 401, 403, 429, 500, 503],
        "dailyStatsOfAll" | "deadLetters" | "cleanupStats" | "audit" => {
            &[401, 403, 422, 429, 500, 503]
        }
        "pause" | "resume" | "runJob" => &[400, 401, 403, 404, 429, 500, 503],
        "heapProfile" => &[401, 403, 409, 429, 500, 503],
        "verify" => &[400, 401, 403, 404, 409, 429, 500, 503],
        "exportReader" | "eraseReader" => &[400, 401, 403, 404, 422, 429, 500, 503],
        "deadLetter" | "timeline" | "reader" | "auditEntry" => &[401, 403, 404, 422, 429, 500, 503],
        _ => &[400, 401, 403, 404, 409, 422, 429, 500, 503],
    }
}
