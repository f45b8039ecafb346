//! `reading-sessions verify`: compares the data that queries read with the log.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use api::routes::admin::operation_queue::verify_details;
use clap::Args;
use eventlog::audit::Action;
use eventlog::deadline::with_deadline;
use eventlog::error::error_chain;
use projections::operations::{ProjectionName, ProjectionOps, VerifyResult};
use projections::status;
use projections::verify::{Compared, Difference, MAX_DIFFERENCES_SHOWN};
use projections::zones::Zones;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::audit::{CliAction, recorded_with};
use super::connect_database;
use super::format::count;
use super::names::one_of;
use super::output::{OutputArgs, report};
use super::progress_bar;
use super::table::{Column, table};
use super::wait::{is_stopped, until_stopped};
use crate::config::{DatabaseArgs, RedisArgs};
use crate::connect;

/// The exit code if something differs.
const DIFFERENT: u8 = 1;

/// The exit code if the check failed or was stopped.
const UNCHECKED: u8 = 3;

/// For the number of dead letters.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Names of projections [default: all].
    #[arg(value_parser = one_of(ProjectionName::ALL, ProjectionName::as_str))]
    names: Vec<ProjectionName>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

type Comparison = (ProjectionName, VerifyResult);

/// The result of a check.
#[derive(Default)]
struct Report {
    finished: Vec<Comparison>,
    /// Dead letters of the compared projections, parked and waiting.
    dead_letters: i64,
    discarded: i64,
    /// A compared projection that was computed with another version of the time zone
    /// rules than this comparison.
    other_rules: Option<String>,
    /// Why the other projections were not compared.
    error: Option<String>,
}

/// The exit code distinguishes a failure of the check from a difference.
pub async fn run(args: &VerifyArgs) -> ExitCode {
    match verify(args).await {
        Ok(result) if result.error.is_some() => ExitCode::from(UNCHECKED),
        Ok(result) if result.is_equal() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(DIFFERENT),
        Err(error) => {
            report(&format!("Error: {}", error_chain(error.as_ref())));
            ExitCode::from(UNCHECKED)
        }
    }
}

async fn verify(args: &VerifyArgs) -> anyhow::Result<Report> {
    let mut names = args.names.clone();
    if names.is_empty() {
        names = ProjectionName::ALL.to_vec();
    }
    let pool = connect_database(&args.database).await?;
    let zones = Zones::load();
    let operations = connect::projection_ops(&args.database, &args.redis, zones.clone());
    let mut result = Report::default();
    let compared = until_stopped(async |stop| {
        compare(&pool, &operations, &names, &mut result.finished, stop).await
    });
    if let Err(error) = compared.await {
        let name = names[result.finished.len()];
        let error = if is_stopped(&error) {
            "stopped; the scratch tables are removed".to_owned()
        } else {
            error_chain(error.as_ref())
        };
        report(&format!("Error: verification of {name} failed: {error}"));
        result.error = Some(error);
    }
    // The finished comparisons are printed even if Postgres has failed since.
    match with_deadline(STATUS_TIMEOUT, status::list(&pool)).await {
        Ok(statuses) => {
            for status in statuses {
                let is_compared = |(name, _): &Comparison| name.as_str() == status.projection;
                if result.finished.iter().any(is_compared) {
                    result.dead_letters += status.dead_letters;
                    result.discarded += status.discarded;
                    let other = status.tzdata.filter(|used| used != zones.version());
                    if let Some(used) = other {
                        let name = &status.projection;
                        let version = zones.version();
                        result.other_rules = Some(format!(
                            "{name} was computed with version {used} of the time zone rules, and \
                             compared with version {version}, which can be the only difference."
                        ));
                    }
                }
            }
        }
        Err(error) => {
            let error = format!("counting dead letters failed: {}", error_chain(&error));
            report(&format!("Error: {error}"));
            result.error.get_or_insert(error);
        }
    }
    if !result.finished.is_empty() || args.output.is_json() {
        args.output.print(&result.json(), || result.text())?;
    }
    Ok(result)
}

