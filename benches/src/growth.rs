//! Growth: the cost of an update on larger and larger logs, and for sessions of ten and
//! of thousands of events. The service runs while the log is filled, and relay and
//! projections process all of it, as they would over years.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

use crate::bars::Bar;
use crate::generator::reader_pool::{PooledReader, ReaderPool};
use crate::generator::scripts::Updates;
use crate::limits::ROUND_TRIPS;
use crate::report::{Findings, LOAD_TABLE_HEADER, Row, load_row, median, thousands};
use crate::service::{EventCount, Measured, RunningService};
use crate::usage::Span;
use crate::{Bench, Part, fill};

mod disk;

use disk::Disk;

/// Events of the sessions that are measured on every log.
const SHORT: u32 = 10;

/// Events of the sessions that only fill the log.
const BULK: u32 = 50;

/// Updates of each reader, below the rate limit of 60 per minute.
const UPDATES: usize = 50;

const CONNECTIONS: usize = 90;

/// Longest time until relay and projections have processed the filled events.
const CATCH_UP_TIMEOUT: Duration = Duration::from_mins(10);
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Seconds between two progress lines.
const LOG_INTERVAL: u64 = 20;

/// The extent of this part.
#[derive(Clone, Copy)]
pub struct Extent {
    /// Sizes of the log in events, ascending.
    pub sizes: &'static [u32],
    /// Events of a long session.
    pub long: u32,
    /// Measurements of each stage. Each measurement has its own readers.
    pub groups: u32,
    /// Readers of one measurement.
    pub readers: u32,
    /// Length of pgbench before each measurement. Minutes pass between the smallest and
    /// the largest log, and the speed of the machine changes.
    pub pgbench: Duration,
}

impl Extent {
    const fn sessions(self) -> u32 {
        self.groups * self.readers
    }
}

/// One size of session on one size of log.
struct Stage {
    log: u32,
    session: u32,
    /// Rows per second of pgbench, and the updates after it.
    measured: Vec<(f64, Measured)>,
}

impl Stage {
    fn cpu(&self) -> f64 {
        median(self.measured.iter().map(|(_, measured)| measured.cpu()))
    }

    /// The same CPU time, expressed in pgbench rows of the same minute. Their cost does
    /// not depend on the size of the log.
    fn cost(&self) -> f64 {
        let costs = self.measured.iter();
        median(costs.map(|(rows, measured)| measured.cpu() * rows / 1e6))
    }

    fn span(&self) -> Span {
        Span::sum(self.measured.iter().map(|(_, measured)| &measured.span))
    }

    fn name(&self) -> String {
        format!(
            "{} events, sessions of {}",
            thousands(self.log),
            thousands(self.session)
        )
    }
}

pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let extent = bench.plan.growth;
    let service = RunningService::new(bench.servers, Part::Growth).await?;
    let mut database = PgConnection::connect(&service.env.admin_url).await?;
    let mut stages = Vec::new();
    let mut long = Vec::new();
    let last = extent.sizes.last().copied();
    for size in extent.sizes.iter().copied() {
        bench.print(&format!("filling the log up to {size} events"));
        let existing: i64 = sqlx::query_scalar("select count(*) from events")
            .fetch_one(&mut database)
            .await?;
        let rest = u32::try_from(i64::from(size) - existing)?;
        let rest = rest.saturating_sub(extent.sessions() * SHORT);
        let of_long = extent.sessions() * extent.long;
        let mut bulk = rest;
        if Some(size) == last {
            bulk = bulk.saturating_sub(of_long);
        }
        let name = |what: &str| format!("{what}.{size}");
        let sessions = bulk / BULK;
        fill::sessions(&mut database, &name("bulk"), sessions, BULK).await?;
        if Some(size) == last {
            long = fill_sessions(&mut database, &name("long"), extent, extent.long).await?;
        }
        let short = fill_sessions(&mut database, &name("short"), extent, SHORT).await?;
        wait_for_relay_and_projections(bench, &service).await?;
        // Maintenance after the fill must not add to the cost of the updates.
        database.execute("vacuum analyze events").await?;
        database.execute("vacuum analyze read.history").await?;
        database.execute("checkpoint").await?;

        bench.print(&format!("updates with {size} events in the log"));
        stages.push(Stage {
            log: size,
            session: SHORT,
            measured: updates(bench, &service, short, extent).await?,
        });
    }
    let disk = Disk::measure(&mut database, &service).await?;
    let size = last.context("no log size is configured")?;
    bench.print(&format!("updates of sessions of {} events", extent.long));
    stages.push(Stage {
        log: size,
        session: extent.long,
        measured: updates(bench, &service, long, extent).await?,
    });
    database.close().await?;
    service.stop().await?;
    findings(&stages, &disk, extent)
}

