//! `/admin/dead-letters`: list, show, retry and discard.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use domain::Timestamp;
use futures::FutureExt;
use futures::future::BoxFuture;
use projections::dead_letters::{self, DeadLetter, DeadLetterId, DeadLetterWithEvent};
use projections::operations::ProjectionName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};

use super::page;
use crate::extract::{NoInput, Query};
use crate::openapi::types;
use crate::problem::Problem;

const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 100;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// Return the dead letters of this projection only.
    projection: Option<String>,
    /// Return the dead letters in this state only.
    #[param(schema_with = types::dead_letter_state)]
    state: Option<dead_letters::State>,
    /// The number of dead letters per page.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<i64>,
    /// The `next` of the previous page.
    after: Option<String>,
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetters)]
pub struct DeadLetterPage {
    /// Ordered by global position.
    pub dead_letters: Vec<DeadLetterResponse>,
    /// The `after` of the next page. Null on the last page.
    #[schema(required)]
    pub next: Option<String>,
}

/// An event that a projection has not applied.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadLetterResponse {
    /// The projection and the event's global position, for example `history.1234`.
    pub id: String,
    pub projection: String,
    /// The global position of the event.
    pub global_position: i64,
    pub session_id: String,
    /// The number of the event in its session, from 1.
    pub sequence: i64,
    #[schema(schema_with = types::dead_letter_state)]
    pub state: dead_letters::State,
    /// Why the event is not applied.
    pub error: String,
    #[schema(value_type = DateTime)]
    pub parked_at: Timestamp,
    /// The number of attempts to apply the event, including the first.
    pub tries: i32,
}

/// A dead letter with its event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterWithEvent)]
pub struct DeadLetterDetails {
    #[serde(flatten)]
    pub dead_letter: DeadLetterResponse,
    pub event: DeadLetterEvent,
}

/// An event as stored in the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct DeadLetterEvent {
    pub r#type: String,
    /// The version of the payload's format.
    pub version: String,
    #[schema(value_type = Object)]
    pub payload: Box<RawValue>,
}

impl From<DeadLetter> for DeadLetterResponse {
    fn from(dead_letter: DeadLetter) -> Self {
        Self {
            id: dead_letter.id().to_string(),
            projection: dead_letter.projection,
            global_position: dead_letter.global_position,
            session_id: dead_letter.session_id,
            sequence: dead_letter.sequence,
            state: dead_letter.state,
            error: dead_letter.error,
            parked_at: dead_letter.parked_at,
            tries: dead_letter.tries,
        }
    }
}

impl TryFrom<DeadLetterWithEvent> for DeadLetterDetails {
    type Error = serde_json::Error;

    fn try_from(found: DeadLetterWithEvent) -> Result<Self, serde_json::Error> {
        Ok(Self {
            dead_letter: found.dead_letter.into(),
            event: DeadLetterEvent {
                r#type: found.event_type,
                version: found.event_version,
                payload: RawValue::from_string(found.payload)?,
            },
        })
    }
}

impl DeadLetterPage {
    /// Loads the page with at most `limit` dead letters after `after`.
    #[must_use]
    pub fn load<'a>(
        pool: &'a PgPool,
        projection: Option<ProjectionName>,
        state: Option<dead_letters::State>,
        after: Option<&'a DeadLetterId>,
        limit: i64,
    ) -> BoxFuture<'a, sqlx::Result<Self>> {
        async move {
            let projection = projection.map(ProjectionName::as_str);
            let mut found = dead_letters::list(pool, projection, state, after, limit + 1).await?;
            Ok(Self {
                next: page::cut(&mut found, limit, |last| last.id().to_string()),
                dead_letters: found.into_iter().map(DeadLetterResponse::from).collect(),
            })
        }
        .boxed()
    }
}

