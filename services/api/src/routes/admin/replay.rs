//! `POST /admin/projections/{name}/replay`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use projections::operations::ProjectionName;
use serde::Deserialize;
use sqlx::PgPool;
use utoipa::IntoParams;

use super::operation_queue::{Operation, OperationQueue, already_running};
use super::projections::{ProjectionResponse, ReplayStatus, find};
use super::recorded::RecordedAction;
use crate::extract::{NoBody, PathName, StrictQuery};
use crate::problem::Problem;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// Start from the beginning instead of resuming an interrupted replay.
    #[param(default = false)]
    restart: Option<bool>,
}

/// Replay a projection
///
/// Rebuilds the projection from the log, in the background of this process. Until
/// the replay completes, queries read the previous data. `GET projections` returns
/// the progress. Call this again to resume an interrupted replay.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/replay",
    operation_id = "replay",
    tag = "projections",
    params(("name" = String, Path, description = "The projection"), Params),
    responses((status = 202, description = "The replay has started", body = ProjectionResponse))
)]
pub async fn handle(
    State((pool, operations)): State<(PgPool, OperationQueue)>,
    recorded: RecordedAction,
    PathName(name): PathName<ProjectionName>,
    StrictQuery(params): StrictQuery<Params>,
    NoBody: NoBody,
) -> Result<(StatusCode, Json<ProjectionResponse>), Problem> {
    let restart = params.restart.unwrap_or(false);
    let mut projection = find(&pool, name).await?;
    // The replay may run in another process.
    if projection
        .replay
        .as_ref()
        .is_some_and(|replay| replay.running)
    {
        return Err(already_running(name));
    }
    let operation = Operation::Replay { restart };
    let started = operations.start(name, operation, Some(recorded));
    started.into_result(name)?;
    let before = projection.replay.take().filter(|_| !restart);
    let replay = before.unwrap_or_default();
    projection.replay = Some(ReplayStatus {
        running: true,
        ..replay
    });
    Ok((StatusCode::ACCEPTED, Json(projection)))
}
