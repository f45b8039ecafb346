//! The load test of the original service, which this service replaces: the same mix of
//! users and the same pauses. It runs with 100 users, as in the original's report, with
//! 120 and with 1,000.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use eventlog::read;
use tokio::process::Command;

use crate::bars::Bar;
use crate::generator::{per_second, percentile};
use crate::limits::OFFERED_LOAD;
use crate::pool_wait::Waits;
use crate::report::{Findings, Row, percent};
use crate::service::RunningService;
use crate::usage::{Meter, Span};
use crate::users::{self, BURSTS, Kind, UserOutput};
use crate::{Bench, Part};

/// The figures of the original's report for 100 users over five minutes.
const ORIGINAL_P95: f64 = 85.0;
const ORIGINAL_P99: f64 = 180.0;
const ORIGINAL_FIGURES: &str = "65/s | 45 ms | 85 ms | 180 ms | 0.2 %";

/// Longest time from the end of the run until the process of the users ends.
const EXIT_TIMEOUT: Duration = Duration::from_mins(1);

/// The result with one number of users.
struct Run {
    users: usize,
    length: Duration,
    output: UserOutput,
    latencies: Vec<u32>,
    errors: usize,
    /// All reads of active sessions, and cache hits.
    reads: u64,
    hits: u64,
    /// Waits of requests for a connection to Postgres.
    waits: Waits,
    span: Span,
}

impl Run {
    fn rate(&self) -> f64 {
        per_second(self.output.requests.len(), self.length)
    }

    fn hit_percent(&self) -> f64 {
        percent(self.hits, self.reads)
    }
}

pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let service = RunningService::new(bench.servers, Part::Original).await?;
    let mut runs = Vec::new();
    for (users, length) in bench.plan.users.iter().copied() {
        bench.print(&format!(
            "{users} users of the original's scenario, {} s",
            length.as_secs()
        ));
        runs.push(run(&service, users, length).await?);
    }
    service.stop().await?;
    Ok(findings(&runs))
}

async fn run(service: &RunningService<'_>, users: usize, length: Duration) -> anyhow::Result<Run> {
    let head = read::head(&service.pool).await?;
    let before = service.active_reads().await?;
    let waits = Waits::parse(&service.metrics().await?)?;
    let meter = Meter::with_children(service.pids()?, "generator");
    let users_process = Command::new(std::env::current_exe()?)
        .args(["users", &service.http.to_string(), &users.to_string()])
        .arg(length.as_secs().to_string())
        // Ignore proxies in the environment.
        .env("NO_PROXY", "*")
        .env("no_proxy", "*")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(length + EXIT_TIMEOUT, users_process)
        .await
        .context("the process of the users did not end")??;
    let span = meter.stop();
    ensure!(output.status.success(), "the process of the users failed");
    let output = users::parse(&output.stdout)?;
    let after = service.active_reads().await?;
    let waits = Waits::parse(&service.metrics().await?)?.since(&waits);
    service
        .wait_for_projections(Duration::from_secs(30))
        .await?;
    service.check_stream_and_history().await?;

    let is_good = |status: u16| (200..300).contains(&status);
    let good = || {
        output
            .requests
            .iter()
            .filter(|(.., status)| is_good(*status))
    };
    let commands = good().filter(|(kind, ..)| kind.is_command()).count();
    let written = service.written_after(head).await?;
    // A start can end another session and append a second event.
    ensure!(
        written >= commands,
        "{written} events after {commands} acknowledged commands"
    );
    let mut latencies: Vec<u32> = good().map(|(_, micros, _)| *micros).collect();
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "no request succeeded");
    Ok(Run {
        users,
        length,
        errors: output.requests.len() - latencies.len(),
        output,
        latencies,
        reads: after.0 - before.0,
        hits: after.1 - before.1,
        waits,
        span,
    })
}

