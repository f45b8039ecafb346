//! Several API processes: capacity and CPU time of an update with one, two and four of
//! them behind nginx. Relay, projections and jobs have a process each.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use sqlx::{Connection, Executor, PgConnection};
use tests::nginx::{self, Nginx};
use tests::stack::TestEnv;

use crate::bars::Bar;
use crate::generator::reader_pool::ReaderPool;
use crate::generator::scripts::Updates;
use crate::limits::ROUND_TRIPS;
use crate::report::{Findings, Row, median};
use crate::service::{self, EventCount, Measured, RunningService};
use crate::usage::{Span, micros_each};
use crate::{Bench, CONNECTIONS, Part};

/// Numbers of API processes. The others are compared with the first.
const COUNTS: [usize; 3] = [1, 2, 4];

/// The processes whose CPU time the table shows.
const NAMES: [&str; 9] = [
    "API",
    "relay",
    "projections",
    "jobs",
    "Postgres",
    "NATS",
    "Redis",
    "nginx",
    "generator",
];

/// Readers. Each process must have most sessions in its cache before the measurement, so
/// they are fewer than in the saturation parts.
const MAX_READERS: usize = 10_000;

/// Addresses whose `X-Forwarded-For` the API trusts.
const TRUSTED: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.0/8");

pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let Some(nginx) = nginx::executable() else {
        bench.print("left out: nginx was not found");
        return Ok(Findings {
            rows: vec![Row::left_out(
                Part::Processes.title(),
                "nginx was not found on this machine",
            )],
            ..Findings::default()
        });
    };
    let env = service::create_env(bench.servers, Part::Processes).await?;
    let mut pool = None;
    let mut measured: [Vec<Run>; COUNTS.len()] = Default::default();
    for n in 1..=bench.plan.rounds {
        for (count, measured) in COUNTS.iter().zip(&mut measured) {
            bench.print(&format!(
                "round {n} of {}: {count} API processes behind nginx",
                bench.plan.rounds
            ));
            measured.push(run(bench, &nginx, &env, &mut pool, *count).await?);
        }
    }
    Ok(findings(bench, &measured))
}

/// A load on some number of API processes.
struct Run {
    measured: Measured,
    /// Events that one append wrote, on average.
    batch: f64,
}

/// Starts all processes, measures updates, and stops the processes.
async fn run(
    bench: &Bench<'_>,
    nginx: &Path,
    env: &TestEnv,
    pool: &mut Option<ReaderPool>,
    count: usize,
) -> anyhow::Result<Run> {
    let mut processes = Vec::new();
    for _ in 0..count {
        let settings = [("ROLES", "api"), TRUSTED];
        let process = service::start_process(bench.servers, env, &settings).await?;
        processes.push(("API", process));
    }
    let api: Vec<_> = processes.iter().map(|(_, process)| process.http).collect();
    for role in ["relay", "projections", "jobs"] {
        let process = service::start_process(bench.servers, env, &[("ROLES", role)]).await?;
        processes.push((role, process));
    }
    let log = service::log_path(bench.servers)?;
    let folder = log.with_file_name("nginx");
    let nginx = Nginx::start(nginx, &folder, &api).await?;
    let front = vec![("nginx", nginx.pid)];
    let service =
        RunningService::from_processes(bench.servers, env.clone(), nginx.http, processes, front)
            .await?;

    if pool.is_none() {
        let readers = bench.readers.min(MAX_READERS);
        bench.print(&format!("{readers} readers start a session each"));
        *pool = Some(ReaderPool::start(service.http, readers, CONNECTIONS)?);
        // Statements need the statistics of a table that has existed for longer.
        let mut database = PgConnection::connect(&env.admin_url).await?;
        database.execute("vacuum analyze events").await?;
        database.close().await?;
    }
    let pool = pool.as_mut().context("the readers have not started")?;
    // Each process loads the sessions into its cache before the measurement.
    let warm_up = pool.run(service.http, bench.plan.length, Updates::new)?;
    ensure!(
        warm_up.errors() == 0,
        "{} of {} requests failed before the measurement",
        warm_up.errors(),
        warm_up.offered
    );
    service.wait_for_projections(Duration::from_mins(1)).await?;
    let before = service.appends().await?;
    let load = async || pool.run(service.http, bench.plan.length, Updates::new);
    let measured = service.measure(EventCount::PerCommand(1), load).await?;
    let appends = service.appends().await?;
    service.stop().await?;
    Ok(Run {
        batch: (appends.events - before.events) / (appends.count - before.count),
        measured,
    })
}

