//! `reading-sessions doctor`: checks the servers and the workers. It changes
//! nothing.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use eventlog::error::error_chain;
use projections::zones::Zones;
use serde::Serialize;

use super::connect_database;
use super::output::OutputArgs;
use super::table::{Column, table};
use crate::config::{DatabaseArgs, NatsArgs, RedisArgs};

mod encryption;
mod nats;
mod servers;
mod workers;

/// For each query of a check.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    nats: NatsArgs,
}

/// The result of a check.
#[derive(Debug, Serialize)]
struct Finding {
    #[serde(rename = "state")]
    status: Status,
    #[serde(rename = "what")]
    check: &'static str,
    #[serde(rename = "says")]
    details: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    /// The service works. An operator should look.
    Warning,
    /// Something does not work, or a guarantee does not hold.
    Failure,
}

impl Finding {
    fn ok(check: &'static str, details: impl Into<String>) -> Self {
        Self::new(Status::Ok, check, details)
    }

    fn warning(check: &'static str, details: impl Into<String>) -> Self {
        Self::new(Status::Warning, check, details)
    }

    fn failure(check: &'static str, details: impl Into<String>) -> Self {
        Self::new(Status::Failure, check, details)
    }

    fn new(status: Status, check: &'static str, details: impl Into<String>) -> Self {
        let details = details.into();
        Self {
            status,
            check,
            details,
        }
    }

    /// A finding with `status` and the problems, or ok without problems.
    fn from_problems(
        check: &'static str,
        status: Status,
        problems: &[String],
        ok_details: impl Into<String>,
    ) -> Self {
        match problems {
            [] => Self::ok(check, ok_details),
            problems => Self::new(status, check, problems.join("; ")),
        }
    }
}

/// Exits with 1 if a check fails.
pub async fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut findings = Vec::new();
    let pool = match connect_database(&args.database).await {
        Ok(pool) => {
            findings.extend(servers::check_postgres(&pool).await);
            findings.extend(workers::check(&pool, &Zones::load()).await);
            Some(pool)
        }
        Err(error) => {
            findings.push(Finding::failure("Postgres", error_chain(error.as_ref())));
            None
        }
    };
    findings.extend(servers::check_redis(&args.redis).await);
    findings.extend(Box::pin(nats::check(&args.nats, pool.as_ref())).await);
    findings.push(encryption::check(args));
    args.output.print(&findings, || text(&findings))?;
    let fails = findings
        .iter()
        .any(|finding| finding.status == Status::Failure);
    Ok(ExitCode::from(u8::from(fails)))
}

fn text(findings: &[Finding]) -> String {
    let columns = [
        Column::Left("STATUS"),
        Column::Left("CHECK"),
        Column::Left("DETAILS"),
    ];
    let rows: Vec<_> = findings.iter().map(row).collect();
    table(&columns, &rows)
}

fn row(finding: &Finding) -> [String; 3] {
    let status = match finding.status {
        Status::Ok => "ok",
        Status::Warning => "WARNING",
        Status::Failure => "FAILURE",
    };
    [
        status.to_owned(),
        finding.check.to_owned(),
        finding.details.clone(),
    ]
}
