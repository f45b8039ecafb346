//! `GET /admin/jobs` and `POST /admin/jobs/{name}/run`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::Timestamp;
use jobs::Job;
use jobs::store::{self, JobStatus};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::extract::{NoInput, PathName};
use crate::problem::Problem;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Jobs)]
pub struct JobsResponse {
    jobs: Vec<JobResponse>,
}

/// The status of a background job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobResponse {
    pub name: &'static str,
    /// For example "daily at 02:00 UTC".
    pub schedule: String,
    pub state: JobState,
    /// When the next run is due. Null if it is due now.
    #[schema(required, value_type = Option<DateTime>)]
    pub due_at: Option<Timestamp>,
    /// The process that runs the job: machine, process id and a random part. Null
    /// if the job does not run.
    #[schema(required)]
    pub worker: Option<String>,
    /// The number of items that the current run has processed. Null if the job does
    /// not run.
    #[schema(required)]
    pub done: Option<i64>,
    /// The last run that ended. Null if there was none.
    #[schema(required)]
    pub last: Option<JobRunResponse>,
}

/// `running`: a process runs the job. `asked`: a run is requested, and starts as soon
/// as a process can run it. `waiting`: the job waits until it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Running,
    #[serde(rename = "asked")]
    Requested,
    Waiting,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobRun)]
pub struct JobRunResponse {
    #[schema(value_type = DateTime)]
    pub ended_at: Timestamp,
    /// The duration, in milliseconds.
    pub took_ms: i64,
    /// Whether the run failed. A failed run is retried within a minute.
    pub failed: bool,
    /// The result or the error, in English.
    pub result: String,
}

impl From<(Job, JobStatus)> for JobResponse {
    fn from((job, status): (Job, JobStatus)) -> Self {
        let state = match &status.holder {
            Some(_) => JobState::Running,
            None if status.requested => JobState::Requested,
            None => JobState::Waiting,
        };
        let last = || {
            Some(JobRunResponse {
                ended_at: status.ended_at?,
                took_ms: status.took_ms?,
                failed: status.failed,
                result: status.result?,
            })
        };
        Self {
            name: job.as_str(),
            schedule: job.schedule().to_string(),
            state,
            due_at: status.due_at,
            done: status.holder.is_some().then_some(status.done),
            worker: status.holder,
            last: last(),
        }
    }
}

/// List background jobs
///
/// Returns the schedule, the status and the last run of each job.
#[utoipa::path(
    get,
    path = "/api/v1/admin/jobs",
    operation_id = "jobs",
    tag = "jobs",
    responses((status = 200, description = "All jobs", body = JobsResponse))
)]
pub async fn list(State(pool): State<PgPool>) -> Result<Json<JobsResponse>, Problem> {
    let jobs = store::list(&pool).await?;
    let jobs = jobs.into_iter().map(JobResponse::from).collect();
    Ok(Json(JobsResponse { jobs }))
}

/// Run a job now
///
/// Requests a run. A process with the role `jobs` starts it within two seconds.
/// `GET jobs` returns the progress and the result.
#[utoipa::path(
    post,
    path = "/api/v1/admin/jobs/{name}/run",
    operation_id = "runJob",
    tag = "jobs",
    params(("name" = String, Path, description = "The job")),
    responses((status = 202, description = "The run is requested", body = JobResponse))
)]
pub async fn run(
    State(pool): State<PgPool>,
    PathName(job): PathName<Job>,
    NoInput: NoInput,
) -> Result<(StatusCode, Json<JobResponse>), Problem> {
    store::request(&pool, job).await?;
    let status = store::find(&pool, job).await?;
    // The migrations insert a row for every job.
    let status = status.ok_or_else(Problem::internal)?;
    Ok((StatusCode::ACCEPTED, Json((job, status).into())))
}

/// Warm up the cache
///
/// Requests a run of the job `warm_up`, which writes missing and outdated active
/// sessions to Redis. To remove wrong entries too, replay the projection
/// `active_sessions`.
#[utoipa::path(
    post,
    path = "/api/v1/admin/cache/warmup",
    operation_id = "warmUp",
    tag = "jobs",
    responses((status = 202, description = "The run is requested", body = JobResponse))
)]
pub async fn warm_up(
    pool: State<PgPool>,
    no_input: NoInput,
) -> Result<(StatusCode, Json<JobResponse>), Problem> {
    run(pool, PathName(Job::WarmUp), no_input).await
}
