//! `PUT /reading-sessions/{id}/end`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use domain::command::Occurrence;
use domain::event::EndReason;
use domain::{EndSession, Timestamp};
use commands::CommandService;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::response::CommandResponse;
use crate::auth::Caller;
use crate::extract::{RequestContext, Json, Percent, SessionPath};
use crate::openapi::types;
use crate::problem::Problem;
use crate::session::Session;
use eventlog::clock;

/// Where reading ends.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = End)]
pub struct Body {
    /// The last position by default. An end that is older than the last
    /// observation ends there, and this counts for `furthest_position` alone.
    #[schema(schema_with = types::percent_sent_or_null)]
    end_position: Option<Percent>,
    /// When it was, if not now: at most 30 days ago. A time ahead of the service's
    /// clock, by up to a day, is taken as now.
    #[schema(value_type = Option<DateTime>)]
    occurred_at: Option<Timestamp>,
}

/// End a session
///
/// Also before where it started: reading back is reading.
#[utoipa::path(
    put,
    path = "/api/v1/reading-sessions/{id}/end",
    operation_id = "end",
    tag = "commands",
    params(("id" = Uuid, Path, description = "The session")),
    request_body = Body,
    responses((status = 200, description = "The ended session", body = Session))
)]
pub async fn handle(
    State(sessions): State<CommandService>,
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
    let done = sessions
        .end(caller.reader_id, session_id, end, context, |outcome| {
            CommandResponse::of_session(StatusCode::OK, &outcome, &Session::after(&outcome))
        })
        .await?;
    Ok(done.answer.response(done.global_position))
}
