//! Normal load: a thousand readers send one update per second each in an open loop.
//! Measures the latency, how far Redis, history and statistics lag behind the log, what
//! is written for an update, and what readers must notice at once.

use std::time::Duration;

use anyhow::Context;
use eventlog::read;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bars::{Bar, COALESCE_WINDOW};
use crate::generator::open::{self, Arrivals};
use crate::generator::reader_pool::ReaderPool;
use crate::generator::scripts::Updates;
use crate::lag::{self, Lags, Table, Watch, Watched};
use crate::limits::OFFERED_LOAD;
use crate::probes::{self, Probes};
use crate::report::{Findings, LOAD_TABLE_HEADER, Row, load_row};
use crate::service::{EventCount, Measured, RunningService};
use crate::{Bench, Part, writes};

/// Readers. Each has its own connection.
const READERS: u32 = 1_000;

/// Time between two updates of a reader. Slightly more than a second, because the rate
/// limit allows 60 per minute.
const UPDATE_INTERVAL: Duration = Duration::from_millis(1_020);

/// Readers whose sessions are watched for lags.
const WATCHED: usize = 20;

/// Longest time after the load until the last positions are in the tables. More than the
/// bar, so that a missed bar is measured too.
const LAST_POSITIONS: Duration = Duration::from_secs(20);

pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    bench.print("pgbench, one row, WAL");
    let pgbench_wal = bench.pgbench.wal_per_row(bench.plan.length).await?;
    let service = RunningService::new(bench.servers, Part::Steady).await?;
    let (with_probes, probes) = probe(bench, &service).await?;
    let updates = update(bench, service).await?;
    Ok(findings(&with_probes, probes, &updates, pgbench_wal))
}

/// Runs the load with probes.
async fn probe(
    bench: &Bench<'_>,
    service: &RunningService<'_>,
) -> anyhow::Result<(Measured, Probes)> {
    let pool = start_readers(bench, service).await?;
    let stop = CancellationToken::new();
    let probes = probes::run(service.pool.clone(), service.url(), stop.clone());
    let probes = tokio::spawn(probes);
    let load = run_updates(bench, service, pool, bench.plan.probes);
    let head = read::head(&service.pool).await?;
    let meter = service.meter()?;
    let load = load();
    let span = meter.stop();
    stop.cancel();
    let probes = probes.await?.context("a probe failed")?;
    // The probes append events too.
    let measured = service
        .check(head, EventCount::AtLeast, load?, span)
        .await?;
    Ok((measured, probes))
}

/// The effects of updates without starts and ends.
struct Alone {
    measured: Measured,
    redis: Lags,
    history: Lags,
    statistics: Lags,
    /// Rows in the read tables and bytes of WAL, per update.
    rows: f64,
    wal: f64,
}

/// Runs the load alone, with watchers. Stops the service.
async fn update(bench: &Bench<'_>, service: RunningService<'_>) -> anyhow::Result<Alone> {
    let pool = start_readers(bench, &service).await?;
    bench.print("waiting until Postgres has counted all rows");
    tokio::time::sleep(writes::COUNT_DELAY).await;
    let mut database = PgConnection::connect(&service.env.admin_url).await?;
    let watchers = Watchers::start(&service, &pool);
    // All watchers must have read the first versions before the updates start.
    tokio::time::sleep(Duration::from_millis(500)).await;

    let rows = writes::projected_rows(&mut database).await?;
    let wal = writes::wal_position(&mut database).await?;
    let head = read::head(&service.pool).await?;
    let load = run_updates(bench, &service, pool, bench.plan.steady);
    let meter = service.meter()?;
    let load = load();
    let span = meter.stop();
    bench.print("waiting until the last positions are in history and statistics");
    service.wait_without_request(LAST_POSITIONS).await;
    // The watchers must poll once more.
    tokio::time::sleep(10 * lag::TABLE_POLL_INTERVAL).await;
    let watched = watchers.stop().await;
    let wal = writes::wal_position(&mut database).await? - wal;
    let measured = service
        .check(head, EventCount::PerCommand(1), load?, span)
        .await?;
    let [redis, history, statistics] = watched?;
    let expected = WATCHED * measured.load.successful / READERS as usize;
    let lags = async |watch: &Watch, table| watch.lags(&service.pool, table, expected).await;
    let redis = lags(&redis, Table::History).await?;
    let history = lags(&history, Table::History).await?;
    let statistics = lags(&statistics, Table::Statistics).await?;
    // Backends count the rows that they have written at the latest when they end.
    service.stop().await?;
    let rows = writes::projected_rows(&mut database).await? - rows;
    database.close().await?;
    let updates = measured.load.successful as u64;
    Ok(Alone {
        redis,
        history,
        statistics,
        rows: writes::per_update(rows, updates)?,
        wal: writes::per_update(wal, updates)?,
        measured,
    })
}

