//! `GET /reading-sessions/{id}`

use axum::extract::State;
use axum::response::Response;
use commands::CommandService;

use crate::response::{IfNoneMatch, versioned};
use crate::auth::Caller;
use crate::extract::{Fresh, Query, SessionPath};
use crate::read_your_writes;
use crate::problem::Problem;
use crate::session::Session;

/// A session
///
/// As it stands in the log, so that an app finds what it just wrote.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/{id}",
    operation_id = "session",
    tag = "queries",
    params(("id" = Uuid, Path, description = "The session"), Fresh),
    responses((status = 200, description = "The session", body = Session))
)]
pub async fn handle(
    State(sessions): State<CommandService>,
    caller: Caller,
    SessionPath(session_id): SessionPath,
    Query(fresh): Query<Fresh>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    read_your_writes::in_log(&sessions, fresh.min_position).await?;
    let found = sessions.find(caller.reader_id, session_id).await?;
    let (version, session) = found
        .as_ref()
        .and_then(|found| Some((found.sequence, found.session.started()?)))
        .ok_or(domain::SessionError::NotFound)?;
    let body = Session::new(session_id, version, session);
    Ok(versioned(&known, &version, &body))
}
