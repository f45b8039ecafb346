//! The tables `jobs` and `job_runs`: due times, leases and results. All processes
//! share them. A lease lets one process at a time run a job.
//!
//! Only this module reads or writes these tables, except that the crate
//! `projections`, which this crate imports, requests the job `warm_up`.

use std::time::Duration;

use domain::Timestamp;
use eventlog::deadline::with_deadline;
use serde_json::Value;
use sqlx::{PgExecutor, PgPool};

use crate::schedule::Job;

/// How long a lease lasts after its last renewal.
pub const LEASE_TERM: Duration = Duration::from_secs(15);

/// Time limit of a statement about a lease or about due jobs.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A row of the job table.
#[derive(Clone, Debug)]
pub struct JobStatus {
    /// The name. An older or newer build may have other jobs than [`Job`].
    pub job: String,
    /// `None` until the first run has ended; the job is then due.
    pub due_at: Option<Timestamp>,
    /// A run is requested, regardless of `due_at`.
    pub requested: bool,
    /// The process that runs the job; `None` while it does not run.
    pub holder: Option<String>,
    /// Start of the current run.
    pub began_at: Option<Timestamp>,
    /// Items that the current or the last run has processed.
    pub done: i64,
    /// End of the last run; `None` if no run has ended yet. The fields below
    /// belong to the same run.
    pub ended_at: Option<Timestamp>,
    /// Milliseconds.
    pub took_ms: Option<i64>,
    pub failed: bool,
    /// A summary of the run, or its error.
    pub result: Option<String>,
}

/// A run that has ended.
#[derive(Clone, Debug)]
pub struct JobRun {
    pub duration: Duration,
    pub failed: bool,
    /// A summary of the run, or its error.
    pub result: String,
    /// Items that the run has processed. A successful run with 0 is not recorded
    /// in `job_runs`.
    pub done: u64,
    /// A JSON object with numbers, for [`sum_figures`].
    pub figures: Value,
    /// The next due time of the job.
    pub due_at: Timestamp,
}

/// All rows of the job table, by name.
async fn rows(database: impl PgExecutor<'_>) -> sqlx::Result<Vec<JobStatus>> {
    sqlx::query_as!(
        JobStatus,
        r#"select job, case when isfinite(due_at) then due_at end as due_at,
            asked as requested,
            case when held_until > clock_timestamp() then holder end as holder,
            case when held_until > clock_timestamp() then began_at end as began_at,
            done, ended_at, took_ms, failed, result
        from jobs
        order by job"#
    )
    .fetch_all(database)
    .await
}

/// The status of all jobs of this build, in the order of [`Job::ALL`].
pub async fn list(database: impl PgExecutor<'_>) -> sqlx::Result<Vec<(Job, JobStatus)>> {
    let mut rows = rows(database).await?;
    let mut jobs = Vec::new();
    for job in Job::ALL {
        if let Some(index) = rows.iter().position(|row| row.job == job.as_str()) {
            jobs.push((job, rows.swap_remove(index)));
        }
    }
    Ok(jobs)
}

/// The status of one job; `None` if the table has no row for it.
pub async fn find(database: impl PgExecutor<'_>, job: Job) -> sqlx::Result<Option<JobStatus>> {
    let rows = rows(database).await?;
    Ok(rows.into_iter().find(|row| row.job == job.as_str()))
}

/// The names of the jobs that are due or requested and that no process runs.
pub async fn due(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    let due = sqlx::query_scalar!(
        "select job from jobs
        where (due_at <= clock_timestamp() or asked) and held_until <= clock_timestamp()
        order by job"
    )
    .fetch_all(pool);
    with_deadline(STATEMENT_TIMEOUT, due).await
}

/// The end of the last run of any job in any process; `None` if no run has ended yet.
pub async fn last_run(pool: &PgPool) -> sqlx::Result<Option<Timestamp>> {
    let last = sqlx::query_scalar!("select max(ended_at) from jobs").fetch_one(pool);
    with_deadline(STATEMENT_TIMEOUT, last).await
}

/// Requests a run of a job. A process with the role `jobs` starts it within about
/// a second, or after the current run of the job.
pub async fn request(database: impl PgExecutor<'_>, job: Job) -> sqlx::Result<()> {
    sqlx::query!("update jobs set asked = true where job = $1", job.as_str())
        .execute(database)
        .await?;
    Ok(())
}

