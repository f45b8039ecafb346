//! `PUT /reading-sessions/{id}/end`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use domain::command::Occurrence;
use domain::event::EndReason;
use domain::{EndSession, Timestamp};
use serde::Deserialize;

use crate::api;
use crate::api::auth::Reader;
use crate::api::extract::{CommandContext, Json, Percent, SessionPath};
use crate::api::problem::Problem;
use crate::api::session::{Session, answer};
use crate::clock;

/// Where reading ends.
#[derive(Debug, Deserialize)]
pub struct Body {
    end_position: Option<Percent>,
    occurred_at: Option<Timestamp>,
}

/// Ends a session.
pub async fn handle(
    State(state): State<api::State>,
    Reader(reader_id): Reader,
    SessionPath(session_id): SessionPath,
    CommandContext(context): CommandContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let end = EndSession {
        position: body.end_position.map(|Percent(position)| position),
        reason: EndReason::Finished,
        occurred: Occurrence::new(body.occurred_at, clock::now())?,
    };
    let outcome = state
        .sessions
        .end(reader_id, session_id, end, context)
        .await?;
    let versioned = &outcome.versioned;
    let session = versioned.session.started().ok_or_else(Problem::internal)?;
    let body = Session::new(session_id, versioned.sequence, session);
    Ok(answer(
        StatusCode::OK,
        &body,
        Some(versioned.sequence),
        outcome.global_position,
    ))
}
