//! `make bench`: what the service does, beside references measured in the same
//! run on the same machine. Rounds alternate and the medians count, since
//! machines are shared and noisy; what matters is the ratio. Each part of the
//! run stands for itself: one that fails costs the others nothing.
#![expect(clippy::print_stdout, reason = "the report is what it is for")]

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use futures::FutureExt;
use dev_servers::{Options, Servers};

mod plan;

mod growth;
mod history;
mod original;
mod overload;
mod replay;
mod rounds;
mod steady;

mod fill;
mod generator;
mod hello;
mod lag;
mod pgbench;
mod service;
mod users;

mod report;
mod usage;

use plan::{Part, Plan};
use report::{Findings, Report};

/// Connections of the generator in a closed loop, each with one request in
/// flight.
const CONNECTIONS: usize = 256;

/// Measures the service beside references.
#[derive(Parser)]
struct Arguments {
    /// Fewer and shorter rounds: a look, not a measurement.
    #[arg(long)]
    quick: bool,
    /// Only this part; may be repeated.
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Where to write the report; not written by default.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Readers, each with an active session.
    #[arg(long, default_value_t = 20_000)]
    readers: usize,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve nothing, as the reference for reads.
    #[command(hide = true)]
    Hello,
    /// Be users of the original's load test.
    #[command(hide = true)]
    Users {
        /// Where the service listens.
        address: SocketAddr,
        /// How many.
        users: usize,
        /// For how long.
        seconds: u64,
    },
}

/// What the parts of a run share.
struct Bench<'a> {
    servers: &'a Servers,
    pgbench: &'a pgbench::Table,
    plan: Plan,
    /// Readers of a saturated run.
    readers: usize,
    /// What pgbench came to in this run.
    one_row: Vec<f64>,
    /// Updates a second that the service does at most, once that is known.
    capacity: Option<f64>,
    started: Instant,
}

impl Bench<'_> {
    /// Tells what goes on.
    fn say(&self, what: &str) {
        println!("{:4} s  {what}", self.started.elapsed().as_secs());
    }

    /// pgbench's rows a second, measured now if no round did.
    async fn one_row(&mut self) -> anyhow::Result<f64> {
        if self.one_row.is_empty() {
            self.say("pgbench one row");
            let rate = self.pgbench.one_row(self.plan.length).await?;
            self.one_row.push(rate);
        }
        Ok(report::median(self.one_row.iter().copied()))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Hello) => return hello::serve().await,
        Some(Command::Users {
            address,
            users,
            seconds,
        }) => return Box::pin(users::run(address, users, Duration::from_secs(seconds))).await,
        None => {}
    }
    let data = dev_servers::scratch_data()?;
    let servers = Servers::start(Options {
        data: data.clone(),
        fsync: true,
        offline: false,
        postgres: None,
        nats: None,
        redis: None,
    })
    .await?;
    // Whoever interrupts it leaves nothing running.
    let report = tokio::select! {
        report = run(&servers, &arguments) => report,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    servers.stop().await?;
    std::fs::remove_dir_all(&data).context("the data of the run")?;

    let report = report?;
    println!("\n{}{}", report.table(), report.chapters());
    if let Some(path) = &arguments.report {
        report.write(path)?;
        println!("written to {}", path.display());
    }
    ensure!(report.is_whole(), "not all could be measured");
    Ok(())
}

/// Runs the parts that are wanted, one after the other.
async fn run(servers: &Servers, arguments: &Arguments) -> anyhow::Result<Report> {
    let pgbench = pgbench::Table::create(servers).await?;
    let mut bench = Bench {
        servers,
        pgbench: &pgbench,
        plan: if arguments.quick {
            plan::QUICK
        } else {
            plan::FULL
        },
        readers: arguments.readers,
        one_row: Vec::new(),
        capacity: None,
        started: Instant::now(),
    };
    let wanted = |part: &Part| arguments.only.is_empty() || arguments.only.contains(part);
    let parts: Vec<Part> = Part::value_variants()
        .iter()
        .copied()
        .filter(wanted)
        .collect();
    let (saturated, others): (Vec<Part>, Vec<Part>) =
        parts.into_iter().partition(|part| part.is_saturation());
    let mut findings = Vec::new();
    if let Some(first) = saturated.first() {
        let rounds = rounds::measure(&mut bench, &saturated);
        let found = AssertUnwindSafe(rounds).catch_unwind().await;
        findings.push(ended(&bench, *first, found).await);
    }
    for part in others {
        let measured = async {
            flush().await?;
            match part {
                Part::History => history::measure(&mut bench).await,
                Part::Steady => steady::measure(&mut bench).await,
                Part::Original => original::measure(&mut bench).await,
                Part::Replay => replay::measure(&mut bench).await,
                Part::Overload => overload::measure(&mut bench).await,
                Part::Growth => growth::measure(&mut bench).await,
                Part::Updates | Part::Batch | Part::Active => unreachable!("of the rounds"),
            }
        };
        let found = AssertUnwindSafe(measured).catch_unwind().await;
        findings.push(ended(&bench, part, found).await);
    }
    Ok(Report {
        versions: report::versions(servers),
        extent: extent(arguments),
        findings,
    })
}

/// Has the disk take what is left of parts before, so that none pays for another.
async fn flush() -> anyhow::Result<()> {
    let flushed = tokio::process::Command::new("sync").status().await;
    ensure!(flushed.context("no sync")?.success(), "sync failed");
    Ok(())
}

/// What is left of a part when it is over: its findings or why there are none.
/// Its data go.
async fn ended(
    bench: &Bench<'_>,
    part: Part,
    found: std::thread::Result<anyhow::Result<Findings>>,
) -> Findings {
    let found = found.unwrap_or_else(|panic| Err(said(&*panic)));
    let found = found.unwrap_or_else(|error| {
        bench.say(&format!("{}: {error:#}", part.name()));
        service::tell_log(bench.servers);
        Findings::failed(part, &error)
    });
    if let Err(error) = service::clear(bench.servers, part).await {
        bench.say(&format!("{}: its data stay: {error:#}", part.name()));
    }
    found
}

/// The words of a panic; what is shared with the tests fails so.
fn said(panic: &(dyn std::any::Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    anyhow!("{}", text.unwrap_or("a panic"))
}

/// That a report is not of all, if so.
fn extent(arguments: &Arguments) -> String {
    if arguments.quick {
        "**A quick look, not a measurement: one short round.**\n\n".to_owned()
    } else if !arguments.only.is_empty() {
        "**A part of the whole.**\n\n".to_owned()
    } else {
        String::new()
    }
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
