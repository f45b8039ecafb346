//! `make bench`: measures the service and compares it with references on the same
//! machine in the same run. Machines are shared and noisy, so service and reference
//! alternate in rounds, and the report shows medians and ratios. The parts of a run
//! are independent: a failed part does not affect the others.
#![expect(clippy::print_stdout, reason = "the program prints its report")]

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use dev_servers::{Options, Servers};
use futures::FutureExt;

mod plan;

mod build;
mod growth;
mod history;
mod original;
mod overload;
mod processes;
mod redis_memory;
mod replay;
mod responses;
mod rounds;
mod steady;
mod traces;

mod connections;
mod empty_handler;
mod fill;
mod generator;
mod lag;
mod pgbench;
mod pool_wait;
mod probes;
mod service;
mod users;
mod writes;

mod bars;
mod limits;
mod report;
mod usage;

use bars::Verdict;
use plan::{Part, Plan};
use report::{Findings, Report};

/// Connections of the closed loop. Each has one request in flight.
const CONNECTIONS: usize = 256;

/// Measure the service and compare it with references.
#[derive(Parser)]
struct Arguments {
    /// Run fewer and shorter rounds, without some parts. The figures are rough.
    #[arg(long)]
    quick: bool,
    /// Run only this part. May be repeated.
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// File for the report. Without it, the report is only printed.
    #[arg(long)]
    report: Option<PathBuf>,
    /// File that explains the bars that are not met. The run fails if a missed bar has no
    /// entry in it.
    #[arg(long, default_value = "docs/profile.md")]
    profile: PathBuf,
    /// Do not fail if a bar is missed without an entry.
    #[arg(long)]
    no_bars: bool,
    /// Number of readers in the saturation and overload parts.
    #[arg(long, default_value_t = 20_000)]
    readers: usize,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the empty handler, which is the reference for reads.
    #[command(hide = true)]
    EmptyHandler,
    /// Simulate users of the load test of the original service.
    #[command(hide = true)]
    Users {
        /// Address of the service.
        address: SocketAddr,
        /// Number of users.
        users: usize,
        /// Length of the run in seconds.
        seconds: u64,
    },
}

/// State that the parts of a run share.
struct Bench<'a> {
    servers: &'a Servers,
    pgbench: &'a pgbench::Pgbench<'a>,
    plan: Plan,
    /// Readers of the saturation and overload parts.
    readers: usize,
    /// Rows per second of pgbench with one row per transaction, in this run.
    one_row: Vec<f64>,
    /// Updates per second at saturation; `None` until they are measured.
    capacity: Option<f64>,
    started: Instant,
}

impl Bench<'_> {
    /// Prints a line with the elapsed time.
    fn print(&self, line: &str) {
        println!("{:4} s  {line}", self.started.elapsed().as_secs());
    }

    /// Rows per second of pgbench with one row per transaction. Measures them if no
    /// round has.
    async fn one_row(&mut self) -> anyhow::Result<f64> {
        if self.one_row.is_empty() {
            self.print("pgbench, one row");
            let (rate, _) = self.pgbench.one_row(self.plan.length).await?;
            self.one_row.push(rate);
        }
        Ok(report::median(self.one_row.iter().copied()))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::EmptyHandler) => return empty_handler::serve().await,
        Some(Command::Users {
            address,
            users,
            seconds,
        }) => return Box::pin(users::run(address, users, Duration::from_secs(seconds))).await,
        None => {}
    }
    let profile = std::fs::read_to_string(&arguments.profile)
        .with_context(|| format!("reading {} failed", arguments.profile.display()))?;
    let explained = bars::explained(&profile)?;
    let data = dev_servers::scratch_data_dir()?;
    let servers = Servers::start(Options {
        data: data.clone(),
        fsync: true,
        offline: false,
        postgres: None,
        nats: None,
        redis: None,
    })
    .await?;
    // Stop the servers also after an interrupt.
    let report = tokio::select! {
        report = run(&servers, &arguments) => report,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    servers.stop().await?;
    std::fs::remove_dir_all(&data).context("deleting the data of the run failed")?;

    let report = report?;
    println!("\n{}{}{}", report.scope, report.table(), report.sections());
    if let Some(path) = &arguments.report {
        report.write(path)?;
        println!("report written to {}", path.display());
    }
    let verdict = Verdict::new(report.bars(), &explained);
    println!(
        "\n{}",
        verdict.text(&arguments.profile.display().to_string())
    );
    ensure!(report.is_complete(), "some parts failed; see the report");
    ensure!(
        arguments.no_bars || verdict.unexplained.is_empty(),
        "some bars are not met; fix the cause, or explain it in {}",
        arguments.profile.display()
    );
    Ok(())
}