/// List dead letters
///
/// Returns the events that projections could not apply, and the events that wait
/// for them, by global position.
#[utoipa::path(
    get,
    path = "/api/v1/admin/dead-letters",
    operation_id = "deadLetters",
    tag = "dead letters",
    params(Params),
    responses((status = 200, description = "A page of dead letters", body = DeadLetterPage))
)]
pub async fn list(
    State(pool): State<PgPool>,
    Query(params): Query<Params>,
) -> Result<Json<DeadLetterPage>, Problem> {
    let limit @ 1..=MAX_LIMIT = params.limit.unwrap_or(DEFAULT_LIMIT) else {
        return Err(Problem::out_of_range("limit", 1, MAX_LIMIT));
    };
    let projection = params.projection.map(|name| {
        name.parse::<ProjectionName>().map_err(|_| {
            let message = format!("must be one of {}", ProjectionName::names());
            Problem::invalid("projection", message)
        })
    });
    let after = params.after.map(|id| parse_id("after", &id));
    let (projection, after) = (projection.transpose()?, after.transpose()?);
    let page = DeadLetterPage::load(&pool, projection, params.state, after.as_ref(), limit).await?;
    Ok(Json(page))
}

/// Retrieve a dead letter
///
/// Returns the dead letter with its event as stored in the log.
#[utoipa::path(
    get,
    path = "/api/v1/admin/dead-letters/{id}",
    operation_id = "deadLetter",
    tag = "dead letters",
    params(("id" = String, Path, description = "The dead letter", example = "history.1234")),
    responses((status = 200, description = "The dead letter", body = DeadLetterDetails))
)]
pub async fn show(
    State(pool): State<PgPool>,
    IdPath(id): IdPath,
) -> Result<Json<DeadLetterDetails>, Problem> {
    Ok(Json(find(&pool, &id).await?))
}

/// Retry a dead letter
///
/// Requests that the projection's worker retries the session's events, in order.
/// The worker usually starts within a second. It deletes the dead letter of every
/// event that it applies. An event that fails again stays parked, with `tries`
/// increased by one.
#[utoipa::path(
    post,
    path = "/api/v1/admin/dead-letters/{id}/retry",
    operation_id = "retry",
    tag = "dead letters",
    params(("id" = String, Path, description = "The dead letter", example = "history.1234")),
    responses((
        status = 202,
        description = "The dead letter before the retry",
        body = DeadLetterDetails
    ))
)]
pub async fn retry(
    State(pool): State<PgPool>,
    IdPath(id): IdPath,
    NoInput: NoInput,
) -> Result<(StatusCode, Json<DeadLetterDetails>), Problem> {
    // Load it first: the worker may delete it before this request returns.
    let dead_letter = find(&pool, &id).await?;
    dead_letters::retry(&pool, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(dead_letter)))
}

/// Discard a dead letter
///
/// The projection skips the event permanently, also in replays, and applies the
/// later events of its session. The log keeps the event. A waiting dead letter
/// cannot be discarded: discard the parked one of its session instead.
#[utoipa::path(
    post,
    path = "/api/v1/admin/dead-letters/{id}/discard",
    operation_id = "discard",
    tag = "dead letters",
    params(("id" = String, Path, description = "The dead letter", example = "history.1234")),
    responses((status = 200, description = "The discarded dead letter", body = DeadLetterDetails))
)]
pub async fn discard(
    State(pool): State<PgPool>,
    IdPath(id): IdPath,
    NoInput: NoInput,
) -> Result<Json<DeadLetterDetails>, Problem> {
    dead_letters::discard(&pool, &id).await?;
    Ok(Json(find(&pool, &id).await?))
}

async fn find(pool: &PgPool, id: &DeadLetterId) -> Result<DeadLetterDetails, Problem> {
    let found = dead_letters::find(pool, id).await?;
    DeadLetterDetails::try_from(found).map_err(|error| Problem::broken(&error))
}

/// The dead letter in the path.
pub struct IdPath(DeadLetterId);

impl<S: Send + Sync> FromRequestParts<S> for IdPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let id = path.map(|path| path.0).unwrap_or_default();
        parse_id("id", &id).map(Self)
    }
}

fn parse_id(field: &str, id: &str) -> Result<DeadLetterId, Problem> {
    id.parse().map_err(|_| {
        let message = "must be a projection, a dot and a global position, as in history.1234";
        Problem::invalid(field, message)
    })
}
