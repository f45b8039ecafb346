//! `GET /admin/reading-sessions/cleanup-stats` and `POST …/cleanup`

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use chrono::TimeDelta;
use domain::Timestamp;
use eventlog::active_claims;
use jobs::store::{self, JobStatus};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};

use crate::extract::Query;
use crate::problem::Problem;
use eventlog::clock;
use jobs::Job;

/// How many hours back, and at most.
const DEFAULT_HOURS: i64 = 24;
const MAX_HOURS: i64 = 168;

/// How long the answer waits for the end, and how often that is looked for.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// How far back.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Back {
    /// Hours.
    #[param(minimum = 1, maximum = 168, default = 24)]
    hours: Option<i64>,
}

/// Sessions that the service has ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct CleanupStats {
    /// How many.
    total_closed: i64,
    /// How many are active now.
    total_active: i64,
    /// Until their last activity, in minutes; 0 when there are none.
    avg_duration_minutes: f64,
    /// How many of them came nowhere.
    no_progress_count: i64,
    /// How far back.
    period_hours: i64,
    /// Now.
    #[schema(value_type = DateTime)]
    timestamp: Timestamp,
}

/// Idle sessions, by the hour
///
/// Sessions that upkeep has ended because nothing was heard of them.
#[utoipa::path(
    get,
    path = "/api/v1/admin/reading-sessions/cleanup-stats",
    operation_id = "cleanupStats",
    tag = "upkeep",
    params(Back),
    responses((status = 200, description = "How many", body = CleanupStats))
)]
#[expect(clippy::cast_precision_loss, reason = "an average is no exact figure")]
pub async fn stats(
    State(pool): State<PgPool>,
    Query(back): Query<Back>,
) -> Result<Json<CleanupStats>, Problem> {
    let hours = back.hours.unwrap_or(DEFAULT_HOURS);
    if !(1..=MAX_HOURS).contains(&hours) {
        return Err(Problem::invalid("hours", format!("from 1 to {MAX_HOURS}")));
    }
    let now = clock::now();
    let since = now - TimeDelta::hours(hours);
    let figures = store::figures(&pool, Job::IdleSessions.as_str(), since).await?;
    let figure = |name: &str| {
        let found = figures.iter().find(|(known, _)| known == name);
        found.map_or(0, |(_, sum)| *sum)
    };
    let total_closed = figure("closed");
    let minutes = figure("duration_ms") as f64 / 60_000.0;
    Ok(Json(CleanupStats {
        total_closed,
        total_active: active_claims::count(&pool).await?,
        avg_duration_minutes: (minutes / total_closed.max(1) as f64 * 10.0).round() / 10.0,
        no_progress_count: figure("without_progress"),
        period_hours: hours,
        timestamp: now,
    }))
}

/// What a cleanup did.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cleanup {
    /// Sessions ended.
    closed_count: i64,
    /// How long it took, in milliseconds.
    execution_time_ms: u64,
    /// Whether it has come to its end; otherwise it goes on, and `jobs` shows how.
    complete: bool,
    /// What it failed at.
    #[schema(required)]
    error: Option<String>,
}

/// End idle sessions now
///
/// Runs the job `idle_sessions`, and waits for ten seconds at most. It needs a
/// process with the role `maintenance`.
#[utoipa::path(
    post,
    path = "/api/v1/admin/reading-sessions/cleanup",
    operation_id = "cleanup",
    tag = "upkeep",
    responses((status = 200, description = "What it did", body = Cleanup))
)]
pub async fn now(State(pool): State<PgPool>) -> Result<Json<Cleanup>, Problem> {
    let began = Instant::now();
    let before = standing(&pool).await?;
    store::ask(&pool, Job::IdleSessions.as_str()).await?;
    let (job, complete) = loop {
        tokio::time::sleep(LOOK).await;
        let job = standing(&pool).await?;
        let over = !job.asked && job.holder.is_none() && job.ended_at > before.ended_at;
        if over || began.elapsed() > PATIENCE {
            break (job, over);
        }
    };
    let running = job.holder.is_some();
    Ok(Json(Cleanup {
        closed_count: if complete || running { job.done } else { 0 },
        execution_time_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        complete,
        error: job.result.filter(|_| complete && job.failed),
    }))
}

async fn standing(pool: &PgPool) -> Result<JobStatus, Problem> {
    let jobs = store::list(pool).await?;
    let mut jobs = jobs.into_iter();
    jobs.find(|one| one.job == Job::IdleSessions.as_str())
        .ok_or_else(Problem::internal)
}