/// Runs the selected parts one after the other.
async fn run(servers: &Servers, arguments: &Arguments) -> anyhow::Result<Report> {
    let pgbench = pgbench::Pgbench::create(servers).await?;
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
    let left_out = bench.plan.left_out;
    let is_selected = |part: &Part| match arguments.only.as_slice() {
        [] => !left_out.contains(part),
        only => only.contains(part),
    };
    let parts: Vec<Part> = Part::value_variants()
        .iter()
        .copied()
        .filter(is_selected)
        .collect();
    let (saturated, others): (Vec<Part>, Vec<Part>) =
        parts.into_iter().partition(|part| part.is_saturation());
    let mut findings = Vec::new();
    if !saturated.is_empty() {
        let rounds = rounds::measure(&mut bench, &saturated);
        let found = AssertUnwindSafe(rounds).catch_unwind().await;
        findings.push(finish_part(&bench, Part::Updates, found).await);
    }
    for part in others {
        let measured = async {
            flush().await?;
            match part {
                Part::History => history::measure(&mut bench).await,
                Part::Steady => steady::measure(&mut bench).await,
                Part::Original => original::measure(&mut bench).await,
                Part::Processes => processes::measure(&mut bench).await,
                Part::Traces => traces::measure(&mut bench).await,
                Part::Responses => responses::measure(&mut bench).await,
                Part::RedisMemory => redis_memory::measure(&mut bench).await,
                Part::Replay => replay::measure(&mut bench).await,
                Part::Overload => overload::measure(&mut bench).await,
                Part::Growth => growth::measure(&mut bench).await,
                Part::Build => build::measure(&mut bench).await,
                Part::Updates
                | Part::Late
                | Part::Batch10
                | Part::Batch25
                | Part::Batch50
                | Part::Active => unreachable!("measured in rounds"),
            }
        };
        let found = AssertUnwindSafe(measured).catch_unwind().await;
        findings.push(finish_part(&bench, part, found).await);
    }
    Ok(Report {
        versions: report::versions(servers),
        scope: scope(arguments, left_out),
        findings,
    })
}

/// Flushes all files to disk, so that writes of earlier parts do not slow this one.
async fn flush() -> anyhow::Result<()> {
    let flushed = tokio::process::Command::new("sync").status().await;
    ensure!(flushed.context("sync not found")?.success(), "sync failed");
    Ok(())
}

/// Deletes the data of a part, and returns its findings or its failure.
async fn finish_part(
    bench: &Bench<'_>,
    part: Part,
    found: std::thread::Result<anyhow::Result<Findings>>,
) -> Findings {
    let found = found.unwrap_or_else(|panic| Err(panic_message(&*panic)));
    let found = found.unwrap_or_else(|error| {
        bench.print(&format!("{} failed: {error:#}", part.name()));
        service::print_log_tail(bench.servers);
        Findings::failed(part, &error)
    });
    if let Err(error) = service::delete_data(bench.servers, part).await {
        bench.print(&format!(
            "deleting the data of {} failed: {error:#}",
            part.name()
        ));
    }
    found
}

/// The message of a panic. The support library of the tests panics on failure.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    anyhow!("{}", text.unwrap_or("panic without a message"))
}

/// A note for a report that does not contain a complete measurement.
fn scope(arguments: &Arguments, left_out: &[Part]) -> String {
    if !arguments.only.is_empty() {
        "**Only some parts were measured.**\n\n".to_owned()
    } else if arguments.quick {
        let left_out: Vec<String> = left_out.iter().map(|part| part.name()).collect();
        format!(
            "**A quick run with one short round; the figures are rough. It leaves out {}.**\n\n",
            left_out.join(", ")
        )
    } else {
        String::new()
    }
}

/// The executable of the service, in the same folder as this one.
fn executable() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let executable = own
        .parent()
        .unwrap_or(Path::new("."))
        .join("reading-sessions");
    ensure!(
        executable.exists(),
        "{} does not exist; build it first with `cargo build --release --workspace --bins`",
        executable.display()
    );
    Ok(executable)
}
