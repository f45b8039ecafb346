//! `PUT /reading-sessions/{id}/end`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use commands::CommandService;
use domain::command::Occurrence;
use domain::{EndSession, Timestamp};
use eventlog::clock;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::extract::{Hint, Json, Percent, RequestContext, SessionPath, hints};
use crate::openapi::types;
use crate::problem::Problem;
use crate::response::CommandResponse;
use crate::session::{ChangedSessionResponse, SessionResponse};
use crate::warnings::Warnings;

/// The end of a session.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = End)]
pub struct Body {
    #[schema(schema_with = types::end_position)]
    end_position: Option<Percent>,
    #[schema(schema_with = types::locator)]
    locator: Option<Hint>,
    #[schema(schema_with = types::occurred_at)]
    occurred_at: Option<Timestamp>,
    #[schema(schema_with = types::sent_at)]
    sent_at: Option<Timestamp>,
}

/// End a session
///
/// `end_position` defaults to the latest position, and may be before
/// `start_position`. Observations up to the end count whenever they arrive; later ones
/// do not count. A session that the service ended, with the reason `superseded` or
/// `idle`, can be ended by the reader too.
#[utoipa::path(
    put,
    path = "/api/v1/reading-sessions/{id}/end",
    operation_id = "end",
    tag = "commands",
    params(("id" = Uuid, Path, description = "The session")),
    request_body = Body,
    responses((status = 200, description = "The ended session", body = ChangedSessionResponse))
)]
pub async fn handle(
    State(commands): State<CommandService>,
    caller: Caller,
    SessionPath(session_id): SessionPath,
    RequestContext(context): RequestContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let mut warnings = Warnings::default();
    let occurred = Occurrence::new(body.occurred_at, body.sent_at, clock::now())?;
    warnings.add_shift(occurred, body.sent_at);
    let end = EndSession {
        position: body.end_position.map(|Percent(position)| position),
        locator: hints::locator(body.locator, &mut warnings),
        occurred,
    };
    let committed = commands
        .end(caller.reader_id, session_id, end, context, move |outcome| {
            let body = ChangedSessionResponse {
                session: SessionResponse::from_result(&outcome),
                warnings: &warnings,
            };
            CommandResponse::for_session(StatusCode::OK, &outcome, &body)
        })
        .await?;
    Ok(CommandResponse::from_committed(committed))
}
