//! `POST /admin/projections/{name}/verify`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use projections::operations::ProjectionName;
use serde::Serialize;
use utoipa::ToSchema;

use super::operation_queue::{Operation, OperationQueue};
use super::recorded::RecordedAction;
use crate::extract::{NoInput, PathName};
use crate::problem::Problem;

/// A verification that has started.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Verification)]
pub struct VerifyResponse {
    projection: &'static str,
    /// The entry of the audit that gets the result.
    audit_id: String,
}

/// Verify a projection
///
/// Compares the projection with the log, in the background of this process. Queries and
/// commands continue. `GET audit/{id}` returns the result: `details` has `equal` and, for
/// each table, the number of rows and of differing rows. The command `verify` prints the
/// differences themselves.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/verify",
    operation_id = "verify",
    tag = "projections",
    params(("name" = String, Path, description = "The projection")),
    responses((status = 202, description = "The verification has started", body = VerifyResponse))
)]
pub async fn handle(
    State(operations): State<OperationQueue>,
    recorded: RecordedAction,
    PathName(name): PathName<ProjectionName>,
    NoInput: NoInput,
) -> Result<(StatusCode, Json<VerifyResponse>), Problem> {
    let audit_id = recorded.id().to_string();
    let started = operations.start(name, Operation::Verify, Some(recorded));
    started.into_result(name)?;
    let response = VerifyResponse {
        projection: name.as_str(),
        audit_id,
    };
    Ok((StatusCode::ACCEPTED, Json(response)))
}
