//! `reading-sessions verify`: whether what queries read equals the log.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use eventlog::deadline::with_deadline;
use projections::rebuild::ReplayError;
use projections::status;
use projections::verify::{Compared, Difference, TOLD};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::format::count;
use super::progress_bar::{self, say};
use super::table::{Column, table};
use super::{Output, database, print, print_json, until_stopped, why};
use crate::config::{DatabaseArgs, RedisArgs};
use crate::connect;
use projections::operations::{ProjectionName, Verified};

/// What a shell gets: something differs, or could not be checked.
const DIFFERS: u8 = 1;
const UNCHECKED: u8 = 3;

/// How long Postgres may take to tell of dead letters.
const LISTED: Duration = Duration::from_secs(10);

/// What is compared.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// The projections; all of them, when none is named.
    #[arg(value_enum)]
    names: Vec<ProjectionName>,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

/// What was found of a projection.
type Found = (ProjectionName, Verified);

/// What a verification came to.
#[derive(Default)]
struct Report {
    found: Vec<Found>,
    /// Events that are left out, and that are so for good.
    dead: i64,
    discarded: i64,
    /// What kept it from comparing the rest.
    error: Option<String>,
}

/// Compares; what keeps it from doing so has an exit code of its own.
pub async fn run(args: &VerifyArgs) -> ExitCode {
    match checked(args).await {
        Ok(report) if report.error.is_some() => ExitCode::from(UNCHECKED),
        Ok(report) if report.is_equal() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(DIFFERS),
        Err(error) => {
            say(&format!("Error: it could not be checked: {}", why(&error)));
            ExitCode::from(UNCHECKED)
        }
    }
}

async fn checked(args: &VerifyArgs) -> anyhow::Result<Report> {
    let mut names = args.names.clone();
    if names.is_empty() {
        names = ProjectionName::ALL.to_vec();
    }
    let pool = database(&args.database).await?;
    let source = connect::projection_ops(&args.database, &args.redis);
    let mut report = Report::default();
    let compared =
        until_stopped(async |stop| compare(&source, &names, &mut report.found, stop).await);
    if let Err(error) = compared.await {
        let stopped = matches!(error.downcast_ref(), Some(ReplayError::Stopped));
        let error = if stopped {
            "stopped; nothing is left behind".to_owned()
        } else {
            why(&error)
        };
        let done = report.found.len();
        say(&format!(
            "Error: {} could not be checked: {error}",
            names[done]
        ));
        report.error = Some(error);
    }
    // What was compared is told also when Postgres went away since.
    let listed = with_deadline(LISTED, status::list(&pool)).await;
    if let Err(error) = &listed
        && report.error.is_none()
    {
        report.error = Some(why(&anyhow::Error::msg(error.to_string())));
    }
    for status in listed.unwrap_or_default() {
        let compared = |(name, _): &Found| name.as_str() == status.projection;
        if report.found.iter().any(compared) {
            report.dead += status.dead_letters;
            report.discarded += status.discarded;
        }
    }
    match args.output {
        Output::Json => print_json(&report.json())?,
        Output::Text if report.found.is_empty() => {}
        Output::Text => print(&report.text())?,
    }
    Ok(report)
}

async fn compare(
    source: &projections::operations::ProjectionOps,
    names: &[ProjectionName],
    found: &mut Vec<Found>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    for &name in names {
        let progress = watch::Sender::default();
        let shown = progress.subscribe();
        let work = source.verify(name, &progress, stop);
        let verified = progress_bar::with(name.as_str(), "events", shown, work).await?;
        say(&format!("{name}: compared"));
        found.push((name, verified));
    }
    Ok(())
}

impl Report {
    fn is_equal(&self) -> bool {
        tables(&self.found).all(|(_, _, compared)| compared.differing == 0)
    }

    fn text(&self) -> String {
        let columns = [
            Column::Left("PROJECTION"),
            Column::Left("COMPARED"),
            Column::Right("AT"),
            Column::Right("ROWS"),
            Column::Right("DIFFERENT"),
        ];
        let rows: Vec<_> = tables(&self.found)
            .map(|(name, position, compared)| {
                [
                    name.to_string(),
                    compared.name.clone(),
                    position.map_or_else(|| "-".to_owned(), count),
                    count(compared.rows),
                    count(compared.differing),
                ]
            })
            .collect();
        let mut text = table(&columns, &rows);
        for (_, _, compared) in tables(&self.found) {
            text.push_str(&differences(compared));
        }
        for (name, verified) in &self.found {
            if let Some(of) = verified.of {
                let rows: u64 = verified.compared.iter().map(|compared| compared.rows).sum();
                let _ = write!(
                    text,
                    "\n\n{name} holds {} of {} active sessions; queries find the others in the log.",
                    count(rows),
                    count(of)
                );
            }
        }
        if self.dead + self.discarded > 0 {
            let _ = write!(
                text,
                "\n\nDead letters: {}, and {} discarded. What they say is left out on both sides; \
                 see `reading-sessions dead-letters`.",
                count(self.dead),
                count(self.discarded)
            );
        }
        text
    }

    fn json(&self) -> Value {
        let compared: Vec<Value> = tables(&self.found)
            .map(|(name, position, compared)| {
                let first: Vec<Value> = compared
                    .first
                    .iter()
                    .map(|row| json!({ "found": row.found, "expected": row.expected }))
                    .collect();
                json!({
                    "projection": name.as_str(),
                    "name": compared.name,
                    "position": position,
                    "rows": compared.rows,
                    "differing": compared.differing,
                    "first": first,
                })
            })
            .collect();
        json!({
            "equal": self.error.is_none().then(|| self.is_equal()),
            "compared": compared,
            "dead_letters": self.dead,
            "discarded": self.discarded,
            "error": self.error,
        })
    }
}

fn tables(found: &[Found]) -> impl Iterator<Item = (ProjectionName, Option<i64>, &Compared)> {
    found.iter().flat_map(|(name, verified)| {
        let compared = verified.compared.iter();
        compared.map(|compared| (*name, verified.position, compared))
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
    let told = compared.first.len();
    if told == TOLD && compared.differing > told as u64 {
        let _ = write!(
            text,
            "\n\n{}: and {} more",
            compared.name,
            count(compared.differing - told as u64)
        );
    }
    text
}
