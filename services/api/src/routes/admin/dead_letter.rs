//! `GET /admin/dead-letters/{id}`, and `POST` to its `/retry` and `/discard`

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use projections::dead_letters::{Found, LetterId};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgPool;
use utoipa::ToSchema;

use super::dead_letters::DeadLetter;
use crate::problem::Problem;
use projections::dead_letters::actions;

/// A dead letter and its event.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterShown {
    /// The letter.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// The event as the log has it.
    pub event: Event,
}

/// An event as the log has it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Event {
    /// Its name.
    pub r#type: String,
    /// The version of its payload.
    pub version: String,
    /// What it says.
    #[schema(value_type = Object)]
    pub payload: Box<RawValue>,
}

impl TryFrom<Found> for DeadLetterShown {
    type Error = serde_json::Error;

    fn try_from(found: Found) -> Result<Self, serde_json::Error> {
        Ok(Self {
            letter: found.letter.into(),
            event: Event {
                r#type: found.event_type,
                version: found.event_version,
                payload: RawValue::from_string(found.payload)?,
            },
        })
    }
}

/// The letter in the path.
pub struct Path(LetterId);

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let id = path.map(|path| path.0).unwrap_or_default();
        let id = id.parse::<LetterId>();
        id.map(Self)
            .map_err(|error| Problem::invalid("id", error.to_string()))
    }
}

/// A dead letter
///
/// With its event as the log has it.
#[utoipa::path(
    get,
    path = "/api/v1/admin/dead-letters/{id}",
    operation_id = "deadLetter",
    tag = "dead letters",
    params(("id" = String, Path, description = "The dead letter", example = "history.1234")),
    responses((status = 200, description = "The letter", body = DeadLetterShown))
)]
pub async fn show(
    State(pool): State<PgPool>,
    Path(id): Path,
) -> Result<Json<DeadLetterShown>, Problem> {
    Ok(Json(shown(&pool, &id).await?))
}

/// Retry a dead letter
///
/// Its session is tried again, in order, as soon as the projection's worker
/// comes to it, mostly within a second. What could be applied has no letter any
/// more; what could not is parked with one try more.
#[utoipa::path(
    post,
    path = "/api/v1/admin/dead-letters/{id}/retry",
    operation_id = "retry",
    tag = "dead letters",
    params(("id" = String, Path, description = "The dead letter", example = "history.1234")),
    responses((status = 202, description = "It is tried again", body = DeadLetterShown))
)]
pub async fn retry(
    State(pool): State<PgPool>,
    Path(id): Path,
) -> Result<(StatusCode, Json<DeadLetterShown>), Problem> {
    // A worker may be faster than the answer, and then there is nothing to show.
    let letter = shown(&pool, &id).await?;
    actions::retry(&pool, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(letter)))
}

/// Discard a dead letter
///
/// Its event is left out of its projection for good, after replays too, and
/// those that wait for it go on. The log keeps it.
#[utoipa::path(
    post,
    path = "/api/v1/admin/dead-letters/{id}/discard",
    operation_id = "discard",
    tag = "dead letters",
    params(("id" = String, Path, description = "The dead letter", example = "history.1234")),
    responses((status = 200, description = "It is left out", body = DeadLetterShown))
)]
pub async fn discard(
    State(pool): State<PgPool>,
    Path(id): Path,
) -> Result<Json<DeadLetterShown>, Problem> {
    actions::discard(&pool, &id).await?;
    Ok(Json(shown(&pool, &id).await?))
}

async fn shown(pool: &PgPool, id: &LetterId) -> Result<DeadLetterShown, Problem> {
    let found = actions::find(pool, id).await?;
    DeadLetterShown::try_from(found).map_err(|error| Problem::broken(&error))
}
