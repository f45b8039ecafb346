//! The state of the service at one moment: what Postgres contains, and the figures of this
//! process.

use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use eventlog::error::error_chain;
use eventlog::{LogError, audit, clock, read};
use jobs::store;
use projections::status;
use prometheus_client::registry::Registry;
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use super::figures::ProcessFigures;
use crate::routes::admin::audit::{AuditEntryResponse, AuditPage};
use crate::routes::admin::jobs::JobResponse;
use crate::routes::admin::projections::ProjectionResponse;

/// How long a snapshot may take. It then reports that Postgres does not respond.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);

/// The newest entries of the audit in a snapshot.
const RECENT_ACTIONS: i64 = 10;

#[derive(Clone)]
pub(super) struct SnapshotSource {
    pub(super) pool: PgPool,
    /// The name of this process.
    pub(super) process: Arc<str>,
    pub(super) registry: Arc<Registry>,
}

/// The state of the service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Live)]
pub struct LiveSnapshot {
    #[schema(value_type = DateTime)]
    at: Timestamp,
    /// The process that sends the stream.
    process: ProcessFigures,
    /// What Postgres contains. Null if it cannot be read.
    #[schema(required)]
    log: Option<LogSnapshot>,
    /// Why Postgres cannot be read. Null if it can.
    #[schema(required)]
    error: Option<String>,
}

/// The state of the log and of the work on it, by all processes.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogSnapshot {
    /// The global position of the newest event.
    head: i64,
    projections: Vec<ProjectionResponse>,
    jobs: Vec<JobResponse>,
    /// The newest entries of the audit. Null if this process may not read the audit.
    #[schema(required)]
    actions: Option<Vec<AuditEntryResponse>>,
}

impl SnapshotSource {
    pub(super) async fn take(&self) -> LiveSnapshot {
        let log = tokio::time::timeout(SNAPSHOT_TIMEOUT, log(&self.pool)).await;
        let (log, error) = match log {
            Ok(Ok(log)) => (Some(log), None),
            Ok(Err(error)) => {
                tracing::debug!(error = error_chain(&error), "reading a snapshot failed");
                (None, Some("Postgres cannot be read"))
            }
            Err(_) => (None, Some("Postgres does not respond")),
        };
        LiveSnapshot {
            at: clock::now(),
            process: ProcessFigures::from_registry(&self.process, &self.registry),
            log,
            error: error.map(str::to_owned),
        }
    }
}

async fn log(pool: &PgPool) -> Result<LogSnapshot, LogError> {
    let mut connection = pool.acquire().await?;
    let projections = status::list(&mut *connection).await?;
    let jobs = store::list(&mut *connection).await?;
    // Postgres would log an error for a statement without the right.
    let actions = if audit::is_readable(&mut *connection).await? {
        let page = AuditPage::load(&mut *connection, None, RECENT_ACTIONS).await?;
        Some(page.entries)
    } else {
        None
    };
    Ok(LogSnapshot {
        head: read::head(&mut *connection).await?,
        projections: projections
            .into_iter()
            .map(ProjectionResponse::from)
            .collect(),
        jobs: jobs.into_iter().map(JobResponse::from).collect(),
        actions,
    })
}
