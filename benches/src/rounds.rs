//! Saturation: updates, batches and reads of active sessions in a closed loop. Loads and
//! references alternate in rounds, because the speed of a shared machine changes from
//! minute to minute.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connections::{self, Connections};
use crate::empty_handler::EmptyHandler;
use crate::generator::reader_pool::{ReaderPool, THREADS};
use crate::generator::scripts::{ActiveReads, Batches, Updates};
use crate::report::{Findings, LOAD_TABLE_HEADER, load_row, percent};
use crate::service::{EventCount, Measured, RunningService};
use crate::usage::Meter;
use crate::{Bench, CONNECTIONS, Part};

mod part_rounds;

use part_rounds::{PartRounds, Reference};

/// Longest time of a round of reads. The rate limit allows each of the 20,000 readers
/// 30 calls per minute, which is 100,000 calls per second in this time.
const MAX_READ_LENGTH: Duration = Duration::from_secs(6);

/// Shortest time between the starts of two rounds of reads, so that the rate limits of
/// all readers have reset.
const READ_ROUND_INTERVAL: Duration = Duration::from_secs(62);

/// Measures the selected parts. Stores the figures that later parts are compared with
/// in `bench`.
pub async fn measure(bench: &mut Bench<'_>, parts: &[Part]) -> anyhow::Result<Findings> {
    let service = RunningService::new(bench.servers, Part::Updates).await?;
    bench.print(&format!("{} readers start a session each", bench.readers));
    let mut pool = ReaderPool::start(service.http, bench.readers, CONNECTIONS)?;
    service.wait_for_projections(Duration::from_mins(1)).await?;
    let mut run = Rounds {
        service: &service,
        empty_handler: if parts.contains(&Part::Active) {
            Some(EmptyHandler::start(&std::env::current_exe()?).await?)
        } else {
            None
        },
        many_rows: None,
        next_reads: Instant::now(),
        most: Connections::default(),
    };
    let reads = service.active_reads().await?;
    let mut all: Vec<PartRounds> = parts.iter().copied().map(PartRounds::new).collect();
    let rounds = bench.plan.rounds;
    for n in 1..=rounds {
        run.many_rows = None;
        for part_rounds in &mut all {
            if part_rounds.failure.is_some() {
                continue;
            }
            let part = part_rounds.part;
            bench.print(&format!("round {n} of {rounds}: {}", part.title()));
            match run.round(bench, &mut pool, part).await {
                Ok(round) => part_rounds.rounds.push(round),
                Err(error) => part_rounds.failure = Some(error),
            }
        }
    }
    let most = run.most;
    let hit_percent = {
        let (count, hits) = service.active_reads().await?;
        percent(hits - reads.1, count - reads.0)
    };
    service.stop().await?;
    for updates in all.iter().filter(|one| one.part == Part::Updates) {
        let references = updates.rounds.iter();
        bench
            .one_row
            .extend(references.map(|(reference, _)| reference.figure));
        if updates.failure.is_none() {
            bench.capacity = Some(updates.median(|measured| measured.load.rate()));
        }
    }
    Ok(findings(bench, &all, most, hit_percent))
}

/// The servers and settings of all rounds.
struct Rounds<'a> {
    service: &'a RunningService<'a>,
    empty_handler: Option<EmptyHandler>,
    /// The reference of all batches in a round.
    many_rows: Option<Reference>,
    next_reads: Instant,
    most: Connections,
}

impl Rounds<'_> {
    /// Measures the reference of a part, then the part.
    async fn round(
        &mut self,
        bench: &Bench<'_>,
        pool: &mut ReaderPool,
        part: Part,
    ) -> anyhow::Result<(Reference, Measured)> {
        let length = bench.plan.length;
        let new = |(figure, span)| Reference { figure, span };
        let reference = match (part, &self.empty_handler) {
            (Part::Batch10 | Part::Batch25 | Part::Batch50, _) => {
                if self.many_rows.is_none() {
                    self.many_rows = Some(new(bench.pgbench.many_rows(length).await?));
                }
                self.many_rows
                    .clone()
                    .context("no reference of the batches")?
            }
            (Part::Late, _) => {
                let in_time = one(self.service, pool, Part::Updates, length).await?;
                new((in_time.cpu(), in_time.span))
            }
            (Part::Active, Some(handler)) => {
                let meter = Meter::start(handler.pids());
                let load = handler.run(CONNECTIONS, length.min(MAX_READ_LENGTH))?;
                new((load.rate(), meter.stop()))
            }
            _ => new(bench.pgbench.one_row(length).await?),
        };
        if part == Part::Active {
            tokio::time::sleep_until(self.next_reads).await;
            self.next_reads = Instant::now() + READ_ROUND_INTERVAL;
        }
        if part != Part::Updates {
            return Ok((reference, one(self.service, pool, part, length).await?));
        }
        let stop = CancellationToken::new();
        let watch = connections::watch(self.service.pool.clone(), stop.clone());
        let watch = tokio::spawn(watch);
        let measured = one(self.service, pool, part, length).await;
        stop.cancel();
        self.most = self.most.max(watch.await??);
        Ok((reference, measured?))
    }
}

async fn one(
    service: &RunningService<'_>,
    pool: &mut ReaderPool,
    part: Part,
    length: Duration,
) -> anyhow::Result<Measured> {
    let http = service.http;
    if let Some(size) = part.batch_size() {
        let load = async || pool.run(http, length, |share| Batches::new(share, size));
        return service.measure(EventCount::PerCommand(size), load).await;
    }
    match part {
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
    most: Connections,
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
            let (figure, reference) = (one.figure(measured), reference.figure);
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
    let seconds = bench.plan.length.as_secs();
    Findings {
        rows: parts
            .iter()
            .flat_map(|one| one.rows(most, hit_percent))
            .collect(),
        sections: vec![("Rounds".to_owned(), text)],
        spans: parts.iter().flat_map(PartRounds::spans).collect(),
        conditions: vec![
            format!(
                "Saturation: a closed loop over {CONNECTIONS} connections with one request in \
                 flight each, from {THREADS} generator threads. {} readers with one active session \
                 each take turns. In each round, each part follows its reference, for {seconds} s \
                 each ({} s for reads). Batches of 10, 25 and 50 share one reference.",
                bench.readers,
                bench.plan.length.min(MAX_READ_LENGTH).as_secs()
            ),
            "pgbench: `-M prepared -c 32 -j 2`. Each statement inserts one or 100 event rows into \
             the same table with the same payload, without the order lock."
                .to_owned(),
            "Batches: observations of the reader's session, 20 ms apart, the last one at the \
             current time. A batch counts only if all of them were accepted."
                .to_owned(),
            "Late updates: the CPU time of the service and of Postgres, compared with updates \
             of the same readers in the seconds before."
                .to_owned(),
            "Connections to Postgres: the largest counts in `pg_stat_activity` of the service's \
             connections, polled ten times a second during the updates. In use: not idle."
                .to_owned(),
            "Empty handler: an axum server in its own process, called by the same generator over \
             as many connections."
                .to_owned(),
            "Reads served by Redis: cache hits divided by all reads of active sessions. The other \
             reads read the log."
                .to_owned(),
        ],
        has_failed: parts.iter().any(|one| one.failure.is_some()),
    }
}
