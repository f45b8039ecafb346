//! `GET /admin/jobs` and `POST /admin/jobs/{name}/run`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::Timestamp;
use jobs::store::{self, JobStatus};
use jobs::scheduler;
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::extract::PathName;
use crate::problem::Problem;
use jobs::Job;

/// All jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Jobs {
    jobs: Vec<JobStatusBody>,
}

/// A job of upkeep.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobStatusBody {
    /// Its name.
    pub name: &'static str,
    /// When it is run, in words.
    pub schedule: String,
    /// Whether it is run now.
    pub state: JobState,
    /// When it is due; null at once.
    #[schema(required, value_type = Option<DateTime>)]
    pub due_at: Option<Timestamp>,
    /// Who runs it: the machine, the process, and a name.
    #[schema(required)]
    pub worker: Option<String>,
    /// How much it has done in this run; null when it is not run.
    #[schema(required)]
    pub done: Option<i64>,
    /// The last run that came to its end.
    #[schema(required)]
    pub last: Option<Run>,
}

/// Whether a job is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = JobState)]
pub enum JobState {
    /// It is.
    Running,
    /// As soon as somebody can.
    Asked,
    /// When it is due.
    Waiting,
}

/// A run of a job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobRun)]
pub struct Run {
    /// When it ended.
    #[schema(value_type = DateTime)]
    pub ended_at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: i64,
    /// Whether it failed; then it is tried again within a minute.
    pub failed: bool,
    /// What it came to, or failed at.
    pub result: String,
}

impl JobState {
    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Asked => "asked for",
            Self::Waiting => "waiting",
        }
    }
}

impl From<(Job, JobStatus)> for JobStatusBody {
    fn from((job, standing): (Job, JobStatus)) -> Self {
        let state = match &standing.holder {
            Some(_) => JobState::Running,
            None if standing.asked => JobState::Asked,
            None => JobState::Waiting,
        };
        let last = || {
            Some(Run {
                ended_at: standing.ended_at?,
                took_ms: standing.took_ms?,
                failed: standing.failed,
                result: standing.result?,
            })
        };
        Self {
            name: job.as_str(),
            schedule: job.schedule().to_string(),
            state,
            due_at: standing.due_at,
            done: standing.holder.is_some().then_some(standing.done),
            worker: standing.holder,
            last: last(),
        }
    }
}

/// Jobs of upkeep
///
/// What the service does by itself to keep itself in order, and how it went.
#[utoipa::path(
    get,
    path = "/api/v1/admin/jobs",
    operation_id = "jobs",
    tag = "upkeep",
    responses((status = 200, description = "All of them", body = Jobs))
)]
pub async fn handle(State(pool): State<PgPool>) -> Result<Json<Jobs>, Problem> {
    let jobs = scheduler::list(&pool).await?;
    let jobs = jobs.into_iter().map(JobStatusBody::from).collect();
    Ok(Json(Jobs { jobs }))
}

/// Run a job
///
/// Within a second or two, by a process with the role `maintenance`; `jobs` says
/// how it goes.
#[utoipa::path(
    post,
    path = "/api/v1/admin/jobs/{name}/run",
    operation_id = "runJob",
    tag = "upkeep",
    params(("name" = String, Path, description = "The job")),
    responses((status = 202, description = "It is asked for", body = JobStatusBody))
)]
pub async fn run(
    State(pool): State<PgPool>,
    PathName(job): PathName<Job>,
) -> Result<(StatusCode, Json<JobStatusBody>), Problem> {
    store::ask(&pool, job.as_str()).await?;
    let mut jobs = scheduler::list(&pool).await?.into_iter();
    let standing = jobs.find(|(listed, _)| *listed == job);
    let standing = standing.ok_or_else(Problem::internal)?;
    Ok((StatusCode::ACCEPTED, Json(standing.into())))
}

/// Warm up the cache
///
/// Puts every active session into Redis that is not there or is older there: as
/// `jobs/warm_up/run`. A replay of `active_sessions` also removes what has no
/// place there.
#[utoipa::path(
    post,
    path = "/api/v1/admin/cache/warmup",
    operation_id = "warmUp",
    tag = "upkeep",
    responses((status = 202, description = "It is asked for", body = JobStatusBody))
)]
pub async fn warm_up(pool: State<PgPool>) -> Result<(StatusCode, Json<JobStatusBody>), Problem> {
    run(pool, PathName(Job::WarmUp)).await
}
