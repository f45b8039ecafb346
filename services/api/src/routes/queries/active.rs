//! `GET /reading-sessions/active`

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::response::{IfNoneMatch, versioned};
use crate::auth::Caller;
use crate::extract::{Fresh, Query};
use crate::read_your_writes;
use crate::problem::Problem;
use crate::session::Session;

mod counts;
mod singleflight;

pub use singleflight::{ActiveReads, Found};

/// As RFC 7234 (section 5.5.1) has it: what is old is better than nothing, and
/// must say that it is old.
const STALE: HeaderValue = HeaderValue::from_static("110 - \"Response is Stale\"");

/// The active session.
#[derive(Debug, Serialize, ToSchema)]
pub struct ActiveSession {
    #[serde(flatten)]
    session: Session,
    /// The database is away, so this is what was known last; the header `Warning`
    /// says so too.
    stale: bool,
}

/// The active session
///
/// Or `null`. From Redis, and from the log when Redis does not know it, or not
/// yet as far as `min_position`. While the database is away it is what Redis
/// knew last, marked as stale, with the header `Warning`, also for `null`.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/active",
    operation_id = "active",
    tag = "queries",
    params(Fresh),
    responses((status = 200, description = "The session, or null", body = Option<ActiveSession>))
)]
pub async fn handle(
    State(reads): State<ActiveReads>,
    caller: Caller,
    Query(fresh): Query<Fresh>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let min_position = read_your_writes::position(fresh.min_position)?;
    let Found { active, stale } = reads.find(caller.reader_id, min_position).await?;
    let mut response = match active {
        Some(entry) => {
            // Another session may be here next time, with a version like this one's;
            // and what is stale today is not so tomorrow.
            let stale_too = if stale { ".stale" } else { "" };
            let version = format!("{}.{}{stale_too}", entry.session_id, entry.sequence);
            let body = ActiveSession {
                session: Session::new(entry.session_id, entry.sequence, &entry.session),
                stale,
            };
            versioned(&known, &version, &body)
        }
        None => Json(()).into_response(),
    };
    if stale {
        response.headers_mut().insert(header::WARNING, STALE);
    }
    Ok(response)
}
