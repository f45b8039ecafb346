//! `make bench`: what the service does, beside references measured in the same
//! run on the same machine. Rounds alternate and the medians count, since
//! machines are shared and noisy; what matters is the ratio.
#![expect(clippy::print_stdout, reason = "the report is what it is for")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use services::dev::{Options, Servers};

mod generator;
mod pgbench;
mod replay;
mod report;
mod service;
mod usage;

use generator::{Crowd, Load};
use report::{Report, Round};
use service::Running;

/// Connections of the generator, each with one request in flight: a closed
/// loop.
const CONNECTIONS: usize = 256;

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    rounds: usize,
    /// Of each part of a round.
    length: Duration,
    /// Events replayed.
    replayed: u64,
}

const FULL: Plan = Plan {
    rounds: 3,
    length: Duration::from_secs(15),
    replayed: 5_000_000,
};

const QUICK: Plan = Plan {
    rounds: 1,
    length: Duration::from_secs(10),
    replayed: 1_000_000,
};

/// Measures the service beside references.
#[derive(Parser)]
struct Arguments {
    /// Fewer and shorter rounds: a look, not a measurement.
    #[arg(long)]
    quick: bool,
    /// Where to write the report; not written by default.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Readers, each with an active session.
    #[arg(long, default_value_t = 20_000)]
    readers: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let plan = if arguments.quick { QUICK } else { FULL };
    let data = services::dev::scratch_data()?;
    let servers = Servers::start(Options {
        data: data.clone(),
        fsync: true,
        offline: false,
        postgres: None,
        nats: None,
        redis: None,
    })
    .await?;
    let result = measure(&servers, &arguments, plan).await;
    servers.stop().await?;
    std::fs::remove_dir_all(&data).context("the data of the run")?;

    let report = result?;
    println!("{}", report.table());
    if let Some(path) = &arguments.report {
        report.write(path)?;
        println!("written to {}", path.display());
    }
    Ok(())
}

async fn measure(servers: &Servers, arguments: &Arguments, plan: Plan) -> anyhow::Result<Report> {
    let Plan {
        rounds,
        length,
        replayed,
    } = plan;
    let reference = pgbench::Table::create(servers).await?;
    let service = Running::start(servers).await?;
    println!("{} readers start a session each", arguments.readers);
    let crowd = Crowd::start(service.http, arguments.readers, CONNECTIONS).await?;
    service.caught_up().await?;

    let mut measured = Vec::new();
    for n in 1..=rounds {
        println!("round {n} of {rounds}: pgbench, {} s", length.as_secs());
        let one_row = reference.rows_per_second(length).await?;
        println!(
            "round {n} of {rounds}: single updates, {} s",
            length.as_secs()
        );
        let before = service.usage(servers)?;
        let events = service.events().await?;
        let load = crowd.update(length).await?;
        let used = service.usage(servers)?.since(&before);
        let caught_up = service.caught_up().await?;
        check(&service, events, &load).await?;
        measured.push(Round {
            one_row,
            load,
            used,
            caught_up,
            resident: service.resident()?,
        });
    }
    println!("replay of the history, {replayed} events");
    let replay = replay::measure(servers, replayed).await?;
    Ok(Report {
        versions: report::versions(servers),
        rounds: measured,
        replay,
    })
}

/// Whatever was acknowledged is in the log, in the stream and in the
/// projections; a figure without that is worth nothing.
async fn check(service: &Running, before: i64, load: &Load) -> anyhow::Result<()> {
    ensure!(load.errors == 0, "{} requests failed", load.errors);
    let written = service.events().await? - before;
    ensure!(
        written == i64::try_from(load.acknowledged)?,
        "{written} events for {} acknowledged updates",
        load.acknowledged
    );
    service.everywhere().await
}

/// The executable of the service, built beside this one.
fn executable() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let executable = own
        .parent()
        .unwrap_or(Path::new("."))
        .join("reading-sessions");
    ensure!(executable.exists(), "{} is not built", executable.display());
    Ok(executable)
}
