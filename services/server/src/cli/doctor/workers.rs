//! What should go on: projections and upkeep.

use std::time::Duration;

use eventlog::deadline::with_deadline;
use projections::status::{self, Status};
use jobs::scheduler;
use jobs::store::JobStatus;
use sqlx::PgPool;

use super::super::format::{count, span};
use super::super::why;
use super::{DEADLINE, Finding, State};
use eventlog::clock;
use jobs::{self, Job};

/// A projection further behind, in seconds, does not keep up.
const BEHIND: f64 = 30.0;

/// A job that was due so long ago is run by nobody.
const OVERDUE: Duration = Duration::from_mins(5);

pub(super) async fn all(pool: &PgPool) -> Vec<Finding> {
    let looked = async {
        let projections = with_deadline(DEADLINE, status::list(pool)).await?;
        let jobs = with_deadline(DEADLINE, scheduler::list(pool)).await?;
        anyhow::Ok((projections, jobs))
    };
    match looked.await {
        Ok((projections, jobs)) => vec![
            working(&projections),
            keeping_up(&projections),
            letters(&projections),
            upkeep(&jobs),
        ],
        Err(error) => vec![Finding::failure("projections", why(&error))],
    }
}

fn working(all: &[Status]) -> Finding {
    let wrong = all.iter().filter_map(|one| {
        let name = &one.projection;
        match (&one.holder, &one.last_error) {
            _ if one.paused => Some(format!("{name} is paused")),
            (None, _) => Some(format!("nobody works on {name}")),
            (_, Some(error)) if one.failing => Some(format!("{name} fails: {error}")),
            _ => None,
        }
    });
    let wrong: Vec<String> = wrong.collect();
    let paused = all.iter().filter(|one| one.paused).count();
    let state = if wrong.len() > paused {
        State::Failure
    } else {
        State::Warning
    };
    let well = format!("all {} are worked on", all.len());
    Finding::of("projections", state, &wrong, well)
}

fn keeping_up(all: &[Status]) -> Finding {
    let behind = all.iter().filter(|one| one.lag_seconds > BEHIND);
    let wrong = behind.map(|one| {
        format!(
            "{} is {:.0} s and {} events behind",
            one.projection,
            one.lag_seconds,
            count(one.lag_events)
        )
    });
    let most = all.iter().map(|one| one.lag_seconds).fold(0.0, f64::max);
    let wrong: Vec<String> = wrong.collect();
    Finding::of(
        "lag",
        State::Warning,
        &wrong,
        format!("{most:.1} s at most"),
    )
}

fn letters(all: &[Status]) -> Finding {
    let with = all.iter().filter(|one| one.dead_letters > 0);
    let wrong = with.map(|one| format!("{} of {}", count(one.dead_letters), one.projection));
    let wrong: Vec<String> = wrong.collect();
    Finding::of("dead letters", State::Warning, &wrong, "none")
}

fn upkeep(jobs: &[(Job, JobStatus)]) -> Finding {
    let now = clock::now();
    let wrong = jobs.iter().filter_map(|(job, standing)| {
        let late = standing.due_at.and_then(|due| (now - due).to_std().ok());
        let late = late.filter(|late| *late > OVERDUE && standing.holder.is_none());
        match (late, &standing.result) {
            (Some(late), _) => Some(format!("{job} was due {} ago", span(late))),
            (None, Some(result)) if standing.failed => Some(format!("{job} failed: {result}")),
            _ => None,
        }
    });
    let wrong: Vec<String> = wrong.collect();
    Finding::of("upkeep", State::Warning, &wrong, "all jobs went well")
}