async fn start_readers(
    bench: &Bench<'_>,
    service: &RunningService<'_>,
) -> anyhow::Result<ReaderPool> {
    bench.print(&format!("{READERS} readers start one session each"));
    let pool = ReaderPool::start(service.http, READERS as usize, 100)?;
    service.wait_for_projections(Duration::from_mins(1)).await?;
    Ok(pool)
}

/// The load, which runs when it is called.
fn run_updates(
    bench: &Bench<'_>,
    service: &RunningService<'_>,
    pool: ReaderPool,
    length: Duration,
) -> impl FnOnce() -> anyhow::Result<crate::generator::Load> {
    bench.print(&format!(
        "one update per second each, {} s",
        length.as_secs()
    ));
    let address = service.http;
    move || {
        let times = u32::try_from(length.as_millis() / UPDATE_INTERVAL.as_millis())?;
        let arrivals = Arrivals {
            count: READERS * times,
            within: UPDATE_INTERVAL * times,
            max_wait: Duration::from_secs(5),
        };
        let mut share = pool.into_single_lane();
        open::run(
            address,
            &mut Updates::new(&mut share),
            READERS as usize,
            arrivals,
        )
    }
}

/// The running watchers of Redis, history and statistics.
struct Watchers {
    tasks: [JoinHandle<anyhow::Result<Watch>>; 3],
    stop: CancellationToken,
}

impl Watchers {
    fn start(service: &RunningService<'_>, pool: &ReaderPool) -> Self {
        let readers = pool.readers().step_by(READERS as usize / WATCHED);
        let watched: Vec<Watched> = readers
            .map(|reader| Watched {
                reader: reader.id,
                session: reader.session.clone(),
            })
            .collect();
        let stop = CancellationToken::new();
        let redis = lag::watch_redis(service.env.redis_url.clone(), watched.clone(), stop.clone());
        let table =
            |table| lag::watch_table(table, service.pool.clone(), watched.clone(), stop.clone());
        let (history, statistics) = (table(Table::History), table(Table::Statistics));
        Self {
            tasks: [
                tokio::spawn(redis),
                tokio::spawn(history),
                tokio::spawn(statistics),
            ],
            stop,
        }
    }

    async fn stop(self) -> anyhow::Result<[Watch; 3]> {
        self.stop.cancel();
        let [redis, history, statistics] = self.tasks;
        Ok([redis.await??, history.await??, statistics.await??])
    }
}