async fn compare(
    pool: &PgPool,
    operations: &ProjectionOps,
    names: &[ProjectionName],
    finished: &mut Vec<Comparison>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    for &name in names {
        let progress = watch::Sender::default();
        let shown = progress.subscribe();
        let action = CliAction::new(Action::Verify, Some(name.as_str()));
        let verify = async || {
            let verify = operations.verify(name, &progress, stop);
            Ok(progress_bar::show(name.as_str(), "events", shown, verify).await?)
        };
        let verified = recorded_with(pool, action, verify, verify_details).await?;
        report(&format!("{name}: compared with the log"));
        finished.push((name, verified));
    }
    Ok(())
}

impl Report {
    fn is_equal(&self) -> bool {
        tables(&self.finished).all(|(_, _, compared)| compared.differing == 0)
    }

    fn text(&self) -> String {
        let columns = [
            Column::Left("PROJECTION"),
            Column::Left("COMPARED"),
            Column::Right("POSITION"),
            Column::Right("ROWS"),
            Column::Right("DIFFERENT"),
        ];
        let rows: Vec<_> = tables(&self.finished)
            .map(|(name, global_position, compared)| {
                [
                    name.to_string(),
                    compared.name.clone(),
                    global_position.map_or_else(|| "-".to_owned(), count),
                    count(compared.rows),
                    count(compared.differing),
                ]
            })
            .collect();
        let mut text = table(&columns, &rows);
        for (_, _, compared) in tables(&self.finished) {
            text.push_str(&differences(compared));
        }
        for (_, verified) in &self.finished {
            if let Some(of) = verified.active_sessions {
                let rows: u64 = verified.compared.iter().map(|compared| compared.rows).sum();
                let _ = write!(
                    text,
                    "\n\nThe cache contains {} of {} active sessions",
                    count(rows),
                    count(of)
                );
                text.push_str(if rows < of {
                    "; queries read the others from the log."
                } else {
                    "."
                });
            }
        }
        if self.dead_letters + self.discarded > 0 {
            let _ = write!(
                text,
                "\n\nDead letters: {}, and {} discarded. Both sides exclude their events; \
                 see `reading-sessions dead-letters`.",
                count(self.dead_letters),
                count(self.discarded)
            );
        }
        if let Some(other_rules) = &self.other_rules
            && !self.is_equal()
        {
            let _ = write!(text, "\n\n{other_rules}");
        }
        text
    }

    fn json(&self) -> Value {
        let compared: Vec<Value> = tables(&self.finished)
            .map(|(name, global_position, compared)| {
                let first: Vec<Value> = compared
                    .first
                    .iter()
                    .map(|row| json!({ "found": row.found, "expected": row.expected }))
                    .collect();
                json!({
                    "projection": name.as_str(),
                    "name": compared.name,
                    "position": global_position,
                    "rows": compared.rows,
                    "differing": compared.differing,
                    "first": first,
                })
            })
            .collect();
        json!({
            "equal": self.error.is_none().then(|| self.is_equal()),
            "compared": compared,
            "dead_letters": self.dead_letters,
            "discarded": self.discarded,
            "error": self.error,
        })
    }
}

/// Each compared table, with its projection and the global position of the
/// comparison; `None` for the cache.
fn tables(
    finished: &[Comparison],
) -> impl Iterator<Item = (ProjectionName, Option<i64>, &Compared)> {
    finished.iter().flat_map(|(name, verified)| {
        let compared = verified.compared.iter();
        compared.map(|compared| (*name, verified.global_position, compared))
    })
}

fn differences(compared: &Compared) -> String {
    let mut text = String::new();
    let side = |value: &Option<Value>| {
        value
            .as_ref()
            .map_or("nothing".to_owned(), Value::to_string)
    };
    for Difference { found, expected } in &compared.first {
        let _ = write!(
            text,
            "\n\n{}\n  found:    {}\n  expected: {}",
            compared.name,
            side(found),
            side(expected)
        );
    }
    let shown = compared.first.len();
    if shown == MAX_DIFFERENCES_SHOWN && compared.differing > shown as u64 {
        let more = compared.differing - shown as u64;
        let _ = write!(text, "\n\n{}: {} more", compared.name, count(more));
    }
    text
}
