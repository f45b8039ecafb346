//! Saturation: updates, batches and reads of active sessions, in a closed loop,
//! round by round in turn with their references, since the machine is not the
//! same from minute to minute.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use crate::generator::Load;
use crate::generator::crowd::{Crowd, THREADS};
use crate::generator::scripts::{Actives, BATCH, Batches, Updates};
use crate::hello::Hello;
use crate::report::{Findings, LOADS, Row, load_line, median, megabytes, percent};
use crate::service::{Events, Measured, Running};
use crate::usage::{self, Usage};
use crate::{Bench, CONNECTIONS, Part};

/// The bars: over pgbench's one row, over its hundred rows, over an empty
/// handler.
const UPDATES_BAR: f64 = 1.5;
const BATCH_BAR: f64 = 0.75;
const ACTIVE_BAR: f64 = 0.35;

/// The most that the service may have resident, in megabytes.
const MEMORY_BAR: f64 = 200.0;

/// How long the projections may take after the last update, in seconds.
const CAUGHT_UP_BAR: f64 = 2.0;

/// Reads last no longer than this: a reader may make 30 calls a minute, and
/// 20,000 of them ask in turn.
const READS: Duration = Duration::from_secs(10);

/// From one round's reads to the next at least: each reader may make as many again.
const READS_APART: Duration = Duration::from_secs(62);

/// One kind of load beside its reference, over the rounds.
struct Kind {
    part: Part,
    /// The reference's name, and what one good answer is worth in its unit.
    reference: &'static str,
    worth: usize,
    unit: &'static str,
    bar: f64,
    /// Figures of the reference, and loads.
    rounds: Vec<(f64, Measured)>,
    failure: Option<anyhow::Error>,
}

impl Kind {
    fn new(part: Part) -> Self {
        let (reference, worth, unit, bar) = match part {
            Part::Batch => (
                "pgbench 100 rows a statement",
                BATCH,
                " positions/s",
                BATCH_BAR,
            ),
            Part::Active => ("axum, empty handler", 1, "/s", ACTIVE_BAR),
            _ => ("pgbench one row", 1, "/s", UPDATES_BAR),
        };
        Self {
            part,
            reference,
            worth,
            unit,
            bar,
            rounds: Vec::new(),
            failure: None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "at most 50")]
    fn rate(&self, measured: &Measured) -> f64 {
        measured.load.rate() * self.worth as f64
    }

    fn median(&self, figure: impl Fn(&Measured) -> f64) -> f64 {
        median(self.rounds.iter().map(|(_, measured)| figure(measured)))
    }

    fn rows(&self) -> Vec<Row> {
        let what = self.part.title();
        if let Some(error) = &self.failure {
            return vec![Row::failed(what, error)];
        }
        let rate = self.median(|measured| self.rate(measured));
        let reference = median(self.rounds.iter().map(|(reference, _)| *reference));
        let ratios = self.rounds.iter();
        let ratio = median(ratios.map(|(reference, measured)| self.rate(measured) / reference));
        let row = Row::new(what, format!("{rate:.0}{}", self.unit))
            .beside(format!("{} {reference:.0}/s", self.reference), ratio)
            .at_least(ratio, self.bar, "");
        let mut rows = vec![row];
        if self.part == Part::Updates {
            let caught_up = self.median(|measured| measured.caught_up.as_secs_f64());
            rows.push(
                Row::new(
                    "… projections caught up after the last update",
                    format!("{caught_up:.2} s"),
                )
                .at_most(caught_up, CAUGHT_UP_BAR, "s"),
            );
            let memory = self.median(|measured| megabytes(measured.resident));
            rows.push(
                Row::new(
                    "… resident memory of the service, peak",
                    format!("{memory:.0} MB"),
                )
                .at_most(memory, MEMORY_BAR, "MB"),
            );
        }
        rows
    }
}

