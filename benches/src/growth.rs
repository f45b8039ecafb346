//! Whether an update costs more when the log is long, or its session: the same
//! updates on ever larger logs, and on sessions of ten events and of thousands.
//! The service runs while the log is filled, and relay and projections take all
//! of it, as they would have over the years.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

use crate::generator::crowd::{Crowd, Member};
use crate::generator::scripts::Updates;
use crate::report::{Findings, LOADS, Row, load_line, median};
use crate::service::{Events, Measured, Running};
use crate::{Bench, Part, fill};

/// The bar: CPU of an update at the largest over that at the smallest.
const BAR: f64 = 1.2;

/// Events of the sessions that are measured on every log, and of those that only
/// make it long.
const SHORT: u32 = 10;
const BULK: u32 = 50;

/// Updates of each reader, who may make 60 a minute.
const UPDATES: usize = 50;

/// Connections.
const LINES: usize = 90;

/// The longest that relay and projections may take for what was filled, and how
/// often they are looked at.
const CATCH_UP: Duration = Duration::from_mins(10);
const LOOK: Duration = Duration::from_secs(1);
const TELL: u64 = 20;

/// How much of it is measured.
#[derive(Clone, Copy)]
pub struct Extent {
    /// Events in the log, ascending.
    pub sizes: &'static [u32],
    /// Events of a long session.
    pub long: u32,
    /// How often each is measured, and the readers of each time.
    pub groups: u32,
    pub readers: u32,
    /// How long pgbench measures the machine before each time: minutes lie between
    /// the smallest and the largest.
    pub pgbench: Duration,
}

impl Extent {
    const fn sessions(self) -> u32 {
        self.groups * self.readers
    }
}

/// One kind of session on one size of log.
struct Stage {
    log: u32,
    session: u32,
    /// pgbench's rows a second, and the updates after it.
    measured: Vec<(f64, Measured)>,
}

/// CPU of an update in the service and in Postgres, in microseconds.
fn cpu(measured: &Measured) -> f64 {
    let micros = |name| measured.used.micros_each(name, measured.load.good);
    micros("service") + micros("Postgres")
}

impl Stage {
    fn cpu(&self) -> f64 {
        median(self.measured.iter().map(|(_, measured)| cpu(measured)))
    }

    /// The same as so many rows of pgbench in the same minute, which do not know how
    /// long the log is.
    fn cost(&self) -> f64 {
        let costs = self.measured.iter();
        median(costs.map(|(rows, measured)| cpu(measured) * rows / 1e6))
    }

    fn name(&self) -> String {
        format!(
            "{} events, sessions of {}",
            thousands(self.log),
            thousands(self.session)
        )
    }
}

/// Measures all stages.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let extent = bench.plan.growth;
    let service = Running::new(bench.servers, Part::Growth).await?;
    let mut database = PgConnection::connect(&service.env.database_url).await?;
    let mut stages = Vec::new();
    let mut long = Vec::new();
    let last = extent.sizes.last().copied();
    for size in extent.sizes.iter().copied() {
        bench.say(&format!("the log is filled up to {size} events"));
        let there: i64 = sqlx::query_scalar("select count(*) from events")
            .fetch_one(&mut database)
            .await?;
        let rest = u32::try_from(i64::from(size) - there)?;
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
            long = filled(&mut database, &name("long"), extent, extent.long).await?;
        }
        let short = filled(&mut database, &name("short"), extent, SHORT).await?;
        caught_up(bench, &service).await?;
        // What is left to do for what was filled is not the updates' cost.
        database.execute("vacuum analyze events").await?;
        database.execute("vacuum analyze read.history").await?;
        database.execute("checkpoint").await?;

        bench.say(&format!("updates, with {size} events in the log"));
        stages.push(Stage {
            log: size,
            session: SHORT,
            measured: updates(bench, &service, short, extent).await?,
        });
    }
    let size = last.context("there is no size to measure")?;
    bench.say(&format!("updates of sessions of {} events", extent.long));
    stages.push(Stage {
        log: size,
        session: extent.long,
        measured: updates(bench, &service, long, extent).await?,
    });
    database.close().await?;
    service.stop().await?;
    findings(&stages, extent)
}

