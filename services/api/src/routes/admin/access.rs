//! `GET /admin/access`: the access of the token, and the process that responds.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use domain::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::AdminAccess;
use crate::auth::operator::Operator;

/// This process.
#[derive(Clone, Debug)]
pub struct Process {
    /// The name under which it holds leases.
    pub name: Arc<str>,
    pub roles: Arc<[&'static str]>,
    pub started_at: Timestamp,
}

/// A process of the service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Process)]
pub struct ProcessResponse {
    /// Machine, process id and a random part. Leases have the same name.
    name: String,
    roles: Vec<&'static str>,
    version: &'static str,
    #[schema(value_type = DateTime)]
    started_at: Timestamp,
}

/// The access of the token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Access)]
pub struct AccessResponse {
    /// The subject of the token.
    subject: String,
    /// Whether the token allows calls that change something.
    may_act: bool,
    #[schema(value_type = DateTime)]
    expires_at: Timestamp,
    /// The process that responds.
    process: ProcessResponse,
}

impl Process {
    pub(super) fn response(&self) -> ProcessResponse {
        ProcessResponse {
            name: self.name.to_string(),
            roles: self.roles.to_vec(),
            version: env!("CARGO_PKG_VERSION"),
            started_at: self.started_at,
        }
    }
}

/// Retrieve what the token allows
///
/// Returns the subject, the access and the expiry of the token of this request.
#[utoipa::path(
    get,
    path = "/api/v1/admin/access",
    operation_id = "access",
    tag = "processes",
    responses((status = 200, description = "What the token allows", body = AccessResponse))
)]
pub async fn handle(State(process): State<Process>, operator: Operator) -> Json<AccessResponse> {
    Json(AccessResponse {
        may_act: operator.access >= AdminAccess::Act,
        subject: operator.subject,
        expires_at: operator.expires_at,
        process: process.response(),
    })
}