/// Measures those that are wanted; tells the bench what later parts compare
/// with.
pub async fn measure(bench: &mut Bench<'_>, parts: &[Part]) -> anyhow::Result<Findings> {
    let wants = |part: Part| parts.contains(&part);
    let service = Running::new(bench.servers, Part::Updates).await?;
    bench.say(&format!("{} readers start a session each", bench.readers));
    let mut crowd = Crowd::start(service.http, bench.readers, CONNECTIONS)?;
    service.caught_up(Duration::from_mins(1)).await?;
    let hello = if wants(Part::Active) {
        Some(Hello::start(&std::env::current_exe()?).await?)
    } else {
        None
    };
    let reads = service.active_reads().await?;
    let mut kinds: Vec<Kind> = parts.iter().copied().map(Kind::new).collect();
    let mut empty = Vec::new();
    let mut next_reads = Instant::now();
    let rounds = bench.plan.rounds;
    for n in 1..=rounds {
        for kind in &mut kinds {
            if kind.failure.is_some() {
                continue;
            }
            bench.say(&format!("round {n} of {rounds}: {}", kind.part.title()));
            let length = bench.plan.length;
            let round = async {
                let reference = match (kind.part, &hello) {
                    (Part::Batch, _) => bench.pgbench.many_rows(length).await?,
                    (Part::Active, Some(hello)) => {
                        let before = usage::own_cpu(std::process::id());
                        let load = hello.ask(CONNECTIONS, length.min(READS))?;
                        let used = usage::own_cpu(std::process::id()).saturating_sub(before);
                        let rate = load.rate();
                        empty.push((load, Usage::of_generator(used)));
                        rate
                    }
                    _ => bench.pgbench.one_row(length).await?,
                };
                if kind.part == Part::Active {
                    tokio::time::sleep_until(next_reads).await;
                    next_reads = Instant::now() + READS_APART;
                }
                let measured = one(&service, &mut crowd, kind.part, length).await?;
                anyhow::Ok((reference, measured))
            };
            match round.await {
                Ok(round) => kind.rounds.push(round),
                Err(error) => kind.failure = Some(error),
            }
        }
    }
    let reads = {
        let (all, hits) = service.active_reads().await?;
        percent(hits - reads.1, all - reads.0)
    };
    service.stop().await?;
    for kind in kinds.iter().filter(|kind| kind.part == Part::Updates) {
        bench
            .one_row
            .extend(kind.rounds.iter().map(|(reference, _)| *reference));
        if kind.failure.is_none() {
            bench.capacity = Some(kind.median(|measured| measured.load.rate()));
        }
    }
    Ok(findings(bench, &kinds, &empty, reads))
}

async fn one(
    service: &Running<'_>,
    crowd: &mut Crowd,
    part: Part,
    length: Duration,
) -> anyhow::Result<Measured> {
    let http = service.http;
    match part {
        Part::Batch => {
            let load = async || crowd.ask(http, length, Batches::of);
            service.measure(Events::Each(BATCH), load).await
        }
        Part::Active => {
            let load = async || crowd.ask(http, length.min(READS), Actives::of);
            service.measure(Events::Each(0), load).await
        }
        _ => {
            let load = async || crowd.ask(http, length, Updates::of);
            service.measure(Events::Each(1), load).await
        }
    }
}

/// What the service does at most, when no round said so: a short look.
pub async fn capacity(
    service: &Running<'_>,
    crowd: &mut Crowd,
    length: Duration,
) -> anyhow::Result<f64> {
    let measured = one(service, crowd, Part::Updates, length).await;
    let measured = measured.context("the capacity is not known")?;
    Ok(measured.load.rate())
}

fn findings(bench: &Bench<'_>, kinds: &[Kind], empty: &[(Load, Usage)], hits: f64) -> Findings {
    let mut text = String::from(LOADS);
    for kind in kinds {
        for (n, (_, measured)) in (1..).zip(&kind.rounds) {
            let what = format!("{}, round {n}", kind.part.name());
            text.push_str(&load_line(&what, measured));
        }
    }
    let _ = writeln!(
        text,
        "\n| | round | figure | reference | ratio |\n|---|---|---|---|---|"
    );
    for kind in kinds {
        for (n, (reference, measured)) in (1..).zip(&kind.rounds) {
            let rate = kind.rate(measured);
            let _ = writeln!(
                text,
                "| {} | {n} | {rate:.0}{} | {reference:.0}/s | {:.2} |",
                kind.part.name(),
                kind.unit,
                rate / reference
            );
        }
    }
    if !empty.is_empty() {
        let micros = |(load, used): &(Load, Usage)| used.micros_each("generator", load.good);
        let _ = writeln!(
            text,
            "\nThe generator takes {:.1} µs a request of the empty handler. Redis answered {hits:.1} % of \
             the reads of active sessions, the log the others.",
            median(empty.iter().map(micros))
        );
    }
    let seconds = bench.plan.length.as_secs();
    Findings {
        rows: kinds.iter().flat_map(Kind::rows).collect(),
        chapters: vec![("Rounds".to_owned(), text)],
        conditions: vec![
            format!(
                "Saturation: a closed loop over {CONNECTIONS} connections with one request in \
                 flight each, {} readers with an active session each, in turn; {THREADS} threads of \
                 the generator; rounds of pgbench one row, updates, pgbench 100 rows, batches, the \
                 empty handler and active sessions, {seconds} s each ({} s for reads).",
                bench.readers,
                bench.plan.length.min(READS).as_secs()
            ),
            "pgbench: `-M prepared -c 32 -j 2`, an event row or a hundred in one statement into the \
             same table with the same payload, without the order lock."
                .to_owned(),
            format!(
                "A batch: {BATCH} observations of the reader's session, 20 ms apart, the last one \
                 now; it counts only if all were taken."
            ),
            "The empty handler: axum, in a process of its own, over the same connections by the \
             same generator."
                .to_owned(),
        ],
        has_failed: kinds.iter().any(|kind| kind.failure.is_some()),
    }
}
