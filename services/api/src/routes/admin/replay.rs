//! `POST /admin/projections/{name}/replay`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use sqlx::PgPool;
use utoipa::IntoParams;

use super::projections::{Projection, Replay, of};
use crate::extract::{PathName, Query};
use crate::problem::Problem;
use ::projections::operations::ProjectionName;

use super::replay_queue::{ReplayQueue, StartResult};

/// How.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// Forget what a replay that was cut off has done.
    #[param(default = false)]
    restart: Option<bool>,
}

/// Replay a projection
///
/// Makes it again from the log, in the background of this process. Queries go
/// on reading what was there until it is done, and `projections` says how far
/// it is. One that is cut off goes on from there when it is asked for again.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/replay",
    operation_id = "replay",
    tag = "projections",
    params(("name" = String, Path, description = "The projection"), Params),
    responses((status = 202, description = "It has begun", body = Projection))
)]
pub async fn handle(
    State((pool, replays)): State<(PgPool, ReplayQueue)>,
    PathName(name): PathName<ProjectionName>,
    Query(params): Query<Params>,
) -> Result<(StatusCode, Json<Projection>), Problem> {
    let restart = params.restart.unwrap_or(false);
    let running = || {
        Problem::conflict(format!(
            "A replay of {name} is running, or was a moment ago"
        ))
    };
    let mut projection = of(&pool, name).await?;
    // In this process or in another.
    if projection
        .replay
        .as_ref()
        .is_some_and(|replay| replay.running)
    {
        return Err(running());
    }
    match replays.begin(name, restart) {
        StartResult::Yes => {
            let before = projection.replay.take().filter(|_| !restart);
            let replay = before.unwrap_or_default();
            projection.replay = Some(Replay {
                running: true,
                ..replay
            });
            Ok((StatusCode::ACCEPTED, Json(projection)))
        }
        StartResult::Running => Err(running()),
        StartResult::Stopping => Err(Problem::unavailable("The service stops; try again shortly")),
    }
}
