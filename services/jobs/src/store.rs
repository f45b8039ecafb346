//! The table of jobs: what is due, who runs it, and how it went. Processes share
//! it; a job is run by one of them at a time, by a lease as projections have it.

use std::time::Duration;

use domain::Timestamp;
use eventlog::deadline::with_deadline;
use serde_json::Value;
use sqlx::{PgExecutor, PgPool};

/// How long a job may be held without a word; then another process takes it.
pub const TERM: Duration = Duration::from_secs(15);

/// How long Postgres may take over it.
const DEADLINE: Duration = Duration::from_secs(5);

/// A job as it stands.
#[derive(Clone, Debug)]
pub struct JobStatus {
    /// Its name.
    pub job: String,
    /// When it is due; `None` at once.
    pub due_at: Option<Timestamp>,
    /// Somebody wants it now.
    pub asked: bool,
    /// Who runs it.
    pub holder: Option<String>,
    /// When the run that goes on began.
    pub began_at: Option<Timestamp>,
    /// What it has done so far.
    pub done: i64,
    /// When the last run came to its end.
    pub ended_at: Option<Timestamp>,
    /// How long it took, in milliseconds.
    pub took_ms: Option<i64>,
    /// Whether it failed.
    pub failed: bool,
    /// What it came to, or failed at, in words.
    pub result: Option<String>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct JobRun {
    /// How long it took.
    pub took: Duration,
    /// Whether it failed.
    pub failed: bool,
    /// What it came to, or failed at, in words.
    pub result: String,
    /// What it did; runs without are not kept.
    pub done: u64,
    /// What it counted besides.
    pub figures: Value,
    /// When the job is due again.
    pub due_at: Timestamp,
}

/// All jobs, by name.
///
/// # Errors
/// Those of Postgres.
pub async fn list(database: impl PgExecutor<'_>) -> sqlx::Result<Vec<JobStatus>> {
    sqlx::query_as!(
        JobStatus,
        r#"select job, case when isfinite(due_at) then due_at end as due_at, asked,
            case when held_until > clock_timestamp() then holder end as holder,
            case when held_until > clock_timestamp() then began_at end as began_at,
            done, ended_at, took_ms, failed, result
        from jobs
        order by job"#
    )
    .fetch_all(database)
    .await
}

/// The jobs that are due or asked for, and that nobody runs.
///
/// # Errors
/// Those of Postgres.
pub async fn due(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    let due = sqlx::query_scalar!(
        "select job from jobs
        where (due_at <= clock_timestamp() or asked) and held_until <= clock_timestamp()
        order by job"
    )
    .fetch_all(pool);
    with_deadline(DEADLINE, due).await
}

/// Has a job be run as soon as somebody can.
///
/// # Errors
/// Those of Postgres.
pub async fn ask(database: impl PgExecutor<'_>, job: &str) -> sqlx::Result<()> {
    sqlx::query!("update jobs set asked = true where job = $1", job)
        .execute(database)
        .await?;
    Ok(())
}

/// Has a job be run that was not for a while: what a start of the service may
/// have to do, and ten starts in a row need not.
///
/// # Errors
/// Those of Postgres.
pub async fn ask_after(pool: &PgPool, job: &str, while_: Duration) -> sqlx::Result<()> {
    sqlx::query!(
        "update jobs set asked = true
        where job = $1
            and (ended_at is null or ended_at < clock_timestamp() - $2::float8 * interval '1 s')",
        job,
        while_.as_secs_f64()
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// A job that is being run here.
pub struct JobLease {
    pool: PgPool,
    job: &'static str,
    holder: String,
}

impl JobLease {
    /// Takes a job, if nobody runs it. If whoever took it is killed, it is due
    /// again as soon as it is no longer held.
    ///
    /// # Errors
    /// Those of Postgres.
    pub async fn take(
        pool: &PgPool,
        job: &'static str,
        holder: &str,
    ) -> sqlx::Result<Option<Self>> {
        let taken = sqlx::query!(
            "update jobs
            set holder = $2, held_until = clock_timestamp() + $3::float8 * interval '1 s',
                began_at = clock_timestamp(), done = 0, asked = false,
                due_at = least(due_at, clock_timestamp())
            where job = $1 and held_until <= clock_timestamp()",
            job,
            holder,
            TERM.as_secs_f64(),
        )
        .execute(pool);
        let taken = with_deadline(DEADLINE, taken).await?.rows_affected() > 0;
        Ok(taken.then(|| Self {
            pool: pool.clone(),
            job,
            holder: holder.to_owned(),
        }))
    }

    /// Says that it goes on; `false` when another process has taken it.
    ///
    /// # Errors
    /// Those of Postgres.
    pub async fn renew(&self, done: u64) -> sqlx::Result<bool> {
        let renewed = sqlx::query!(
            "update jobs set held_until = clock_timestamp() + $3::float8 * interval '1 s', done = $4
            where job = $1 and holder = $2",
            self.job,
            self.holder,
            TERM.as_secs_f64(),
            i64::try_from(done).unwrap_or(i64::MAX),
        )
        .execute(&self.pool);
        Ok(with_deadline(DEADLINE, renewed).await?.rows_affected() > 0)
    }

    /// Writes down how it ended.
    ///
    /// # Errors
    /// Those of Postgres.
    pub async fn end(self, ended: &JobRun) -> sqlx::Result<()> {
        let took_ms = i64::try_from(ended.took.as_millis()).unwrap_or(i64::MAX);
        let end = sqlx::query!(
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
            self.job,
            self.holder,
            took_ms,
            ended.failed,
            ended.result,
            i64::try_from(ended.done).unwrap_or(i64::MAX),
            ended.due_at,
            ended.figures,
        )
        .execute(&self.pool);
        with_deadline(DEADLINE, end).await?;
        Ok(())
    }

    /// Gives it back without an end: whoever is there goes on with it.
    ///
    /// # Errors
    /// Those of Postgres.
    pub async fn give_back(self) -> sqlx::Result<()> {
        let given = sqlx::query!(
            "update jobs set holder = null, held_until = '-infinity'
            where job = $1 and holder = $2",
            self.job,
            self.holder,
        )
        .execute(&self.pool);
        with_deadline(DEADLINE, given).await?;
        Ok(())
    }
}

/// What runs of a job counted since a moment, added up by name.
///
/// # Errors
/// Those of Postgres.
pub async fn figures(
    database: impl PgExecutor<'_>,
    job: &str,
    since: Timestamp,
) -> sqlx::Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"select key as "key!", sum(value::bigint)::bigint as "sum!"
        from job_runs, jsonb_each_text(figures)
        where job = $1 and began_at >= $2
        group by key"#,
        job,
        since
    )
    .fetch_all(database)
    .await?;
    Ok(rows.into_iter().map(|row| (row.key, row.sum)).collect())
}

/// Forgets runs that began before a moment; returns how many.
///
/// # Errors
/// Those of Postgres.
pub async fn forget_runs(pool: &PgPool, before: Timestamp) -> sqlx::Result<u64> {
    let forgotten = sqlx::query!("delete from job_runs where began_at < $1", before)
        .execute(pool)
        .await?;
    Ok(forgotten.rows_affected())
}
