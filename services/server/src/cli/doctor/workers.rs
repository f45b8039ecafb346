//! Checks of projections and background jobs.

use std::time::Duration;

use eventlog::clock;
use eventlog::deadline::with_deadline;
use eventlog::error::error_chain;
use jobs::Job;
use jobs::silence::silence;
use jobs::store::{self, JobStatus};
use projections::status;
use projections::zones::Zones;
use sqlx::PgPool;

use super::super::format::{count, counted, span};
use super::{Finding, Status, TIMEOUT};

/// In seconds.
const MAX_LAG: f64 = 30.0;

/// A job that is overdue for longer has no process to run it.
const MAX_DELAY: Duration = Duration::from_mins(5);

pub(super) async fn check(pool: &PgPool, zones: &Zones) -> Vec<Finding> {
    let read = async {
        let projections = with_deadline(TIMEOUT, status::list(pool)).await?;
        let jobs = with_deadline(TIMEOUT, store::list(pool)).await?;
        anyhow::Ok((projections, jobs))
    };
    match read.await {
        Ok((projections, jobs)) => vec![
            workers(&projections),
            lag(&projections),
            dead_letters(&projections),
            time_zones(&projections, zones),
            background_jobs(&jobs),
        ],
        Err(error) => vec![Finding::failure("projections", error_chain(error.as_ref()))],
    }
}

fn workers(projections: &[status::ProjectionStatus]) -> Finding {
    let problem = |projection: &status::ProjectionStatus| {
        let name = &projection.projection;
        match (&projection.holder, &projection.last_error) {
            _ if projection.paused => Some(format!(
                "{name} is paused; resume it with \"reading-sessions projections resume {name}\""
            )),
            (None, _) => Some(format!("{name} has no worker")),
            (_, Some(error)) if projection.failing => Some(format!("{name} fails: {error}")),
            _ => None,
        }
    };
    let problems: Vec<String> = projections.iter().filter_map(problem).collect();
    let paused = projections.iter().filter(|one| one.paused).count();
    let status = if problems.len() > paused {
        Status::Failure
    } else {
        Status::Warning
    };
    let ok = format!("all {} have a running worker", projections.len());
    Finding::from_problems("projections", status, &problems, ok)
}

fn lag(projections: &[status::ProjectionStatus]) -> Finding {
    let behind = projections.iter().filter(|one| one.lag_seconds > MAX_LAG);
    let problem = |one: &status::ProjectionStatus| {
        format!(
            "{} is {:.0} s and {} behind",
            one.projection,
            one.lag_seconds,
            counted(one.lag_events, "event", "events")
        )
    };
    let problems: Vec<String> = behind.map(problem).collect();
    let lags = projections.iter().map(|one| one.lag_seconds);
    let ok = format!("at most {:.1} s", lags.fold(0.0, f64::max));
    Finding::from_problems("lag", Status::Warning, &problems, ok)
}

fn dead_letters(projections: &[status::ProjectionStatus]) -> Finding {
    let with_dead_letters = projections.iter().filter(|one| one.dead_letters > 0);
    let problem = |one: &status::ProjectionStatus| {
        format!("{} has {}", one.projection, count(one.dead_letters))
    };
    let problems: Vec<String> = with_dead_letters.map(problem).collect();
    Finding::from_problems("dead letters", Status::Warning, &problems, "none")
}

/// A projection must be replayed after an update of tzdata.
fn time_zones(projections: &[status::ProjectionStatus], zones: &Zones) -> Finding {
    let version = zones.version();
    let problem = |projection: &status::ProjectionStatus| {
        let used = projection.tzdata.as_deref()?;
        let name = &projection.projection;
        (used < version).then(|| {
            format!(
                "{name} was computed with version {used} of the time zone rules, and this \
                 machine has {version}; run `reading-sessions replay {name}`"
            )
        })
    };
    let problems: Vec<String> = projections.iter().filter_map(problem).collect();
    let used = projections.iter().filter_map(|one| one.tzdata.as_deref());
    let newer = used.filter(|used| *used > version).max();
    let newer = newer.map_or_else(String::new, |newer| format!("; projections use {newer}"));
    let ok = format!("{version} ({}){newer}", zones.source());
    Finding::from_problems("time zones", Status::Warning, &problems, ok)
}

fn background_jobs(jobs: &[(Job, JobStatus)]) -> Finding {
    let now = clock::now();
    let last_run = jobs.iter().filter_map(|(_, status)| status.ended_at).max();
    if let Some(reason) = silence(last_run, now) {
        let details = format!("{reason}; start a process with the role jobs");
        return Finding::failure("jobs", details);
    }
    let problem = |(job, status): &(Job, JobStatus)| {
        let delay = status.due_at.and_then(|due| (now - due).to_std().ok());
        let overdue = delay.filter(|delay| *delay > MAX_DELAY && status.holder.is_none());
        match (overdue, &status.result) {
            (Some(delay), _) => Some(format!("{job} has been due for {}", span(delay))),
            (None, Some(result)) if status.failed => Some(format!("{job} failed: {result}")),
            _ => None,
        }
    };
    let problems: Vec<String> = jobs.iter().filter_map(problem).collect();
    let ok = "no job is overdue or failed";
    Finding::from_problems("jobs", Status::Warning, &problems, ok)
}
