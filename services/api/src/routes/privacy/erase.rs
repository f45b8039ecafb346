//! `DELETE /reading-sessions`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use commands::CommandService;
use domain::{ReaderId, Timestamp};
use eventlog::erase::Erased;
use eventlog::{LogError, Pool, clock};
use jobs::{Job, store};
use projections::active_sessions;
use projections::cache::Cache;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::response::GLOBAL_POSITION;
use crate::auth::Caller;
use crate::extract::Query;
use crate::problem::Problem;

/// That it is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// The reader's own id, `user_id` of every session.
    confirm: Uuid,
}

/// What was erased.
#[derive(Debug, Serialize, ToSchema)]
pub struct Erasure {
    /// Sessions, 0 when there were none or they were erased before.
    sessions: i64,
    #[schema(value_type = DateTime)]
    erased_at: Timestamp,
}

/// Erase all of the reader's data
///
/// From the answer on every session is as good as none, and so are the answers
/// kept under the reader's `Idempotency-Key`s; history and statistics follow
/// within moments. What the log holds is then written over. It cannot be undone.
/// A token that is still good can start anew, so take it from the app first.
/// Asking again does no harm.
#[utoipa::path(
    delete,
    path = "/api/v1/reading-sessions",
    operation_id = "erase",
    tag = "data",
    params(Params),
    responses((status = 202, description = "Erased; its traces are being removed", body = Erasure))
)]
pub async fn handle(
    State(erasing): State<Erasing>,
    caller: Caller,
    Query(params): Query<Params>,
) -> Result<Response, Problem> {
    if ReaderId::from(params.confirm) != caller.reader_id {
        return Err(Problem::invalid(
            "confirm",
            "not the id of the token's reader",
        ));
    }
    let erased_at = clock::now();
    // Goes on when the client hangs up.
    let erased = tokio::spawn(erasing.erase(caller.reader_id, erased_at));
    let erased = erased.await.map_err(|error| Problem::broken(&error))??;
    let body = Json(Erasure {
        sessions: erased.sessions,
        erased_at,
    });
    let mut response = (StatusCode::ACCEPTED, body).into_response();
    if let Some(position) = erased.global_position {
        response
            .headers_mut()
            .insert(GLOBAL_POSITION, position.into());
    }
    Ok(response)
}

/// What it takes; cheap to clone.
#[derive(Clone)]
pub struct Erasing {
    /// The command side.
    pub sessions: CommandService,
    /// The active sessions.
    pub cache: Cache,
    /// Where jobs are asked for.
    pub pool: Pool,
}

impl Erasing {
    async fn erase(self, reader_id: ReaderId, at: Timestamp) -> Result<Erased, LogError> {
        let erased = self.sessions.erase(reader_id, at).await?;
        if let Some(position) = erased.global_position {
            active_sessions::erase(&self.cache, reader_id, position).await;
            tokio::spawn(async move {
                if let Err(error) = store::ask(&self.pool, Job::Erasures.as_str()).await {
                    tracing::debug!(%error, "a job was not asked for; it is due within a minute");
                }
            });
        }
        Ok(erased)
    }
}
