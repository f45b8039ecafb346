//! `PUT /reading-sessions/{id}/update`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use commands::CommandService;
use domain::command::Occurrence;
use domain::{Standing, Timestamp, UpdatePosition};
use eventlog::clock;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::extract::{Hint, Json, Percent, RequestContext, SessionPath, hints};
use crate::openapi::types;
use crate::problem::Problem;
use crate::response::CommandResponse;
use crate::session::SessionResponse;
use crate::warnings::{Warning, Warnings};

/// An observation of the reader's position.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Update)]
pub struct Body {
    #[schema(schema_with = types::current_position)]
    current_position: Percent,
    #[schema(schema_with = types::locator)]
    locator: Option<Hint>,
    #[schema(schema_with = types::occurred_at)]
    occurred_at: Option<Timestamp>,
    #[schema(schema_with = types::sent_at)]
    sent_at: Option<Timestamp>,
}

/// The session after the update.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Updated)]
pub struct UpdateResponse<'a> {
    #[serde(flatten)]
    session: SessionResponse,
    /// Whether the observation is now the latest one. False if it is older than
    /// the latest one: it is recorded, and `end_position` stays as it is.
    applied: bool,
    /// The parts of the request that the service changed or ignored. Missing if there are
    /// none.
    #[serde(skip_serializing_if = "Warnings::is_empty")]
    #[schema(value_type = Vec<Warning>)]
    warnings: &'a Warnings,
}

/// Update the position
///
/// Records where the reader is in the book. Observations are ordered by
/// `occurred_at`, not by their arrival, so an app may send them late. If the observation
/// is the reader's newest, it makes a `superseded` or `idle` session active again. An
/// observation after the reader's end returns 400 `session_inactive`.
#[utoipa::path(
    put,
    path = "/api/v1/reading-sessions/{id}/update",
    operation_id = "update",
    tag = "commands",
    params(("id" = Uuid, Path, description = "The session")),
    request_body = Body,
    responses((status = 200, description = "The session", body = UpdateResponse))
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
    let update = UpdatePosition {
        position: body.current_position.0,
        locator: hints::locator(body.locator, &mut warnings),
        occurred,
        standing: Standing::Active,
    };
    let committed = commands
        .update_position(
            caller.reader_id,
            session_id,
            update,
            context,
            move |outcome| {
                let body = UpdateResponse {
                    session: SessionResponse::from_result(&outcome),
                    applied: outcome.applied,
                    warnings: &warnings,
                };
                CommandResponse::for_session(StatusCode::OK, &outcome, &body)
            },
        )
        .await?;
    Ok(CommandResponse::from_committed(committed))
}
