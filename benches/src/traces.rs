//! The cost of traces: updates with the default sampling and with every trace exported,
//! compared with updates without traces. The collector accepts all spans and does nothing.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, ensure};
use tests::app::Metrics;
use tests::stack::TestEnv;

use crate::bars::Bar;
use crate::empty_handler::EmptyHandler;
use crate::generator::reader_pool::ReaderPool;
use crate::generator::scripts::Updates;
use crate::limits::ROUND_TRIPS;
use crate::report::{Findings, Row, median, percent};
use crate::service::{self, EventCount, Measured, RunningService};
use crate::usage::Span;
use crate::{Bench, CONNECTIONS, Part};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sampling {
    Off,
    Default,
    All,
}

impl Sampling {
    /// In the order of a round.
    const ORDER: [Self; 3] = [Self::Off, Self::Default, Self::All];

    const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Default => "default sampling",
            Self::All => "all traces",
        }
    }
}

/// A measurement, with the numbers of exported and of dropped spans.
struct Round {
    measured: Measured,
    exported: u64,
    dropped: u64,
}

impl Round {
    /// Spans of an update.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn spans(&self) -> f64 {
        let updates = self.measured.load.successful.max(1);
        (self.exported + self.dropped) as f64 / updates as f64
    }
}

pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let collector = EmptyHandler::start(&std::env::current_exe()?).await?;
    let env = service::create_env(bench.servers, Part::Traces).await?;
    let mut pool = None;
    let mut all: [Vec<Round>; 3] = Default::default();
    for n in 1..=bench.plan.rounds {
        for (sampling, rounds) in Sampling::ORDER.into_iter().zip(&mut all) {
            bench.print(&format!(
                "round {n} of {}: updates, traces: {}",
                bench.plan.rounds,
                sampling.name()
            ));
            rounds.push(run(bench, &collector, &env, &mut pool, sampling).await?);
        }
    }
    Ok(findings(bench, &all))
}

/// Starts the service, measures updates, and stops the service.
async fn run(
    bench: &Bench<'_>,
    collector: &EmptyHandler,
    env: &TestEnv,
    pool: &mut Option<ReaderPool>,
    sampling: Sampling,
) -> anyhow::Result<Round> {
    let endpoint = format!("http://{}", collector.address);
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
    ];
    let settings = match sampling {
        Sampling::Off => &settings[..0],
        Sampling::Default => &settings[..1],
        Sampling::All => &settings[..],
    };
    let service = RunningService::start_with(bench.servers, env.clone(), settings).await?;
    if pool.is_none() {
        // All readers: with fewer, their calls in three runs exceed the rate limit.
        bench.print(&format!("{} readers start a session each", bench.readers));
        *pool = Some(ReaderPool::start(service.http, bench.readers, CONNECTIONS)?);
    }
    let pool = pool.as_mut().context("the readers have not started")?;
    let warm_up = pool.run(service.http, bench.plan.length, Updates::new)?;
    ensure!(
        warm_up.errors() == 0,
        "{} of {} requests failed before the measurement",
        warm_up.errors(),
        warm_up.offered
    );
    service.wait_for_projections(Duration::from_mins(1)).await?;
    let before = spans(&service).await?;
    let load = async || pool.run(service.http, bench.plan.length, Updates::new);
    let measured = service.measure(EventCount::PerCommand(1), load).await?;
    let after = spans(&service).await?;
    service.stop().await?;
    Ok(Round {
        measured,
        exported: after.0 - before.0,
        dropped: after.1 - before.1,
    })
}

/// The numbers of exported and of dropped spans so far.
async fn spans(service: &RunningService<'_>) -> anyhow::Result<(u64, u64)> {
    let metrics = Metrics::parse(service.metrics().await?);
    let count = |name: &str| metrics.count(&format!("reading_sessions_spans_{name}_total"));
    Ok((count("exported"), count("dropped")))
}

fn findings(bench: &Bench<'_>, all: &[Vec<Round>; 3]) -> Findings {
    let [off, default, every] = all;
    let mut text = String::from(
        "| traces | round | rate | p50 | p99 | CPU of service and Postgres | CPU of the service \
         | spans per update | dropped |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for (sampling, rounds) in Sampling::ORDER.into_iter().zip(all) {
        for (n, round) in (1..).zip(rounds) {
            let (load, used) = (&round.measured.load, &round.measured.span.used);
            let _ = writeln!(
                text,
                "| {} | {n} | {:.0}/s | {:.1} ms | {:.1} ms | {:.0} µs | {:.0} µs | {:.2} | \
                 {:.0} % |",
                sampling.name(),
                load.rate(),
                load.percentile(50),
                load.percentile(99),
                round.measured.cpu(),
                used.micros_each("service", load.successful),
                round.spans(),
                percent(round.dropped, round.exported + round.dropped)
            );
        }
    }
    let cpu = |rounds: &[Round]| median(rounds.iter().map(|round| round.measured.cpu()));
    let rate = |rounds: &[Round]| median(rounds.iter().map(|round| round.measured.load.rate()));
    let ratio = |rounds: &[Round], figure: fn(&Measured) -> f64| {
        let pairs = off.iter().zip(rounds);
        median(pairs.map(|(off, round)| figure(&round.measured) / figure(&off.measured)))
    };
    let span = |rounds: &[Round]| Span::sum(rounds.iter().map(|round| &round.measured.span));
    let rows = |rounds: &[Round], what: &str, sampling: Sampling| {
        let limit = span(rounds).limit(ROUND_TRIPS);
        let cpu_ratio = ratio(rounds, Measured::cpu);
        let row = Row::new(what, format!("{:.0} µs", cpu(rounds)))
            .reference(format!("no traces {:.0} µs", cpu(off)), cpu_ratio)
            .limit(&limit);
        let rates = Row::new("… updates per second", format!("{:.0}/s", rate(rounds)))
            .reference(
                format!("no traces {:.0}/s", rate(off)),
                ratio(rounds, |measured| measured.load.rate()),
            )
            .limit(&limit);
        let row = match sampling {
            Sampling::Default => row.bar(Bar::Traces, cpu_ratio),
            Sampling::Off | Sampling::All => row,
        };
        [row, rates]
    };
    let default_rows = rows(default, Part::Traces.title(), Sampling::Default);
    let every_row = "CPU time of an update, all traces exported";
    let every_rows = rows(every, every_row, Sampling::All);
    Findings {
        rows: default_rows.into_iter().chain(every_rows).collect(),
        sections: vec![("Traces".to_owned(), text)],
        spans: Sampling::ORDER
            .into_iter()
            .zip(all)
            .map(|(sampling, rounds)| (format!("traces: {}", sampling.name()), span(rounds)))
            .collect(),
        conditions: vec![format!(
            "Traces: {} readers take turns over {CONNECTIONS} connections in a closed loop, after a \
             load of {} s that fills the session cache. In each round the service runs without \
             traces, with the default sampling (one trace in a hundred) and with all traces. The \
             collector is a process that reads OTLP over HTTP and discards it.",
            bench.readers,
            bench.plan.length.as_secs()
        )],
        ..Findings::default()
    }
}
