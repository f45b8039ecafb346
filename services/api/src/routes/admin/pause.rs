//! `POST /admin/projections/{name}/pause` and `/resume`

use axum::Json;
use axum::extract::State;
use projections::operations::ProjectionName;
use projections::status;
use sqlx::PgPool;

use super::projections::{ProjectionResponse, find};
use crate::extract::{NoInput, PathName};
use crate::problem::Problem;

/// Pause a projection
///
/// The worker stops after its current commit, within two seconds; `worker` is then
/// null. The projection stays paused until it is resumed, also when processes
/// restart. Queries continue to read its data, which becomes outdated.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/pause",
    operation_id = "pause",
    tag = "projections",
    params(("name" = String, Path, description = "The projection")),
    responses((status = 200, description = "The paused projection", body = ProjectionResponse))
)]
pub async fn pause(
    State(pool): State<PgPool>,
    PathName(name): PathName<ProjectionName>,
    NoInput: NoInput,
) -> Result<Json<ProjectionResponse>, Problem> {
    set_paused(&pool, name, true).await
}

/// Resume a projection
///
/// A worker takes over the projection within a second, if a process with the role
/// `projections` runs.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/resume",
    operation_id = "resume",
    tag = "projections",
    params(("name" = String, Path, description = "The projection")),
    responses((status = 200, description = "The resumed projection", body = ProjectionResponse))
)]
pub async fn resume(
    State(pool): State<PgPool>,
    PathName(name): PathName<ProjectionName>,
    NoInput: NoInput,
) -> Result<Json<ProjectionResponse>, Problem> {
    set_paused(&pool, name, false).await
}

async fn set_paused(
    pool: &PgPool,
    name: ProjectionName,
    paused: bool,
) -> Result<Json<ProjectionResponse>, Problem> {
    status::pause(pool, name.as_str(), paused).await?;
    Ok(Json(find(pool, name).await?))
}
