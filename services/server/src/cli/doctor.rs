//! `reading-sessions doctor`: whether the servers are as the service needs them,
//! and whether everything that should go on does. It looks, and changes nothing.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::table::{Column, table};
use super::{Output, print, print_json, why};
use crate::config::{DatabaseArgs, NatsArgs, RedisArgs};

mod servers;
mod workers;

/// How long a server may take over one look.
const DEADLINE: Duration = Duration::from_secs(5);

/// Where the servers are.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// How to print.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    nats: NatsArgs,
}

/// What one look came to.
#[derive(Debug, Serialize)]
struct Finding {
    state: State,
    what: &'static str,
    says: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// It goes on, and somebody should look.
    Warning,
    /// Something does not go on, or a promise does not hold.
    Failure,
}

impl Finding {
    fn ok(what: &'static str, says: impl Into<String>) -> Self {
        Self::new(State::Ok, what, says)
    }

    fn warning(what: &'static str, says: impl Into<String>) -> Self {
        Self::new(State::Warning, what, says)
    }

    fn failure(what: &'static str, says: impl Into<String>) -> Self {
        Self::new(State::Failure, what, says)
    }

    fn new(state: State, what: &'static str, says: impl Into<String>) -> Self {
        let says = says.into();
        Self { state, what, says }
    }

    /// All is well, unless there is something to say.
    fn of(what: &'static str, state: State, said: &[String], well: impl Into<String>) -> Self {
        match said {
            [] => Self::ok(what, well),
            said => Self::new(state, what, said.join("; ")),
        }
    }
}

/// Looks at everything.
///
/// # Errors
/// When nothing can be printed; what is wrong is printed.
pub async fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut findings = Vec::new();
    match super::database(&args.database).await {
        Ok(pool) => {
            findings.extend(servers::postgres(&pool).await);
            findings.extend(workers::all(&pool).await);
        }
        Err(error) => findings.push(Finding::failure("Postgres", why(&error))),
    }
    findings.extend(servers::redis(&args.redis).await);
    findings.extend(servers::nats(&args.nats).await);
    match args.output {
        Output::Json => print_json(&findings)?,
        Output::Text => print(&text(&findings))?,
    }
    let fails = findings.iter().any(|found| found.state == State::Failure);
    Ok(ExitCode::from(u8::from(fails)))
}

fn text(findings: &[Finding]) -> String {
    let columns = [
        Column::Left("STATE"),
        Column::Left("WHAT"),
        Column::Left("SAYS"),
    ];
    let rows: Vec<_> = findings.iter().map(row).collect();
    table(&columns, &rows)
}

fn row(finding: &Finding) -> [String; 3] {
    let state = match finding.state {
        State::Ok => "ok",
        State::Warning => "WARNING",
        State::Failure => "FAILURE",
    };
    [
        state.to_owned(),
        finding.what.to_owned(),
        finding.says.clone(),
    ]
}
