//! `GET /admin/projections`

use axum::Json;
use axum::extract::State;
use domain::Timestamp;
use projections::operations::ProjectionName;
use projections::status::{self, ProjectionStatus};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::problem::Problem;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Projections)]
pub struct ProjectionsResponse {
    projections: Vec<ProjectionResponse>,
}

/// The status of a projection.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Projection)]
pub struct ProjectionResponse {
    pub name: String,
    pub state: ProjectionState,
    /// The global position up to which the projection has applied the log.
    pub position: i64,
    /// The global position of the newest event in the log.
    pub head: i64,
    /// The number of events after `position`. 100,000 is the maximum.
    pub lag_events: i64,
    /// The age of the first event after `position`, in seconds.
    pub lag_seconds: f64,
    /// The average over the last ten seconds.
    pub events_per_second: f64,
    /// The number of applied events per written row or cache entry, since the
    /// worker took its lease. Null if the worker has written nothing.
    #[schema(required)]
    pub events_per_write: Option<f64>,
    /// The number of parked and waiting events.
    pub dead_letters: i64,
    /// The oldest version of the time zone rules that the rows were computed with, for
    /// example `2026f`. Null if they do not depend on time zones.
    #[schema(required)]
    pub tzdata: Option<String>,
    /// The lease holder: machine, process id and a random part. Null if there is
    /// none.
    #[schema(required)]
    pub worker: Option<String>,
    #[schema(required)]
    pub last_error: Option<LastError>,
    /// The replay that runs, or that was interrupted and can be resumed. Null if
    /// there is none.
    #[schema(required)]
    pub replay: Option<ReplayStatus>,
}

/// `running`: a worker applies events. `paused`: an operator paused the projection.
/// `failing`: the worker fails and retries. `stopped`: there is no worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProjectionState {
    Running,
    Paused,
    Failing,
    Stopped,
}

/// The worker's last error.
#[derive(Debug, Serialize, ToSchema)]
pub struct LastError {
    pub message: String,
    /// The time at which the error first occurred.
    #[schema(required, value_type = Option<DateTime>)]
    pub at: Option<Timestamp>,
}

/// The progress of a replay.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Replay)]
pub struct ReplayStatus {
    /// The global position that the replay has reached.
    pub position: i64,
    /// `position` in percent of the log.
    pub percent: i64,
    /// Whether the replay runs now. An interrupted one does not.
    pub running: bool,
}

impl ProjectionState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Failing => "failing",
            Self::Stopped => "stopped",
        }
    }
}

impl From<ProjectionStatus> for ProjectionResponse {
    #[expect(clippy::cast_precision_loss, reason = "the rate is rounded")]
    fn from(status: ProjectionStatus) -> Self {
        let state = match &status.holder {
            _ if status.paused => ProjectionState::Paused,
            None => ProjectionState::Stopped,
            Some(_) if status.failing => ProjectionState::Failing,
            Some(_) => ProjectionState::Running,
        };
        let rounded = |figure: f64, decimals: i32| {
            let shift = 10_f64.powi(decimals);
            (figure * shift).round() / shift
        };
        Self {
            state,
            lag_seconds: rounded(status.lag_seconds, 3),
            events_per_second: rounded(status.events_per_second, 1),
            events_per_write: (status.row_writes > 0)
                .then(|| rounded(status.events as f64 / status.row_writes as f64, 2)),
            replay: status.replay_position.map(|position| ReplayStatus {
                position,
                percent: (position * 100 / status.head.max(1)).min(100),
                running: status.replaying,
            }),
            last_error: status.last_error.map(|message| LastError {
                message,
                at: status.last_error_at,
            }),
            name: status.projection,
            position: status.global_position,
            head: status.head,
            lag_events: status.lag_events,
            dead_letters: status.dead_letters,
            tzdata: status.tzdata,
            worker: status.holder,
        }
    }
}

/// The status of one projection.
pub(super) async fn find(
    pool: &PgPool,
    name: ProjectionName,
) -> Result<ProjectionResponse, Problem> {
    let status = status::find(pool, name.as_str()).await?;
    // The migrations insert a row for every projection.
    let status = status.ok_or_else(Problem::internal)?;
    Ok(status.into())
}

/// List projections
///
/// Returns the status of each projection: its lag, its worker, its last error and
/// its replay.
#[utoipa::path(
    get,
    path = "/api/v1/admin/projections",
    operation_id = "projections",
    tag = "projections",
    responses((status = 200, description = "All projections", body = ProjectionsResponse))
)]
pub async fn list(State(pool): State<PgPool>) -> Result<Json<ProjectionsResponse>, Problem> {
    let projections = status::list(&pool).await?;
    let projections = projections
        .into_iter()
        .map(ProjectionResponse::from)
        .collect();
    Ok(Json(ProjectionsResponse { projections }))
}
