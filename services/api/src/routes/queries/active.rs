//! `GET /reading-sessions/active`

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::extract::{MinPositionParams, Query};
use crate::problem::Problem;
use crate::rate_limit::Prefetched;
use crate::read_your_writes;
use crate::response::{IfNoneMatch, versioned};
use crate::session::SessionResponse;

mod metrics;
mod singleflight;

pub use singleflight::{ActiveRead, ActiveReads};

/// The warning that RFC 7234 (section 5.5.1) defines for stale responses.
const STALE: HeaderValue = HeaderValue::from_static("110 - \"Response is Stale\"");

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ActiveSession)]
pub struct ActiveSessionResponse {
    #[serde(flatten)]
    session: SessionResponse,
    /// Whether the session may be out of date because the database is
    /// unavailable. The response then has the header `Warning`.
    stale: bool,
}

/// Retrieve the active session
///
/// Returns `null` if the reader has no active session. The response is usually a
/// few hundredths of a second behind; `min_position` makes it include the effect of a
/// command. While the database is unavailable, the service returns the last known
/// session, or `null`, with the header `Warning`.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/active",
    operation_id = "active",
    tag = "queries",
    params(MinPositionParams),
    responses((status = 200, description = "The active session, or null", body = Option<ActiveSessionResponse>))
)]
pub async fn handle(
    State(reads): State<ActiveReads>,
    caller: Caller,
    Query(params): Query<MinPositionParams>,
    cached: IfNoneMatch,
    prefetched: Option<Extension<Prefetched>>,
) -> Result<Response, Problem> {
    let min_position = read_your_writes::min_position(params.min_position)?;
    let prefetched = prefetched.map(|Extension(prefetched)| prefetched);
    let found = reads.find(caller.reader_id, min_position, prefetched);
    let ActiveRead { active, stale } = found.await?;
    let mut response = match active {
        Some(entry) => {
            // The next active session may have the same version number, so the id
            // is part of the tag. A stale response must not match a current one.
            let suffix = if stale { ".stale" } else { "" };
            let version = format!("{}.{}{suffix}", entry.session_id, entry.sequence);
            let body = ActiveSessionResponse {
                session: SessionResponse::new(entry.session_id, entry.sequence, &entry.session),
                stale,
            };
            versioned(&cached, &version, &body)
        }
        None => Json(()).into_response(),
    };
    if stale {
        response.headers_mut().insert(header::WARNING, STALE);
    }
    Ok(response)
}
