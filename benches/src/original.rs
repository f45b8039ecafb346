//! The load test of the service that this one follows: its users, their mix and
//! their think times, at a hundred users as there and at a thousand, beside its
//! own figures.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use eventlog::read;
use tokio::process::Command;

use crate::generator::{per_second, percentile};
use crate::report::{Findings, Row, percent};
use crate::service::Running;
use crate::users::{self, BURSTS, Kind, Met};
use crate::{Bench, Part};

/// The bars at a hundred users, in milliseconds, and the errors.
const P95_BAR: f64 = 5.0;
const P99_BAR: f64 = 10.0;
const ERRORS_BAR: f64 = 0.0;

/// The bar for reads that Redis answers, in percent.
const HITS_BAR: f64 = 95.0;

/// What the original's report says of a hundred users over five minutes.
const ITS_P95: f64 = 85.0;
const ITS_P99: f64 = 180.0;
const ITS_FIGURES: &str = "65/s | 45 ms | 85 ms | 180 ms | 0.2 %";

/// How long users may take beyond the time that they were given.
const GRACE: Duration = Duration::from_mins(1);

/// What a number of users came to.
struct Run {
    users: usize,
    length: Duration,
    met: Met,
    latencies: Vec<u32>,
    errors: usize,
    /// Reads of active sessions: all of them, and those that Redis answered.
    reads: u64,
    hits: u64,
}

impl Run {
    fn rate(&self) -> f64 {
        per_second(self.met.requests.len(), self.length)
    }

    fn hits(&self) -> f64 {
        percent(self.hits, self.reads)
    }
}

/// Measures both numbers of users.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let service = Running::new(bench.servers, Part::Original).await?;
    let mut runs = Vec::new();
    for (users, length) in bench.plan.users {
        bench.say(&format!(
            "{users} users of the original, {} s",
            length.as_secs()
        ));
        runs.push(run(&service, users, length).await?);
    }
    service.stop().await?;
    Ok(findings(&runs))
}

async fn run(service: &Running<'_>, users: usize, length: Duration) -> anyhow::Result<Run> {
    let head = read::head(&service.pool).await?;
    let before = service.active_reads().await?;
    let users_process = Command::new(std::env::current_exe()?)
        .args(["users", &service.http.to_string(), &users.to_string()])
        .arg(length.as_secs().to_string())
        // Whatever proxy there is for others.
        .env("NO_PROXY", "*")
        .env("no_proxy", "*")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(length + GRACE, users_process)
        .await
        .context("the users did not end")??;
    ensure!(output.status.success(), "the users failed");
    let met = users::read(&output.stdout)?;
    let after = service.active_reads().await?;
    service.caught_up(Duration::from_secs(30)).await?;
    service.everywhere().await?;

    let is_good = |status: u16| (200..300).contains(&status);
    let good = || met.requests.iter().filter(|(.., status)| is_good(*status));
    let commands = good().filter(|(kind, ..)| kind.is_command()).count();
    let written = service.written_after(head).await?;
    // A start may end a session too.
    ensure!(
        written >= commands,
        "{written} events of {commands} commands that were acknowledged"
    );
    let mut latencies: Vec<u32> = good().map(|(_, micros, _)| *micros).collect();
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "no user met anything");
    Ok(Run {
        users,
        length,
        errors: met.requests.len() - latencies.len(),
        met,
        latencies,
        reads: after.0 - before.0,
        hits: after.1 - before.1,
    })
}

fn findings(runs: &[Run]) -> Findings {
    let mut rows = Vec::new();
    let mut text =
        String::from("| | rate | p50 | p95 | p99 | errors |\n|---|---|---|---|---|---|\n");
    let _ = writeln!(text, "| the original at 100 users | {ITS_FIGURES} |");
    for run in runs {
        let [p50, p95, p99] = [50, 95, 99].map(|percent| percentile(&run.latencies, percent));
        let _ = writeln!(
            text,
            "| at {} users | {:.0}/s | {p50:.1} ms | {p95:.1} ms | {p99:.1} ms | {} of {} |",
            run.users,
            run.rate(),
            run.errors,
            run.met.requests.len()
        );
        let title = |what: &str| format!("{}, {} users, {what}", Part::Original.title(), run.users);
        let told = |what: &str, value: f64| Row::new(title(what), format!("{value:.1} ms"));
        if run.users != 100 {
            rows.push(told("p95", p95));
            rows.push(told("p99", p99));
            rows.push(Row::new(title("errors"), run.errors.to_string()));
            continue;
        }
        rows.push(
            told("p95", p95)
                .beside(format!("the original {ITS_P95} ms"), p95 / ITS_P95)
                .at_most(p95, P95_BAR, "ms"),
        );
        rows.push(
            told("p99", p99)
                .beside(format!("the original {ITS_P99} ms"), p99 / ITS_P99)
                .at_most(p99, P99_BAR, "ms"),
        );
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
        let errors = run.errors as f64;
        rows.push(
            Row::new(title("errors"), run.errors.to_string())
                .beside_only("the original 0.2 %")
                .at_most(errors, ERRORS_BAR, ""),
        );
        rows.push(
            Row::new(
                "… active sessions read that Redis answered",
                format!("{:.1} %", run.hits()),
            )
            .at_least(run.hits(), HITS_BAR, "%"),
        );
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
            let of_kind = run.met.requests.iter().filter(|(of, ..)| *of == kind);
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
        "\nSaturated at 32 connections on such a machine, the original came to 228 updates/s (p50 \
         135 ms, p99 323 ms) and 459 reads of active sessions/s."
    );
    for run in runs {
        let _ = writeln!(
            text,
            "The {} users took {:.0} % of a core themselves.",
            run.users,
            per_second(usize::try_from(run.met.cpu_us).unwrap_or(0), run.length) / 10_000.0
        );
    }
    Findings {
        rows,
        chapters: vec![("The scenario of the original".to_owned(), text)],
        conditions: vec![format!(
            "The scenario of the original: goose users in a process of their own, closed loops with \
             the original's think times: three in four read (start 30, update 50, end 10, history \
             10; 5–10 s between requests; who has no session to move or end starts one), one in \
             four asks for the active session in bursts of five every 1–2 s. Each has a reader and \
             a token; a burst user goes on as a new reader after {BURSTS} bursts, since a reader may \
             make 30 calls a minute. The original's figures are those of its own report, from another \
             machine."
        )],
        ..Findings::default()
    }
}
