//! `PUT /reading-sessions/{id}/update`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use domain::command::Occurrence;
use domain::{Timestamp, UpdatePosition};
use commands::CommandService;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::MAX_LOCATOR;
use crate::response::CommandResponse;
use crate::auth::Caller;
use crate::extract::{RequestContext, Json, Percent, SessionPath, text};
use crate::openapi::types;
use crate::problem::Problem;
use crate::session::Session;
use eventlog::clock;

/// Where the reader is.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Update)]
pub struct Body {
    #[schema(schema_with = types::percent_sent)]
    current_position: Percent,
    /// Where exactly, in the app's own words, for example an EPUB CFI.
    #[schema(max_length = 2048)]
    locator: Option<String>,
    /// When it was, if not now: at most 30 days ago. A time ahead of the service's
    /// clock, by up to a day, is taken as now.
    #[schema(value_type = Option<DateTime>)]
    occurred_at: Option<Timestamp>,
}

/// The session, and whether the position became its latest.
#[derive(Debug, Serialize, ToSchema)]
pub struct Updated {
    #[serde(flatten)]
    session: Session,
    /// False for an observation that is older than the latest one: it is
    /// recorded, and the position stays.
    applied: bool,
}

/// Move the position
///
/// Observations are ordered by their time, not by their arrival.
#[utoipa::path(
    put,
    path = "/api/v1/reading-sessions/{id}/update",
    operation_id = "update",
    tag = "commands",
    params(("id" = Uuid, Path, description = "The session")),
    request_body = Body,
    responses((status = 200, description = "The session", body = Updated))
)]
pub async fn handle(
    State(sessions): State<CommandService>,
    caller: Caller,
    SessionPath(session_id): SessionPath,
    RequestContext(context): RequestContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let update = UpdatePosition {
        position: body.current_position.0,
        locator: text("locator", body.locator, MAX_LOCATOR)?,
        occurred: Occurrence::new(body.occurred_at, clock::now())?,
    };
    let done = sessions
        .update_position(caller.reader_id, session_id, update, context, |outcome| {
            let updated = Updated {
                session: Session::after(&outcome),
                applied: outcome.applied,
            };
            CommandResponse::of_session(StatusCode::OK, &outcome, &updated)
        })
        .await?;
    Ok(done.answer.response(done.global_position))
}
