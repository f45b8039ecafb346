//! `GET /reading-sessions/active`

use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use domain::ReaderId;
use projections::active_sessions::{self, Entry, FILL_DEADLINE};

use crate::api;
use crate::api::auth::Reader;
use crate::api::problem::Problem;
use crate::api::session::{Session, answer};

/// The reader's active session, or `null`: from Redis, and from the log when
/// Redis does not have it.
pub async fn handle(
    State(state): State<api::State>,
    Reader(reader_id): Reader,
) -> Result<Response, Problem> {
    let cached = match active_sessions::get(&state.cache, reader_id).await {
        Ok(cached) => cached,
        Err(error) => {
            tracing::debug!(%error, "an active session is read from the log");
            None
        }
    };
    let entry = match cached {
        Some(entry) => Some(entry),
        None => from_log(&state, reader_id).await?,
    };
    let body = entry
        .as_ref()
        .map(|entry| Session::new(entry.session_id, entry.sequence, &entry.session));
    let version = entry.as_ref().map(|entry| entry.sequence);
    Ok(answer(StatusCode::OK, &body, version, None))
}

async fn from_log(state: &api::State, reader_id: ReaderId) -> Result<Option<Entry>, Problem> {
    let started = Instant::now();
    let Some(active) = state.sessions.active(reader_id).await? else {
        return Ok(None);
    };
    let Some(session) = active.versioned.session.started() else {
        return Ok(None);
    };
    let entry = Entry {
        session_id: active.session_id,
        sequence: active.versioned.sequence,
        session: session.clone(),
    };
    // A fill that took long could bring back what has ended meanwhile.
    if started.elapsed() < FILL_DEADLINE {
        let cache = state.cache.clone();
        let filled = entry.clone();
        tokio::spawn(async move {
            if let Err(error) = active_sessions::fill(&cache, &filled, active.global_position).await
            {
                tracing::debug!(%error, "a miss was not filled");
            }
        });
    }
    Ok(Some(entry))
}