/// Requests a run of a job, unless a run has ended less than `cooldown` ago.
pub async fn request_unless_recent(
    pool: &PgPool,
    job: Job,
    cooldown: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update jobs set asked = true
        where job = $1
            and (ended_at is null or ended_at < clock_timestamp() - $2::float8 * interval '1 s')",
        job.as_str(),
        cooldown.as_secs_f64()
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The lease of a job that this process runs.
pub struct JobLease {
    pool: PgPool,
    job: Job,
    holder: String,
}

impl JobLease {
    /// Takes the lease and marks the job as running. Returns `None` if another
    /// process holds the lease.
    ///
    /// The job is due while it runs. If the holder is killed, another process
    /// runs the job as soon as the lease has expired.
    pub async fn take(pool: &PgPool, job: Job, holder: &str) -> sqlx::Result<Option<Self>> {
        let taken = sqlx::query!(
            "update jobs
            set holder = $2, held_until = clock_timestamp() + $3::float8 * interval '1 s',
                began_at = clock_timestamp(), done = 0, asked = false,
                due_at = least(due_at, clock_timestamp())
            where job = $1 and held_until <= clock_timestamp()",
            job.as_str(),
            holder,
            LEASE_TERM.as_secs_f64(),
        )
        .execute(pool);
        let taken = with_deadline(STATEMENT_TIMEOUT, taken)
            .await?
            .rows_affected()
            > 0;
        Ok(taken.then(|| Self {
            pool: pool.clone(),
            job,
            holder: holder.to_owned(),
        }))
    }

    /// Extends the lease and stores the progress of the run. Returns `false` if
    /// another process has taken the lease.
    pub async fn renew(&self, done: u64) -> sqlx::Result<bool> {
        let renewed = sqlx::query!(
            "update jobs set held_until = clock_timestamp() + $3::float8 * interval '1 s', done = $4
            where job = $1 and holder = $2",
            self.job.as_str(),
            self.holder,
            LEASE_TERM.as_secs_f64(),
            i64::try_from(done).unwrap_or(i64::MAX),
        )
        .execute(&self.pool);
        Ok(with_deadline(STATEMENT_TIMEOUT, renewed)
            .await?
            .rows_affected()
            > 0)
    }

    /// Records the run and releases the lease. Changes nothing if another process
    /// has taken the lease.
    pub async fn finish(self, run: &JobRun) -> sqlx::Result<()> {
        let took_ms = i64::try_from(run.duration.as_millis()).unwrap_or(i64::MAX);
        let finished = sqlx::query!(
            "with ended as (
                update jobs
                set holder = null, held_until = '-infinity', ended_at = clock_timestamp(),
                    took_ms = $3, failed = $4, result = $5, done = $6, due_at = $7
                where job = $1 and holder = $2
                returning job, began_at
            )
            insert into job_runs (job, began_at, took_ms, failed, result, figures)
            select job, began_at, $3, $4, $5, $8 from ended
            where $4 or $6 > 0
            on conflict do nothing",
            self.job.as_str(),
            self.holder,
            took_ms,
            run.failed,
            run.result,
            i64::try_from(run.done).unwrap_or(i64::MAX),
            run.due_at,
            run.figures,
        )
        .execute(&self.pool);
        with_deadline(STATEMENT_TIMEOUT, finished).await?;
        Ok(())
    }

    /// Releases the lease of a run that did not end. The job stays due, so that
    /// another process can continue at once.
    pub async fn release(self) -> sqlx::Result<()> {
        let released = sqlx::query!(
            "update jobs set holder = null, held_until = '-infinity'
            where job = $1 and holder = $2",
            self.job.as_str(),
            self.holder,
        )
        .execute(&self.pool);
        with_deadline(STATEMENT_TIMEOUT, released).await?;
        Ok(())
    }
}

/// The sums of the figures of a job's runs that began at or after `since`, by the
/// name of the figure.
pub async fn sum_figures(
    database: impl PgExecutor<'_>,
    job: Job,
    since: Timestamp,
) -> sqlx::Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"select key as "key!", sum(value::bigint)::bigint as "sum!"
        from job_runs, jsonb_each_text(figures)
        where job = $1 and began_at >= $2
        group by key"#,
        job.as_str(),
        since
    )
    .fetch_all(database)
    .await?;
    Ok(rows.into_iter().map(|row| (row.key, row.sum)).collect())
}

/// Deletes the records of runs that began before a time.
pub async fn delete_runs_before(pool: &PgPool, before: Timestamp) -> sqlx::Result<()> {
    sqlx::query!("delete from job_runs where began_at < $1", before)
        .execute(pool)
        .await?;
    Ok(())
}
