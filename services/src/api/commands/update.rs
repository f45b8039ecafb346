//! `PUT /reading-sessions/{id}/update`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use domain::command::Occurrence;
use domain::{Timestamp, UpdatePosition};
use serde::{Deserialize, Serialize};

use super::MAX_LOCATOR;
use crate::api;
use crate::api::auth::Reader;
use crate::api::extract::{CommandContext, Json, Percent, SessionPath, text};
use crate::api::problem::Problem;
use crate::api::session::{Session, answer};
use crate::clock;

/// Where the reader is.
#[derive(Debug, Deserialize)]
pub struct Body {
    current_position: Percent,
    locator: Option<String>,
    occurred_at: Option<Timestamp>,
}

/// The session, and whether the position became its latest.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(flatten)]
    session: Session,
    applied: bool,
}

/// Moves a session's position.
pub async fn handle(
    State(state): State<api::State>,
    Reader(reader_id): Reader,
    SessionPath(session_id): SessionPath,
    CommandContext(context): CommandContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let update = UpdatePosition {
        position: body.current_position.0,
        locator: text("locator", body.locator, MAX_LOCATOR)?,
        occurred: Occurrence::new(body.occurred_at, clock::now())?,
    };
    let outcome = state
        .sessions
        .update_position(reader_id, session_id, update, context)
        .await?;
    let versioned = &outcome.versioned;
    let session = versioned.session.started().ok_or_else(Problem::internal)?;
    let body = Answer {
        session: Session::new(session_id, versioned.sequence, session),
        applied: outcome.applied,
    };
    Ok(answer(
        StatusCode::OK,
        &body,
        Some(versioned.sequence),
        outcome.global_position,
    ))
}
