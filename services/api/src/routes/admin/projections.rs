//! `GET /admin/projections`

use axum::Json;
use axum::extract::State;
use domain::Timestamp;
use projections::status::{self, Status};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::problem::Problem;
use projections::operations::ProjectionName;

/// All projections.
#[derive(Debug, Serialize, ToSchema)]
pub struct Projections {
    projections: Vec<Projection>,
}

/// How a projection stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct Projection {
    /// Its name.
    pub name: String,
    /// Whether somebody works on it.
    pub state: Standing,
    /// The global position up to which it has applied the log.
    pub position: i64,
    /// The global position of the newest event.
    pub head: i64,
    /// Events that it has yet to apply; 100,000 stands for more.
    pub lag_events: i64,
    /// How long the first of them has been waiting.
    pub lag_seconds: f64,
    /// Over the last ten seconds.
    pub events_per_second: f64,
    /// Events for each row or entry written, since its worker took over; null
    /// when it has written nothing.
    #[schema(required)]
    pub events_per_write: Option<f64>,
    /// Events that cannot be applied, and those that wait for them.
    pub dead_letters: i64,
    /// Who works on it: the machine, the process, and a name.
    #[schema(required)]
    pub worker: Option<String>,
    /// What its worker failed at last.
    #[schema(required)]
    pub last_error: Option<LastError>,
    /// A replay that runs, or was cut off and can go on.
    #[schema(required)]
    pub replay: Option<Replay>,
}

/// Whether somebody works on a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// A worker applies events.
    Running,
    /// An operator holds it.
    Paused,
    /// Its worker fails and tries again.
    Failing,
    /// There is no worker.
    Stopped,
}

/// What a worker failed at last.
#[derive(Debug, Serialize, ToSchema)]
pub struct LastError {
    /// What.
    pub message: String,
    /// When it began to fail at it.
    #[schema(required, value_type = Option<DateTime>)]
    pub at: Option<Timestamp>,
}

/// A replay.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Replay {
    /// How far it has come, a global position.
    pub position: i64,
    /// How much of the log that is.
    pub percent: i64,
    /// Whether it runs now.
    pub running: bool,
}

impl Standing {
    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Failing => "failing",
            Self::Stopped => "stopped",
        }
    }
}

impl From<Status> for Projection {
    #[expect(clippy::cast_precision_loss, reason = "a rate is no exact figure")]
    fn from(status: Status) -> Self {
        let state = match &status.holder {
            _ if status.paused => Standing::Paused,
            None => Standing::Stopped,
            Some(_) if status.failing => Standing::Failing,
            Some(_) => Standing::Running,
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
            replay: status.replay_position.map(|position| Replay {
                position,
                percent: (position * 100 / status.head.max(1)).min(100),
                running: status.replaying,
            }),
            last_error: status.last_error.map(|message| LastError {
                message,
                at: status.last_error_at,
            }),
            name: status.projection,
            position: status.position,
            head: status.head,
            lag_events: status.lag_events,
            dead_letters: status.dead_letters,
            worker: status.holder,
        }
    }
}

/// How one projection stands.
///
/// # Errors
/// 503 when Postgres does not answer.
pub async fn of(pool: &PgPool, name: ProjectionName) -> Result<Projection, Problem> {
    let all = status::list(pool).await?;
    let status = all.into_iter().find(|s| s.projection == name.as_str());
    // The migrations make a row for each.
    status.map(Projection::from).ok_or_else(Problem::internal)
}

/// Projections
///
/// How far each is behind the log, who works on it, and what it fails at.
#[utoipa::path(
    get,
    path = "/api/v1/admin/projections",
    operation_id = "projections",
    tag = "projections",
    responses((status = 200, description = "All projections", body = Projections))
)]
pub async fn handle(State(pool): State<PgPool>) -> Result<Json<Projections>, Problem> {
    let projections = status::list(&pool).await?;
    let projections = projections.into_iter().map(Projection::from).collect();
    Ok(Json(Projections { projections }))
}
