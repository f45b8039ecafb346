//! `GET /admin/dead-letters`

use axum::Json;
use axum::extract::State;
use clap::ValueEnum;
use domain::Timestamp;
use projections::dead_letters::{self, LetterId};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};

use crate::extract::Query;
use crate::problem::Problem;
use projections::operations::ProjectionName;

const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 100;

/// Which.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// Only those of a projection.
    projection: Option<String>,
    /// Only those in a state.
    #[param(inline)]
    state: Option<LetterState>,
    /// At most so many.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<i64>,
    /// `next` of the page before.
    after: Option<String>,
}

/// What becomes of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// Its event cannot be applied.
    Parked,
    /// It follows one of its session that cannot.
    Waiting,
    /// It was left out for good.
    Discarded,
}

impl LetterState {
    /// As the table has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Waiting => "waiting",
            Self::Discarded => "discarded",
        }
    }
}

/// Dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetters {
    /// In the order of the log.
    pub dead_letters: Vec<DeadLetter>,
    /// For `after`; null on the last page.
    #[schema(required)]
    pub next: Option<String>,
}

/// An event that a projection has not applied.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetter {
    /// Its projection and its place in the log.
    pub id: String,
    /// Whose it is.
    pub projection: String,
    /// Its place in the log.
    pub global_position: i64,
    /// Its session.
    pub session_id: String,
    /// Its place in the session.
    pub sequence: i64,
    /// `parked`, `waiting` or `discarded`.
    #[schema(value_type = LetterState)]
    pub state: String,
    /// Why it was not applied.
    pub error: String,
    /// Since when.
    #[schema(value_type = DateTime)]
    pub parked_at: Timestamp,
    /// How often it was tried.
    pub tries: i32,
}

impl From<dead_letters::DeadLetter> for DeadLetter {
    fn from(letter: dead_letters::DeadLetter) -> Self {
        Self {
            id: letter.id().to_string(),
            projection: letter.projection,
            global_position: letter.global_position,
            session_id: letter.session_id,
            sequence: letter.sequence,
            state: letter.state,
            error: letter.error,
            parked_at: letter.parked_at,
            tries: letter.tries,
        }
    }
}

impl DeadLetters {
    /// At most `limit` after a letter.
    ///
    /// # Errors
    /// Those of Postgres.
    pub async fn page(
        pool: &PgPool,
        projection: Option<ProjectionName>,
        state: Option<LetterState>,
        after: Option<&LetterId>,
        limit: i64,
    ) -> sqlx::Result<Self> {
        let projection = projection.map(ProjectionName::as_str);
        let state = state.map(LetterState::as_str);
        let mut letters = dead_letters::list(pool, projection, state, after, limit + 1).await?;
        let size = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = letters.len() > size;
        letters.truncate(size);
        let next = letters.last().filter(|_| more);
        Ok(Self {
            next: next.map(|last| last.id().to_string()),
            dead_letters: letters.into_iter().map(DeadLetter::from).collect(),
        })
    }
}

/// Dead letters
///
/// Events that projections could not apply, and those that wait for them, in
/// the order of the log.
#[utoipa::path(
    get,
    path = "/api/v1/admin/dead-letters",
    operation_id = "deadLetters",
    tag = "dead letters",
    params(Params),
    responses((status = 200, description = "A page", body = DeadLetters))
)]
pub async fn handle(
    State(pool): State<PgPool>,
    Query(params): Query<Params>,
) -> Result<Json<DeadLetters>, Problem> {
    let limit @ 1..=MAX_LIMIT = params.limit.unwrap_or(DEFAULT_LIMIT) else {
        return Err(Problem::invalid("limit", format!("from 1 to {MAX_LIMIT}")));
    };
    let projection = params.projection.map(|name| {
        ProjectionName::named(&name)
            .ok_or_else(|| Problem::invalid("projection", format!("one of {}", ProjectionName::list())))
    });
    let after = params.after.map(|id| {
        id.parse::<LetterId>()
            .map_err(|error| Problem::invalid("after", error.to_string()))
    });
    let (projection, after) = (projection.transpose()?, after.transpose()?);
    let page = DeadLetters::page(&pool, projection, params.state, after.as_ref(), limit).await?;
    Ok(Json(page))
}
