//! Saturation: updates, batches and reads of active sessions in a closed loop. Loads and
//! references alternate in rounds, because the speed of a shared machine changes from
//! minute to minute.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use crate::empty_handler::EmptyHandler;
use crate::generator::Load;
use crate::generator::reader_pool::{ReaderPool, THREADS};
use crate::generator::scripts::{ActiveReads, BATCH_SIZE, Batches, Updates};
use crate::report::{Findings, LOAD_TABLE_HEADER, Row, load_row, median, megabytes, percent};
use crate::service::{EventCount, Measured, RunningService};
use crate::usage::{self, Usage};
use crate::{Bench, CONNECTIONS, Part};

/// Targets for the ratios to pgbench with one row, to pgbench with 100 rows, and to an
/// empty handler.
const UPDATES_TARGET: f64 = 1.5;
const BATCH_TARGET: f64 = 0.75;
const ACTIVE_TARGET: f64 = 0.35;

/// Limit of the ratio: CPU time of an update with late ones over one without.
const LATE_TARGET: f64 = 1.3;

/// Limit of the service's resident memory, in megabytes.
const MEMORY_TARGET: f64 = 200.0;

/// Limit of the time until the projections have caught up, in seconds.
const CAUGHT_UP_TARGET: f64 = 2.0;

/// Longest time of a round of reads. The rate limit allows each of the 20,000 readers
/// 30 calls per minute.
const MAX_READ_LENGTH: Duration = Duration::from_secs(10);

/// Shortest time between the starts of two rounds of reads, so that the rate limits of
/// all readers have reset.
const READ_ROUND_INTERVAL: Duration = Duration::from_secs(62);

/// One saturation part with its reference, over all rounds.
struct PartRounds {
    part: Part,
    reference: &'static str,
    /// Units that one successful response counts for.
    units: usize,
    unit: &'static str,
    target: f64,
    /// The figure of the reference and the load, for each round.
    rounds: Vec<(f64, Measured)>,
    failure: Option<anyhow::Error>,
}

impl PartRounds {
    fn new(part: Part) -> Self {
        let (reference, units, unit, target) = match part {
            Part::Batch => (
                "pgbench, 100 rows per statement",
                BATCH_SIZE,
                " positions/s",
                BATCH_TARGET,
            ),
            Part::Active => ("empty axum handler", 1, "/s", ACTIVE_TARGET),
            Part::Late => ("none late", 1, " µs", LATE_TARGET),
            _ => ("pgbench, one row", 1, "/s", UPDATES_TARGET),
        };
        Self {
            part,
            reference,
            units,
            unit,
            target,
            rounds: Vec::new(),
            failure: None,
        }
    }

    /// The figure that is compared with the reference: units per second or, with late
    /// updates, the CPU time of an update in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "at most 50")]
    fn figure(&self, measured: &Measured) -> f64 {
        match self.part {
            Part::Late => measured.cpu(),
            _ => measured.load.rate() * self.units as f64,
        }
    }

    fn reference_unit(&self) -> &'static str {
        match self.part {
            Part::Late => self.unit,
            _ => "/s",
        }
    }

    fn median(&self, figure: impl Fn(&Measured) -> f64) -> f64 {
        median(self.rounds.iter().map(|(_, measured)| figure(measured)))
    }

    fn rows(&self) -> Vec<Row> {
        let what = self.part.title();
        if let Some(error) = &self.failure {
            return vec![Row::failed(what, error)];
        }
        let figure = self.median(|measured| self.figure(measured));
        let reference = median(self.rounds.iter().map(|(reference, _)| *reference));
        let ratios = self.rounds.iter();
        let ratio = median(ratios.map(|(reference, measured)| self.figure(measured) / reference));
        let row = Row::new(what, format!("{figure:.0}{}", self.unit)).reference(
            format!("{} {reference:.0}{}", self.reference, self.reference_unit()),
            ratio,
        );
        let row = match self.part {
            Part::Late => row.at_most(ratio, self.target, ""),
            _ => row.at_least(ratio, self.target, ""),
        };
        let mut rows = vec![row];
        if self.part == Part::Updates {
            let caught_up = self.median(|measured| measured.caught_up.as_secs_f64());
            rows.push(
                Row::new(
                    "… until projections have caught up after the last update",
                    format!("{caught_up:.2} s"),
                )
                .at_most(caught_up, CAUGHT_UP_TARGET, "s"),
            );
            let memory = self.median(|measured| megabytes(measured.resident));
            rows.push(
                Row::new(
                    "… peak resident memory of the service",
                    format!("{memory:.0} MB"),
                )
                .at_most(memory, MEMORY_TARGET, "MB"),
            );
        }
        rows
    }
}

