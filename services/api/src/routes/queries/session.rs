//! `GET /reading-sessions/{id}`

use axum::extract::State;
use axum::response::Response;
use commands::CommandService;

use crate::auth::Caller;
use crate::extract::{MinPositionParams, Query, SessionPath};
use crate::problem::Problem;
use crate::read_your_writes;
use crate::response::{IfNoneMatch, versioned};
use crate::session::SessionResponse;

/// Retrieve a session
///
/// Reads the event log itself, so the response includes every earlier command.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/{id}",
    operation_id = "session",
    tag = "queries",
    params(("id" = Uuid, Path, description = "The session"), MinPositionParams),
    responses((status = 200, description = "The session", body = SessionResponse))
)]
pub async fn handle(
    State(commands): State<CommandService>,
    caller: Caller,
    SessionPath(session_id): SessionPath,
    Query(params): Query<MinPositionParams>,
    cached: IfNoneMatch,
) -> Result<Response, Problem> {
    read_your_writes::check_log(&commands, params.min_position).await?;
    let found = commands.find(caller.reader_id, session_id).await?;
    let (version, session) = found
        .as_ref()
        .and_then(|found| Some((found.sequence, found.session.started()?)))
        .ok_or(domain::SessionError::NotFound)?;
    let body = SessionResponse::new(session_id, version, session);
    Ok(versioned(&cached, &version, &body))
}