/// CPU time of all processes but nginx and the generator for an update, in microseconds.
fn cpu(Run { measured, .. }: &Run) -> f64 {
    let used = &measured.span.used;
    let left_out = used.of("nginx") + used.of("generator");
    let used = used.total().saturating_sub(left_out);
    micros_each(used, measured.load.successful)
}

fn rate(Run { measured, .. }: &Run) -> f64 {
    measured.load.rate()
}

fn findings(bench: &Bench<'_>, runs: &[Vec<Run>; COUNTS.len()]) -> Findings {
    let spans = runs
        .each_ref()
        .map(|all| Span::sum(all.iter().map(|run| &run.measured.span)));
    // A row that compares `runs[n]` with one process.
    let row = |title: &str, n: usize, of: fn(&Run) -> f64, unit: &str| {
        let [one, more]: [Vec<f64>; 2] = [0, n].map(|n: usize| runs[n].iter().map(of).collect());
        let ratio = median(one.iter().zip(&more).map(|(one, more)| more / one));
        let [one, more] = [one, more].map(median);
        let row = Row::new(title, format!("{more:.0}{unit}"))
            .reference(format!("one API process {one:.0}{unit}"), ratio)
            .limit(spans[n].limit(ROUND_TRIPS));
        (row, ratio)
    };
    let (four_cpu, ratio) = row(Part::Processes.title(), 2, cpu, " µs");
    let rows = vec![
        row("updates, two API processes behind nginx", 1, rate, "/s").0,
        row("updates, four API processes behind nginx", 2, rate, "/s").0,
        row(
            "CPU time of an update, two API processes behind nginx",
            1,
            cpu,
            " µs",
        )
        .0,
        four_cpu.bar(Bar::ApiProcesses, ratio),
    ];
    let mut text = format!(
        "| API processes | rate | p50 | p99 | events per append | CPU per response: {} |\n|---{}|\n",
        NAMES.join(" | "),
        "|---".repeat(4 + NAMES.len())
    );
    for (count, all) in COUNTS.iter().zip(runs) {
        for Run { measured, batch } in all {
            let load = &measured.load;
            let used = &measured.span.used;
            let cpu =
                NAMES.map(|name| format!("{:.0} µs", used.micros_each(name, load.successful)));
            let _ = writeln!(
                text,
                "| {count} | {:.0}/s | {:.1} ms | {:.1} ms | {batch:.1} | {} |",
                load.rate(),
                load.percentile(50),
                load.percentile(99),
                cpu.join(" | ")
            );
        }
    }
    Findings {
        rows,
        sections: vec![("API processes behind nginx".to_owned(), text)],
        spans: ["one API process", "two API processes", "four API processes"]
            .map(|count| format!("{count} behind nginx"))
            .into_iter()
            .zip(spans)
            .collect(),
        conditions: vec![format!(
            "API processes: one, two or four with the role `api` behind nginx with deploy/nginx.conf, and \
             one process each with the roles `relay`, `projections` and `jobs`. nginx runs as one \
             process. {} readers take turns over {CONNECTIONS} connections in a closed loop, \
             after a load of {} s that fills the session caches. The CPU time of an update includes \
             all processes but nginx and the generator.",
            bench.readers.min(MAX_READERS),
            bench.plan.length.as_secs()
        )],
        ..Findings::default()
    }
}
