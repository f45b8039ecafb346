//! Normal load: a thousand readers send one update per second each in an open loop.
//! Measures the latency, and how far Redis and the history lag behind the log.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio_util::sync::CancellationToken;

use crate::generator::open::{self, Arrivals};
use crate::generator::reader_pool::ReaderPool;
use crate::generator::scripts::Updates;
use crate::lag::{self, Watched};
use crate::report::{Findings, LOAD_TABLE_HEADER, Row, load_row};
use crate::service::{EventCount, RunningService};
use crate::{Bench, Part};

/// Readers. Each has its own connection.
const READERS: u32 = 1_000;

/// Time between two updates of a reader. Slightly more than a second, because the rate
/// limit allows 60 per minute.
const UPDATE_INTERVAL: Duration = Duration::from_millis(1_020);

/// Readers whose sessions are watched for lags.
const WATCHED: usize = 20;

/// Limits of the p99, in milliseconds.
const LATENCY_TARGET: f64 = 10.0;
const REDIS_TARGET: f64 = 50.0;
const TABLE_TARGET: f64 = 300.0;

/// Limit of the rows that the history writes per update.
const WRITES_TARGET: f64 = 0.1;

pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let service = RunningService::new(bench.servers, Part::Steady).await?;
    bench.print(&format!("{READERS} readers start one session each"));
    let pool = ReaderPool::start(service.http, READERS as usize, 100)?;
    service.wait_for_projections(Duration::from_mins(1)).await?;

    let stop = CancellationToken::new();
    let watched = || {
        let readers = pool.readers().step_by(READERS as usize / WATCHED);
        readers
            .map(|reader| Watched {
                reader: reader.id,
                session: reader.session.clone(),
            })
            .collect()
    };
    let redis = lag::watch_redis(service.env.redis_url.clone(), watched(), stop.clone());
    let table = lag::watch_table(service.pool.clone(), watched(), stop.clone());
    let (redis, table) = (tokio::spawn(redis), tokio::spawn(table));
    // Both watchers must have read the first versions before the updates start.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut share = pool.into_single_lane();

    let length = bench.plan.steady;
    bench.print(&format!(
        "one update per second each, {} s",
        length.as_secs()
    ));
    let times = u32::try_from(length.as_millis() / UPDATE_INTERVAL.as_millis())?;
    let arrivals = Arrivals {
        count: READERS * times,
        within: UPDATE_INTERVAL * times,
        max_wait: Duration::from_secs(5),
    };
    let load = async || {
        let mut script = Updates::new(&mut share);
        open::run(service.http, &mut script, READERS as usize, arrivals)
    };
    let measured = service.measure(EventCount::PerCommand(1), load).await;
    stop.cancel();
    let (in_redis, in_table) = (redis.await??, table.await??);
    let measured = measured?;
    let in_redis = lag::lags(&service.pool, in_redis).await?;
    let in_table = lag::lags(&service.pool, in_table).await?;
    let expected = WATCHED * times as usize;
    for lags in [&in_redis, &in_table] {
        ensure!(
            lags.count == expected,
            "the watcher has seen {} of {expected} updates",
            lags.count
        );
    }
    let writes = row_writes(bench, service).await?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 updates")]
    let writes = writes as f64 / measured.load.successful as f64;

    let [p50, p99] = [50, 99].map(|percent| measured.load.percentile(percent));
    let lag_row = |what: &str, lags: &lag::Lags, target| {
        Row::new(
            what,
            format!("p50 {:.1} ms, p99 {:.1} ms", lags.p50, lags.p99),
        )
        .at_most(lags.p99, target, "ms")
    };
    Ok(Findings {
        rows: vec![
            Row::new(
                Part::Steady.title(),
                format!("p50 {p50:.1} ms, p99 {p99:.1} ms"),
            )
            .at_most(p99, LATENCY_TARGET, "ms"),
            lag_row("… from the log to Redis", &in_redis, REDIS_TARGET),
            lag_row("… from the log to the history", &in_table, TABLE_TARGET),
            Row::new(
                "… rows that the history writes per update",
                format!("{writes:.2}"),
            )
            .at_most(writes, WRITES_TARGET, ""),
        ],
        sections: vec![(
            "One update per second".to_owned(),
            format!("{LOAD_TABLE_HEADER}{}", load_row("1,000 readers", &measured)),
        )],
        conditions: vec![
            format!(
                "One update per second: an open loop in which each of {READERS} readers sends an \
                 update every {:.2} s over its own connection. The send times are fixed in advance \
                 and spread evenly. Latency counts from the planned send time.",
                UPDATE_INTERVAL.as_secs_f64()
            ),
            format!(
                "Lags: {WATCHED} of the sessions are read every {} ms from Redis and every {} ms from \
                 the history. The lag is the time from an event's `recorded_at` in the log, which is \
                 before its commit, until this version or a newer one is found.",
                lag::REDIS_POLL_INTERVAL.as_millis(),
                lag::TABLE_POLL_INTERVAL.as_millis()
            ),
            "Rows that the history writes: `n_tup_upd` of the partitions of `read.history` divided \
             by the acknowledged updates. The inserts belong to the starts."
                .to_owned(),
        ],
        ..Findings::default()
    })
}

/// Row updates in the history. Backends report their statistics at the latest when they
/// end, so this stops the service first.
async fn row_writes(bench: &Bench<'_>, service: RunningService<'_>) -> anyhow::Result<i64> {
    let url = service.env.database_url.clone();
    service.stop().await?;
    let pool = sqlx::PgPool::connect(&url).await?;
    let (inserted, updated): (i64, i64) = sqlx::query_as(
        "select sum(n_tup_ins)::bigint, sum(n_tup_upd)::bigint from pg_stat_user_tables
        where relid in (select inhrelid from pg_inherits where inhparent = 'read.history'::regclass)",
    )
    .fetch_one(&pool)
    .await
    .context("reading pg_stat_user_tables failed")?;
    pool.close().await;
    ensure!(
        inserted == i64::from(READERS),
        "the history has {inserted} rows for {READERS} sessions"
    );
    bench.print(&format!("the history has updated {updated} rows"));
    Ok(updated)
}