/// Measures the selected parts. Stores the figures that later parts are compared with
/// in `bench`.
pub async fn measure(bench: &mut Bench<'_>, parts: &[Part]) -> anyhow::Result<Findings> {
    let service = RunningService::new(bench.servers, Part::Updates).await?;
    bench.print(&format!("{} readers start a session each", bench.readers));
    let mut pool = ReaderPool::start(service.http, bench.readers, CONNECTIONS)?;
    service.wait_for_projections(Duration::from_mins(1)).await?;
    let empty_handler = if parts.contains(&Part::Active) {
        Some(EmptyHandler::start(&std::env::current_exe()?).await?)
    } else {
        None
    };
    let reads = service.active_reads().await?;
    let mut all: Vec<PartRounds> = parts.iter().copied().map(PartRounds::new).collect();
    let mut empty_loads = Vec::new();
    let mut next_reads = Instant::now();
    let rounds = bench.plan.rounds;
    for n in 1..=rounds {
        for part_rounds in &mut all {
            if part_rounds.failure.is_some() {
                continue;
            }
            let part = part_rounds.part;
            bench.print(&format!("round {n} of {rounds}: {}", part.title()));
            let length = bench.plan.length;
            let round = async {
                let reference = match (part, &empty_handler) {
                    (Part::Batch, _) => bench.pgbench.many_rows(length).await?,
                    (Part::Late, _) => {
                        let in_time = one(&service, &mut pool, Part::Updates, length).await?;
                        in_time.cpu()
                    }
                    (Part::Active, Some(handler)) => {
                        let before = usage::own_cpu(std::process::id());
                        let load = handler.run(CONNECTIONS, length.min(MAX_READ_LENGTH))?;
                        let used = usage::own_cpu(std::process::id()).saturating_sub(before);
                        let rate = load.rate();
                        empty_loads.push((load, Usage::of_generator(used)));
                        rate
                    }
                    _ => bench.pgbench.one_row(length).await?,
                };
                if part == Part::Active {
                    tokio::time::sleep_until(next_reads).await;
                    next_reads = Instant::now() + READ_ROUND_INTERVAL;
                }
                let measured = one(&service, &mut pool, part, length).await?;
                anyhow::Ok((reference, measured))
            };
            match round.await {
                Ok(round) => part_rounds.rounds.push(round),
                Err(error) => part_rounds.failure = Some(error),
            }
        }
    }
    let hit_percent = {
        let (count, hits) = service.active_reads().await?;
        percent(hits - reads.1, count - reads.0)
    };
    service.stop().await?;
    for updates in all.iter().filter(|one| one.part == Part::Updates) {
        bench
            .one_row
            .extend(updates.rounds.iter().map(|(reference, _)| *reference));
        if updates.failure.is_none() {
            bench.capacity = Some(updates.median(|measured| measured.load.rate()));
        }
    }
    Ok(findings(bench, &all, &empty_loads, hit_percent))
}

async fn one(
    service: &RunningService<'_>,
    pool: &mut ReaderPool,
    part: Part,
    length: Duration,
) -> anyhow::Result<Measured> {
    let http = service.http;
    match part {
        Part::Batch => {
            let load = async || pool.run(http, length, Batches::new);
            service
                .measure(EventCount::PerCommand(BATCH_SIZE), load)
                .await
        }
        Part::Late => {
            let load = async || pool.run(http, length, Updates::with_late);
            service.measure(EventCount::PerCommand(1), load).await
        }
        Part::Active => {
            let load = async || pool.run(http, length.min(MAX_READ_LENGTH), ActiveReads::new);
            service.measure(EventCount::PerCommand(0), load).await
        }
        _ => {
            let load = async || pool.run(http, length, Updates::new);
            service.measure(EventCount::PerCommand(1), load).await
        }
    }
}

/// Measures the updates per second at saturation, if the rounds did not.
pub async fn capacity(
    service: &RunningService<'_>,
    pool: &mut ReaderPool,
    length: Duration,
) -> anyhow::Result<f64> {
    let measured = one(service, pool, Part::Updates, length).await;
    let measured = measured.context("measuring the capacity failed")?;
    Ok(measured.load.rate())
}

fn findings(
    bench: &Bench<'_>,
    parts: &[PartRounds],
    empty_loads: &[(Load, Usage)],
    hit_percent: f64,
) -> Findings {
    let mut text = String::from(LOAD_TABLE_HEADER);
    for one in parts {
        for (n, (_, measured)) in (1..).zip(&one.rounds) {
            let what = format!("{}, round {n}", one.part.name());
            text.push_str(&load_row(&what, measured));
        }
    }
    let _ = writeln!(
        text,
        "\n| part | round | figure | reference | ratio |\n|---|---|---|---|---|"
    );
    for one in parts {
        for (n, (reference, measured)) in (1..).zip(&one.rounds) {
            let figure = one.figure(measured);
            let _ = writeln!(
                text,
                "| {} | {n} | {figure:.0}{} | {reference:.0}{} | {:.2} |",
                one.part.name(),
                one.unit,
                one.reference_unit(),
                figure / reference
            );
        }
    }
    if !empty_loads.is_empty() {
        let micros = |(load, used): &(Load, Usage)| used.micros_each("generator", load.successful);
        let _ = writeln!(
            text,
            "\nFor each request to the empty handler, the generator takes {:.1} µs of CPU time. {hit_percent:.1} % of \
             the reads of active sessions were cache hits. The others read the log.",
            median(empty_loads.iter().map(micros))
        );
    }
    let seconds = bench.plan.length.as_secs();
    Findings {
        rows: parts.iter().flat_map(PartRounds::rows).collect(),
        sections: vec![("Rounds".to_owned(), text)],
        conditions: vec![
            format!(
                "Saturation: a closed loop over {CONNECTIONS} connections with one request in \
                 flight each, from {THREADS} generator threads. {} readers with one active session \
                 each take turns. Each round runs pgbench with one row, updates, pgbench with 100 \
                 rows, batches, the empty handler and active sessions, for {seconds} s each ({} s \
                 for reads).",
                bench.readers,
                bench.plan.length.min(MAX_READ_LENGTH).as_secs()
            ),
            "pgbench: `-M prepared -c 32 -j 2`. Each statement inserts one or 100 event rows into \
             the same table with the same payload, without the order lock."
                .to_owned(),
            format!(
                "Batches: {BATCH_SIZE} observations of the reader's session, 20 ms apart, the last one \
                 at the current time. A batch counts only if all of them were accepted."
            ),
            "Late updates: the CPU time of the service and of Postgres, compared with updates \
             of the same readers in the seconds before."
                .to_owned(),
            "Empty handler: an axum server in its own process, called by the same generator over \
             as many connections."
                .to_owned(),
        ],
        has_failed: parts.iter().any(|one| one.failure.is_some()),
    }
}
