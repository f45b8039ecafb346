//! `GET /reading-sessions/{id}`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::api;
use crate::api::auth::Reader;
use crate::api::extract::SessionPath;
use crate::api::problem::Problem;
use crate::api::session::{Session, answer};

/// A session as it stands in the log, so that an app finds what it just wrote.
pub async fn handle(
    State(state): State<api::State>,
    Reader(reader_id): Reader,
    SessionPath(session_id): SessionPath,
) -> Result<Response, Problem> {
    let found = state.sessions.find(reader_id, session_id).await?;
    let (versioned, session) = found
        .as_ref()
        .and_then(|found| Some((found, found.session.started()?)))
        .ok_or(domain::SessionError::NotFound)?;
    let body = Session::new(session_id, versioned.sequence, session);
    Ok(answer(
        StatusCode::OK,
        &body,
        Some(versioned.sequence),
        None,
    ))
}
