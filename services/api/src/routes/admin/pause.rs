//! `POST /admin/projections/{name}/pause` and `/resume`

use axum::Json;
use axum::extract::State;
use projections::status;
use sqlx::PgPool;

use super::projections::{Projection, of};
use crate::extract::PathName;
use crate::problem::Problem;
use projections::operations::ProjectionName;

/// Pause a projection
///
/// Its worker stops after the step it is at, within a second or two; then
/// `worker` is null. Until it is resumed nobody works on it, whatever is started
/// anew. Queries go on, and what they read grows old.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/pause",
    operation_id = "pause",
    tag = "projections",
    params(("name" = String, Path, description = "The projection")),
    responses((status = 200, description = "It is paused", body = Projection))
)]
pub async fn pause(
    State(pool): State<PgPool>,
    PathName(name): PathName<ProjectionName>,
) -> Result<Json<Projection>, Problem> {
    hold(&pool, name, true).await
}

/// Resume a projection
///
/// A worker takes it within a second, if there is one.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/resume",
    operation_id = "resume",
    tag = "projections",
    params(("name" = String, Path, description = "The projection")),
    responses((status = 200, description = "It may go on", body = Projection))
)]
pub async fn resume(
    State(pool): State<PgPool>,
    PathName(name): PathName<ProjectionName>,
) -> Result<Json<Projection>, Problem> {
    hold(&pool, name, false).await
}

async fn hold(pool: &PgPool, name: ProjectionName, paused: bool) -> Result<Json<Projection>, Problem> {
    status::pause(pool, name.as_str(), paused).await?;
    Ok(Json(of(pool, name).await?))
}