/// Writes the sessions that will be updated. Returns their readers and ids.
async fn fill_sessions(
    database: &mut PgConnection,
    name: &str,
    extent: Extent,
    events: u32,
) -> anyhow::Result<Vec<(Uuid, String)>> {
    let head: i64 = sqlx::query_scalar("select coalesce(max(global_position), 0) from events")
        .fetch_one(&mut *database)
        .await?;
    fill::sessions(database, name, extent.sessions(), events).await?;
    let active = fill::claim_sessions(database, head).await?;
    ensure!(
        active.len() == extent.sessions() as usize,
        "{} of {} sessions were written",
        active.len(),
        extent.sessions()
    );
    Ok(active)
}

/// Waits until the stream and the projections contain all filled events.
async fn wait_for_relay_and_projections(
    bench: &Bench<'_>,
    service: &RunningService<'_>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let events: i64 = sqlx::query_scalar("select count(*) from events")
        .fetch_one(&service.pool)
        .await?;
    let mut logged = 0;
    loop {
        let published = service.published().await?;
        let projected = tests::app::caught_up(&service.pool, &service.env).await;
        let behind = match projected {
            Ok(()) if published >= u64::try_from(events)? => break,
            Ok(()) => String::new(),
            Err(behind) => format!(", {behind}"),
        };
        let behind = format!("the stream has {published} of {events} events{behind}");
        let waited = started.elapsed();
        ensure!(
            waited < CATCH_UP_TIMEOUT,
            "no catch-up within {CATCH_UP_TIMEOUT:?}: {behind}"
        );
        if waited.as_secs() >= logged + LOG_INTERVAL {
            logged = waited.as_secs();
            bench.print(&format!("  {behind}"));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    service.check_stream_and_history().await
}

/// Measures the updates of one group of readers after the other.
async fn updates(
    bench: &Bench<'_>,
    service: &RunningService<'_>,
    readers: Vec<(Uuid, String)>,
    extent: Extent,
) -> anyhow::Result<Vec<(f64, Measured)>> {
    let mut measured = Vec::new();
    for group in readers.chunks(extent.readers as usize) {
        let readers = group
            .iter()
            .map(|(reader, session)| anyhow::Ok(PooledReader::new(*reader, session.parse()?)));
        let readers = readers.collect::<anyhow::Result<Vec<_>>>()?;
        let mut pool = ReaderPool::new(readers, CONNECTIONS)?;
        let load = async || {
            pool.run(service.http, Duration::from_mins(1), |share| {
                Updates::per_reader(share, UPDATES)
            })
        };
        let (rows, _) = bench.pgbench.one_row(extent.pgbench).await?;
        measured.push((
            rows,
            service.measure(EventCount::PerCommand(1), load).await?,
        ));
    }
    Ok(measured)
}

fn findings(stages: &[Stage], disk: &Disk, extent: Extent) -> anyhow::Result<Findings> {
    let [first, .., largest, long] = stages else {
        anyhow::bail!("fewer than two log sizes are configured");
    };
    let row = |bar, what: String, stage: &Stage, reference: &Stage, short: String| {
        let ratio = stage.cost() / reference.cost();
        let cost = |stage: &Stage| format!("{:.2} rows ({:.0} µs)", stage.cost(), stage.cpu());
        Row::new(what, cost(stage))
            .reference(format!("{short} {}", cost(reference)), ratio)
            .bar(bar, ratio)
            .limit(stage.span().limit(ROUND_TRIPS))
    };
    let mut text = String::from(LOAD_TABLE_HEADER);
    for stage in stages {
        for (_, measured) in &stage.measured {
            text.push_str(&load_row(&stage.name(), measured));
        }
    }
    text.push_str("\n| stage | pgbench, one row, before each measurement |\n|---|---|\n");
    for stage in stages {
        let rows = stage
            .measured
            .iter()
            .map(|(rows, _)| format!("{rows:.0}/s"));
        let rows: Vec<String> = rows.collect();
        let _ = writeln!(text, "| {} | {} |", stage.name(), rows.join(", "));
    }
    let mut rows = vec![
        row(
            Bar::GrowthLog,
            format!(
                "growth: CPU time of an update, {} events in the log",
                thousands(largest.log)
            ),
            largest,
            first,
            format!("{} events", thousands(first.log)),
        ),
        row(
            Bar::GrowthSession,
            format!("… with sessions of {} events", thousands(long.session)),
            long,
            largest,
            format!("sessions of {SHORT}"),
        ),
    ];
    rows.extend(disk.rows());
    Ok(Findings {
        rows,
        sections: vec![("Growth".to_owned(), text)],
        spans: stages
            .iter()
            .map(|stage| (format!("growth: {}", stage.name()), stage.span()))
            .collect(),
        conditions: vec![format!(
            "Growth: {} readers send {UPDATES} updates each in a closed loop over {CONNECTIONS} \
             connections, repeated {} times with other readers. CPU time is the sum of the service \
             and Postgres, including the first load of each session. It is also given in pgbench rows \
             that take as long, measured in the {} s before, because the speed of the machine changes \
             within minutes. SQL fills the log while the service runs. Each measurement starts after \
             relay and projections have processed the whole log. Sessions have {BULK} events, \
             and the disk space is that after the fill, with the events of long sessions.",
            extent.readers,
            extent.groups,
            extent.pgbench.as_secs()
        )],
        ..Findings::default()
    })
}
