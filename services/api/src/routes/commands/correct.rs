//! `PATCH /reading-sessions/{id}`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use commands::CommandService;
use domain::clock as device_clock;
use domain::{CorrectSession, Timestamp};
use eventlog::clock;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::extract::{Json, Percent, RequestContext, SessionPath, WholeSeconds};
use crate::openapi::types;
use crate::problem::Problem;
use crate::response::CommandResponse;
use crate::session::SessionResponse;

/// The correct values of an ended session. Missing ones stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Correction)]
pub struct Body {
    /// When the reader stopped reading: not before the start and not in the future.
    #[schema(value_type = Option<DateTime>)]
    ended_at: Option<Timestamp>,
    #[schema(schema_with = types::end_position)]
    end_position: Option<Percent>,
    /// The active reading time in whole seconds, at most the time from the start to the
    /// end. Observations that arrive later do not change it.
    #[schema(value_type = Option<i32>, minimum = 0)]
    active_seconds: Option<WholeSeconds>,
    #[schema(schema_with = types::sent_at)]
    sent_at: Option<Timestamp>,
}

/// Correct an ended session
///
/// For sessions that ended too late, such as a book that was left open. Missing values
/// stay as they are. A session that the service ended can be corrected too; it then counts
/// as ended by the reader. An active session returns 400 `session_active`. Observations
/// after `ended_at` no longer count, and the statistics follow. A correction can be
/// corrected again.
#[utoipa::path(
    patch,
    path = "/api/v1/reading-sessions/{id}",
    operation_id = "correct",
    tag = "commands",
    params(("id" = Uuid, Path, description = "The session")),
    request_body = Body,
    responses((status = 200, description = "The corrected session", body = SessionResponse))
)]
pub async fn handle(
    State(commands): State<CommandService>,
    caller: Caller,
    SessionPath(session_id): SessionPath,
    RequestContext(context): RequestContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let received = device_clock::normalize(clock::now());
    let position = body.end_position.map(|Percent(position)| position);
    let active = body.active_seconds.map(|WholeSeconds(active)| active);
    if body.ended_at.is_none() && position.is_none() && active.is_none() {
        let message = "at least one of ended_at, end_position and active_seconds is required";
        return Err(Problem::invalid("ended_at", message));
    }
    let ended_at = body
        .ended_at
        .map(|at| device_clock::shifted(at, body.sent_at, received))
        // Slightly in the future: the difference of the clocks.
        .map(|at| match at - received {
            ahead if ahead <= device_clock::MAX_REQUEST_DURATION => at.min(received),
            _ => at,
        });
    let correction = CorrectSession {
        ended_at,
        position,
        active,
        received,
    };
    let committed = commands
        .correct(
            caller.reader_id,
            session_id,
            correction,
            context,
            |outcome| {
                let session = SessionResponse::from_result(&outcome);
                CommandResponse::for_session(StatusCode::OK, &outcome, &session)
            },
        )
        .await?;
    Ok(CommandResponse::from_committed(committed))
}
