//! `GET /reading-sessions/active`

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use domain::ReaderId;
use eventlog::Sessions;
use projections::active_sessions::{self, Entry, FILL_DEADLINE};
use projections::cache::Cache;

use crate::api::answer::versioned;
use crate::api::auth::Caller;
use crate::api::extract::{Fresh, Query};
use crate::api::freshness;
use crate::api::problem::Problem;
use crate::api::session::Session;

/// The active session
///
/// Or `null`. From Redis, and from the log when Redis does not have it, or
/// when the answer must include a position.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/active",
    operation_id = "active",
    tag = "queries",
    params(Fresh),
    responses((status = 200, description = "The session, or null", body = Option<Session>))
)]
pub async fn handle(
    State((sessions, cache)): State<(Sessions, Cache)>,
    caller: Caller,
    Query(fresh): Query<Fresh>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    freshness::in_log(&sessions, fresh.min_position).await?;
    let cached = if fresh.min_position.is_none() {
        from_redis(&cache, caller.reader_id).await
    } else {
        None
    };
    let entry = match cached {
        Some(entry) => Some(entry),
        None => from_log(&sessions, cache, caller.reader_id).await?,
    };
    let Some(entry) = entry else {
        return Ok(Json(()).into_response());
    };
    let body = Session::new(entry.session_id, entry.sequence, &entry.session);
    // Another session may be here next time, with a version like this one's.
    let version = format!("{}.{}", entry.session_id, entry.sequence);
    Ok(versioned(&method, &headers, &version, &body))
}

async fn from_redis(cache: &Cache, reader_id: ReaderId) -> Option<Entry> {
    match active_sessions::get(cache, reader_id).await {
        Ok(cached) => cached,
        Err(error) => {
            tracing::debug!(%error, "an active session is read from the log");
            None
        }
    }
}

async fn from_log(
    sessions: &Sessions,
    cache: Cache,
    reader_id: ReaderId,
) -> Result<Option<Entry>, Problem> {
    let started = Instant::now();
    let Some(active) = sessions.active(reader_id).await? else {
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
    let filled = entry.clone();
    tokio::spawn(async move {
        // One that took long could bring back what has ended meanwhile.
        if started.elapsed() < FILL_DEADLINE
            && let Err(error) = active_sessions::fill(&cache, &filled, active.global_position).await
        {
            tracing::debug!(%error, "a miss was not filled");
        }
    });
    Ok(Some(entry))
}
