//! `DELETE /reading-sessions/{id}`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::SessionError;
use eventlog::clock;

use super::erase::{EraseHandles, Scope};
use crate::auth::Caller;
use crate::extract::{NoInput, SessionPath};
use crate::problem::Problem;
use crate::response::GLOBAL_POSITION;

/// Delete a session
///
/// The session disappears from all responses, and from history and statistics within
/// moments. Afterwards the service overwrites its events in the log. The id cannot be
/// used again. A deletion cannot be undone.
#[utoipa::path(
    delete,
    path = "/api/v1/reading-sessions/{id}",
    operation_id = "delete",
    tag = "privacy",
    params(("id" = Uuid, Path, description = "The session")),
    responses((status = 204, description = "The session is deleted"))
)]
pub async fn handle(
    State(handles): State<EraseHandles>,
    caller: Caller,
    SessionPath(session_id): SessionPath,
    NoInput: NoInput,
) -> Result<Response, Problem> {
    let scope = Scope::Session(session_id);
    let erased = handles.spawn(caller.reader_id, scope, clock::now()).await?;
    let Some(global_position) = erased.global_position else {
        return Err(SessionError::NotFound.into());
    };
    let mut response = StatusCode::NO_CONTENT.into_response();
    response
        .headers_mut()
        .insert(GLOBAL_POSITION, global_position.into());
    Ok(response)
}
