//! `GET /admin/reading-sessions/cleanup-stats` and `POST …/cleanup`

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use chrono::TimeDelta;
use domain::Timestamp;
use eventlog::{active_claims, clock};
use jobs::Job;
use jobs::store::{self, JobStatus};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};

use crate::extract::{NoInput, Query};
use crate::problem::Problem;

const DEFAULT_HOURS: i64 = 24;
const MAX_HOURS: i64 = 168;

/// How long a request waits for the job to end.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// The number of hours up to now.
    #[param(minimum = 1, maximum = 168, default = 24)]
    hours: Option<i64>,
}

/// Statistics of the sessions that the job `idle_sessions` ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CleanupStats)]
pub struct CleanupStatsResponse {
    /// The number of ended sessions.
    total_closed: i64,
    /// The number of sessions that are active now.
    total_active: i64,
    /// The average time from the start to the last activity of the ended sessions.
    /// 0 if there are none.
    avg_duration_minutes: f64,
    /// The number of ended sessions without progress.
    no_progress_count: i64,
    /// The `hours` of the request.
    period_hours: i64,
    /// The time of this response.
    #[schema(value_type = DateTime)]
    timestamp: Timestamp,
}

/// Statistics of idle sessions
///
/// Counts the sessions that the job `idle_sessions` ended in the last `hours`.
#[utoipa::path(
    get,
    path = "/api/v1/admin/reading-sessions/cleanup-stats",
    operation_id = "cleanupStats",
    tag = "jobs",
    params(Params),
    responses((status = 200, description = "The statistics", body = CleanupStatsResponse))
)]
#[expect(clippy::cast_precision_loss, reason = "the average is rounded")]
pub async fn stats(
    State(pool): State<PgPool>,
    Query(params): Query<Params>,
) -> Result<Json<CleanupStatsResponse>, Problem> {
    let hours = params.hours.unwrap_or(DEFAULT_HOURS);
    if !(1..=MAX_HOURS).contains(&hours) {
        return Err(Problem::out_of_range("hours", 1, MAX_HOURS));
    }
    let now = clock::now();
    let since = now - TimeDelta::hours(hours);
    let figures = store::sum_figures(&pool, Job::IdleSessions, since).await?;
    let figure = |name: &str| {
        let figure = figures.iter().find(|(known, _)| known == name);
        figure.map_or(0, |(_, sum)| *sum)
    };
    let total_closed = figure("closed");
    let minutes = figure("duration_ms") as f64 / 60_000.0;
    Ok(Json(CleanupStatsResponse {
        total_closed,
        total_active: active_claims::count(&pool).await?,
        avg_duration_minutes: (minutes / total_closed.max(1) as f64 * 10.0).round() / 10.0,
        no_progress_count: figure("without_progress"),
        period_hours: hours,
        timestamp: now,
    }))
}

/// The result of a cleanup.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cleanup)]
pub struct CleanupResponse {
    /// The number of ended sessions.
    closed_count: i64,
    /// The duration of this request, in milliseconds.
    execution_time_ms: u64,
    /// Whether the job has ended. If not, it continues; `GET jobs` returns its
    /// progress.
    complete: bool,
    /// Why the job failed. Null if it did not.
    #[schema(required)]
    error: Option<String>,
}

/// End idle sessions now
///
/// Requests a run of the job `idle_sessions`, and waits up to ten seconds for its
/// end. A process with the role `jobs` must be running.
#[utoipa::path(
    post,
    path = "/api/v1/admin/reading-sessions/cleanup",
    operation_id = "cleanup",
    tag = "jobs",
    responses((status = 200, description = "The result of the cleanup", body = CleanupResponse))
)]
pub async fn run(
    State(pool): State<PgPool>,
    NoInput: NoInput,
) -> Result<Json<CleanupResponse>, Problem> {
    let start = Instant::now();
    let before = status(&pool).await?;
    store::request(&pool, Job::IdleSessions).await?;
    let (job, complete) = loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let job = status(&pool).await?;
        let has_ended = !job.requested && job.holder.is_none() && job.ended_at > before.ended_at;
        if has_ended || start.elapsed() > WAIT_TIMEOUT {
            break (job, has_ended);
        }
    };
    let running = job.holder.is_some();
    Ok(Json(CleanupResponse {
        closed_count: if complete || running { job.done } else { 0 },
        execution_time_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        complete,
        error: job.result.filter(|_| complete && job.failed),
    }))
}

async fn status(pool: &PgPool) -> Result<JobStatus, Problem> {
    let status = store::find(pool, Job::IdleSessions).await?;
    status.ok_or_else(Problem::internal)
}
