//! `GET /admin/processes`: the holders of leases, and the open connections to Postgres.

use axum::Json;
use axum::extract::State;
use eventlog::connections::{self, ConnectionGroup};
use jobs::store;
use messaging::relay;
use projections::status;
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use super::access::{Process, ProcessResponse};
use crate::problem::Problem;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Processes)]
pub struct ProcessesResponse {
    /// The process that responds.
    this: ProcessResponse,
    /// Work that only one process may do at a time.
    leases: Vec<LeaseResponse>,
    /// The open connections of all processes. A process that connects as `reading_api` sees
    /// only those of its own role.
    connections: Vec<ConnectionsResponse>,
}

/// Work that only one process may do at a time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Lease)]
pub struct LeaseResponse {
    kind: LeaseKind,
    /// The name of the projection or job; `relay` for the relay.
    name: String,
    /// The process: machine, process id and a random part. For the relay the address of its
    /// connection to Postgres, `local` for a socket, or `unknown` if this process may not see
    /// the connections of other roles. Null if no process holds the lease.
    #[schema(required)]
    holder: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaseKind {
    Relay,
    Projection,
    Job,
}

/// Connections to Postgres of one machine, role and pool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Connections)]
pub struct ConnectionsResponse {
    /// The address from which the processes connect, or `local` for a socket.
    address: String,
    /// The role in Postgres.
    role: String,
    pool: String,
    connections: i64,
    /// Connections that run a statement.
    active: i64,
    /// The age of the oldest open transaction, in seconds. 0 if there is none.
    longest_transaction_seconds: f64,
}

/// List leases and connections
///
/// Returns which process holds the lease of the relay, of each projection and of each job,
/// and the open connections to Postgres.
#[utoipa::path(
    get,
    path = "/api/v1/admin/processes",
    operation_id = "processes",
    tag = "processes",
    responses((status = 200, description = "Leases and connections", body = ProcessesResponse))
)]
pub async fn list(
    State((pool, process)): State<(PgPool, Process)>,
) -> Result<Json<ProcessesResponse>, Problem> {
    let relay = relay::leader(&pool).await?;
    let relay = LeaseResponse {
        kind: LeaseKind::Relay,
        name: "relay".to_owned(),
        holder: relay.map(|leader| leader.address.unwrap_or_else(|| UNKNOWN.to_owned())),
    };
    let projections = status::list(&pool).await?;
    let projections = projections.into_iter().map(|status| LeaseResponse {
        kind: LeaseKind::Projection,
        name: status.projection,
        holder: status.holder,
    });
    let jobs = store::list(&pool).await?;
    let jobs = jobs.into_iter().map(|(job, status)| LeaseResponse {
        kind: LeaseKind::Job,
        name: job.as_str().to_owned(),
        holder: status.holder,
    });
    let connections = connections::list(&pool).await?;
    Ok(Json(ProcessesResponse {
        this: process.response(),
        leases: std::iter::once(relay)
            .chain(projections)
            .chain(jobs)
            .collect(),
        connections: connections
            .into_iter()
            .map(ConnectionsResponse::from)
            .collect(),
    }))
}

const UNKNOWN: &str = "unknown";

impl From<ConnectionGroup> for ConnectionsResponse {
    fn from(group: ConnectionGroup) -> Self {
        Self {
            address: group.address.unwrap_or_else(|| "local".to_owned()),
            role: group.role,
            pool: group.pool,
            connections: group.connections,
            active: group.active,
            longest_transaction_seconds: group.longest_transaction,
        }
    }
}