/// The rows of a run. The bars of the latencies belong to 100 users, and that of the waits
/// to 120.
fn run_rows(run: &Run, p95: f64, p99: f64) -> Vec<Row> {
    let limit = run.span.limit(OFFERED_LOAD);
    let title = |what: &str| format!("{}, {} users, {what}", Part::Original.title(), run.users);
    let row = |what: &str, figure: String| Row::new(title(what), figure).limit(&limit);
    let latency = |what: &str, value: f64| row(what, format!("{value:.1} ms"));
    let wait = run.waits.percentile(99.0);
    let wait_row = latency("p99 of the wait for a Postgres connection", wait);
    let errors = row("errors", run.errors.to_string());
    match run.users {
        100 => {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
            let error_count = run.errors as f64;
            let hits = run.hit_percent();
            vec![
                latency("p95", p95)
                    .reference(format!("original {ORIGINAL_P95} ms"), p95 / ORIGINAL_P95)
                    .bar(Bar::OriginalP95, p95),
                latency("p99", p99)
                    .reference(format!("original {ORIGINAL_P99} ms"), p99 / ORIGINAL_P99)
                    .bar(Bar::OriginalP99, p99),
                errors
                    .reference_only("original 0.2 %")
                    .bar(Bar::OriginalErrors, error_count),
                Row::new(
                    "… reads of active sessions served by Redis",
                    format!("{hits:.1} %"),
                )
                .bar(Bar::OriginalHits, hits)
                .limit(&limit),
            ]
        }
        120 => vec![wait_row.bar(Bar::PoolWait, wait)],
        _ => vec![latency("p95", p95), latency("p99", p99), errors, wait_row],
    }
}

fn findings(runs: &[Run]) -> Findings {
    let mut rows = Vec::new();
    let mut text = String::from(
        "| run | rate | p50 | p95 | p99 | errors | waits for a connection, p99 |\n|---|---|---|---|---|---|---|\n",
    );
    let _ = writeln!(text, "| original, 100 users | {ORIGINAL_FIGURES} | |");
    for run in runs {
        let [p50, p95, p99] = [50, 95, 99].map(|percent| percentile(&run.latencies, percent));
        let _ = writeln!(
            text,
            "| {} users | {:.0}/s | {p50:.1} ms | {p95:.1} ms | {p99:.1} ms | {} of {} | {} waits, {:.1} ms |",
            run.users,
            run.rate(),
            run.errors,
            run.output.requests.len(),
            run.waits.count(),
            run.waits.percentile(99.0)
        );
        rows.extend(run_rows(run, p95, p99));
    }
    let _ = writeln!(text, "\n| users | request | count | p50 | p95 | p99 |");
    let _ = writeln!(text, "|---|---|---|---|---|---|");
    for run in runs {
        for kind in [
            Kind::Start,
            Kind::Update,
            Kind::End,
            Kind::History,
            Kind::Active,
        ] {
            let of_kind = run
                .output
                .requests
                .iter()
                .filter(|(other, ..)| *other == kind);
            let mut micros: Vec<u32> = of_kind.map(|(_, micros, _)| *micros).collect();
            micros.sort_unstable();
            let [p50, p95, p99] = [50, 95, 99].map(|percent| percentile(&micros, percent));
            let _ = writeln!(
                text,
                "| {} | {kind:?} | {} | {p50:.1} ms | {p95:.1} ms | {p99:.1} ms |",
                run.users,
                micros.len()
            );
        }
    }
    let _ = writeln!(
        text,
        "\nOn a similar machine, the original reached 228 updates/s (p50 135 ms, p99 323 ms) and 459 \
         reads of active sessions/s at saturation with 32 connections."
    );
    Findings {
        rows,
        sections: vec![("Scenario of the original".to_owned(), text)],
        spans: runs
            .iter()
            .map(|run| (format!("original: {} users", run.users), run.span.clone()))
            .collect(),
        conditions: vec![format!(
            "Scenario of the original: goose users in a separate process, in closed loops with the \
             original's pauses. Three in four users read: 30 % starts, 50 % updates, 10 % ends, 10 % \
             history, with 5–10 s between requests. A user without a session starts one instead of \
             an update or an end. One in four users requests the active session in bursts of five \
             every 1–2 s. Each user has a reader and a token. A burst user continues as a new reader \
             after {BURSTS} bursts, because the rate limit allows a reader 30 calls per minute. The \
             original's figures come from its own report, from another machine. Waits for a \
             connection are those of the pool `api`, from the service's histogram, interpolated \
             within a bucket."
        )],
        ..Findings::default()
    }
}