/// Fills sessions that are to be updated; returns their readers.
async fn filled(
    database: &mut PgConnection,
    name: &str,
    extent: Extent,
    events: u32,
) -> anyhow::Result<Vec<(Uuid, String)>> {
    let head: i64 = sqlx::query_scalar("select coalesce(max(global_position), 0) from events")
        .fetch_one(&mut *database)
        .await?;
    fill::sessions(database, name, extent.sessions(), events).await?;
    let claimed = fill::claim(database, head).await?;
    ensure!(
        claimed.len() == extent.sessions() as usize,
        "{} sessions were filled",
        claimed.len()
    );
    Ok(claimed)
}

/// Waits until the stream and the projections have all that was filled.
async fn caught_up(bench: &Bench<'_>, service: &Running<'_>) -> anyhow::Result<()> {
    let started = Instant::now();
    let events: i64 = sqlx::query_scalar("select count(*) from events")
        .fetch_one(&service.pool)
        .await?;
    let mut told = 0;
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
        ensure!(waited < CATCH_UP, "it took too long: {behind}");
        if waited.as_secs() >= told + TELL {
            told = waited.as_secs();
            bench.say(&format!("  {behind}"));
        }
        tokio::time::sleep(LOOK).await;
    }
    service.everywhere().await
}

/// The same updates, by one group of readers after the other.
async fn updates(
    bench: &Bench<'_>,
    service: &Running<'_>,
    readers: Vec<(Uuid, String)>,
    extent: Extent,
) -> anyhow::Result<Vec<(f64, Measured)>> {
    let mut measured = Vec::new();
    for group in readers.chunks(extent.readers as usize) {
        let members = group
            .iter()
            .map(|(reader, session)| anyhow::Ok(Member::of(*reader, session.parse()?)));
        let members = members.collect::<anyhow::Result<Vec<_>>>()?;
        let mut crowd = Crowd::of(members, LINES)?;
        let load = async || {
            crowd.ask(service.http, Duration::from_mins(1), |share| {
                Updates::each(share, UPDATES)
            })
        };
        let rows = bench.pgbench.one_row(extent.pgbench).await?;
        measured.push((rows, service.measure(Events::Each(1), load).await?));
    }
    Ok(measured)
}

fn findings(stages: &[Stage], extent: Extent) -> anyhow::Result<Findings> {
    let [first, .., largest, long] = stages else {
        anyhow::bail!("there are too few sizes to compare");
    };
    let row = |what: String, stage: &Stage, reference: &Stage, short: String| {
        let ratio = stage.cost() / reference.cost();
        let cost = |stage: &Stage| format!("{:.2} rows ({:.0} µs)", stage.cost(), stage.cpu());
        Row::new(what, cost(stage))
            .beside(format!("{short} {}", cost(reference)), ratio)
            .at_most(ratio, BAR, "")
    };
    let mut text = String::from(LOADS);
    for stage in stages {
        for (_, measured) in &stage.measured {
            text.push_str(&load_line(&stage.name(), measured));
        }
    }
    text.push_str("\n| | pgbench one row before each |\n|---|---|\n");
    for stage in stages {
        let rows = stage
            .measured
            .iter()
            .map(|(rows, _)| format!("{rows:.0}/s"));
        let rows: Vec<String> = rows.collect();
        let _ = writeln!(text, "| {} | {} |", stage.name(), rows.join(", "));
    }
    Ok(Findings {
        rows: vec![
            row(
                format!(
                    "growth: CPU of an update, {} events in the log",
                    thousands(largest.log)
                ),
                largest,
                first,
                format!("{} events", thousands(first.log)),
            ),
            row(
                format!("… and sessions of {} events", thousands(long.session)),
                long,
                largest,
                format!("sessions of {SHORT}"),
            ),
        ],
        chapters: vec![("Growth".to_owned(), text)],
        conditions: vec![format!(
            "Growth: {} readers with {UPDATES} updates each in a closed loop over {LINES} \
             connections, {} times with other readers; CPU is that of the service and of Postgres \
             together, the first look at each session included, and as rows of pgbench that take as \
             long in the {} s before, since the machine is another one minutes later. The log is \
             filled by SQL while the service runs; relay and projections have taken all of it before \
             a measurement.",
            extent.readers,
            extent.groups,
            extent.pgbench.as_secs()
        )],
        ..Findings::default()
    })
}

/// For people.
fn thousands(count: u32) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