fn findings(with_probes: &Measured, probes: Probes, alone: &Alone, pgbench_wal: f64) -> Findings {
    let measured = &alone.measured;
    let limit = measured.span.limit(OFFERED_LOAD);
    let [p50, p99] = [50, 99].map(|percent| measured.load.percentile(percent));
    let percentiles = |p50: f64, p99: f64| format!("p50 {p50:.1} ms, p99 {p99:.1} ms");
    let count = probes.start_end.len() + probes.min_position.len();
    let (start_end, min_position) = (Lags::new(probes.start_end), Lags::new(probes.min_position));
    let longest = alone.history.max.max(alone.statistics.max) / 1_000.0;
    let wal_ratio = alone.wal / pgbench_wal;
    let window = format!("`COALESCE_WINDOW` of {COALESCE_WINDOW} s");
    let probe_limit = with_probes.span.limit(OFFERED_LOAD);
    Findings {
        rows: vec![
            Row::new(Part::Steady.title(), percentiles(p50, p99))
                .bar(Bar::Steady, p99)
                .limit(&limit),
            Row::new(
                "… from the log to Redis",
                percentiles(alone.redis.p50, alone.redis.p99),
            )
            .bar(Bar::SteadyRedis, alone.redis.p99)
            .limit(&limit),
            Row::new(
                "… rows that all projections write per update",
                format!("{:.2}", alone.rows),
            )
            .bar(Bar::SteadyRows, alone.rows)
            .limit(&window),
            Row::new(
                "… WAL per update",
                format!("{:.0} bytes", alone.wal),
            )
            .reference(format!("pgbench, one row {pgbench_wal:.0} bytes"), wal_ratio)
            .bar(Bar::SteadyWal, wal_ratio)
            .limit("rows and indexes"),
            Row::new(
                "… a position in history and statistics",
                format!(
                    "at most {longest:.1} s (p50 {:.1} s, {:.1} s)",
                    alone.history.p50 / 1_000.0,
                    alone.statistics.p50 / 1_000.0
                ),
            )
            .bar(Bar::Position, longest)
            .limit(&window),
            Row::new(
                "… a start or an end in the history",
                percentiles(start_end.p50, start_end.p99),
            )
            .bar(Bar::StartEnd, start_end.p99)
            .limit(&probe_limit),
            Row::new(
                "… a position with `min_position`, in history or statistics",
                percentiles(min_position.p50, min_position.p99),
            )
            .bar(Bar::MinPosition, min_position.p99)
            .limit(&probe_limit),
        ],
        sections: vec![(
            "One update per second".to_owned(),
            format!(
                "{LOAD_TABLE_HEADER}{}{}",
                load_row("1,000 readers", measured),
                load_row("1,000 readers, and probes", with_probes)
            ),
        )],
        spans: vec![
            ("steady: 1,000 readers".to_owned(), measured.span.clone()),
            (
                "steady: 1,000 readers, and probes".to_owned(),
                with_probes.span.clone(),
            ),
        ],
        conditions: vec![
            format!(
                "One update per second: an open loop in which each of {READERS} readers sends an \
                 update every {:.2} s over its own connection. The send times are fixed in advance \
                 and spread evenly. Latency counts from the planned send time.",
                UPDATE_INTERVAL.as_secs_f64()
            ),
            format!(
                "Lags: {WATCHED} of the sessions are read every {} ms from Redis and every {} ms from \
                 the tables of history and statistics. The lag is the time from an event's \
                 `recorded_at` in the log, which is before its commit, until this version or a newer \
                 one is found.",
                lag::REDIS_POLL_INTERVAL.as_millis(),
                lag::TABLE_POLL_INTERVAL.as_millis()
            ),
            "Rows that all projections write: inserts, updates and deletes in all tables of the \
             schema `read` (`pg_stat_user_tables`), divided by the acknowledged updates. Starts are \
             not included."
                .to_owned(),
            "WAL: the distance that `pg_current_wal_insert_lsn` moves, from the first update until \
             the last position is in the tables. No checkpoint occurs between the start of the part \
             and its end. pgbench inserts into an empty table, also without a checkpoint."
                .to_owned(),
            format!(
                "Starts, ends and `min_position`: measured by {count} probes of new readers, during \
                 another {:.0} s of the same load. A probe polls the history every {} ms.",
                with_probes.span.length.as_secs_f64(),
                probes::POLL_INTERVAL.as_millis()
            ),
        ],
        ..Findings::default()
    }
}
