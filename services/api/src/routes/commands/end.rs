//! `PUT /reading-sessions/{id}/end`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use commands::CommandService;
use domain::command::Occurrence;
use domain::event::EndReason;
use domain::{EndSession, Timestamp};
use eventlog::clock;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::extract::{Json, Percent, RequestContext, SessionPath};
use crate::openapi::types;
use crate::problem::Problem;
use crate::response::CommandResponse;
use crate::session::SessionResponse;

/// The end of a session.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = End)]
pub struct Body {
    #[schema(schema_with = types::end_position)]
    end_position: Option<Percent>,
    #[schema(schema_with = types::occurred_at)]
    occurred_at: Option<Timestamp>,
}

/// End a session
///
/// `end_position` defaults to the latest position, and may be before
/// `start_position`. If an observation is later than the end, the session ends
/// at that observation, and `end_position` counts towards `furthest_position`
/// only.
#[utoipa::path(
    put,
    path = "/api/v1/reading-sessions/{id}/end",
    operation_id = "end",
    tag = "commands",
    params(("id" = Uuid, Path, description = "The session")),
    request_body = Body,
    responses((status = 200, description = "The ended session", body = SessionResponse))
)]
pub async fn handle(
    State(commands): State<CommandService>,
    caller: Caller,
    SessionPath(session_id): SessionPath,
    RequestContext(context): RequestContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let end = EndSession {
        position: body.end_position.map(|Percent(position)| position),
        reason: EndReason::Finished,
        occurred: Occurrence::new(body.occurred_at, clock::now())?,
    };
    let committed = commands
        .end(caller.reader_id, session_id, end, context, |outcome| {
            let session = SessionResponse::from_result(&outcome);
            CommandResponse::for_session(StatusCode::OK, &outcome, &session)
        })
        .await?;
    Ok(CommandResponse::from_committed(committed))
}
