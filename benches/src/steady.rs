//! What readers feel on a usual day: a thousand of them, an update a second
//! each, in an open loop, and how far behind the log what they read is.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio_util::sync::CancellationToken;

use crate::generator::crowd::Crowd;
use crate::generator::open::{self, Arrivals};
use crate::generator::scripts::Updates;
use crate::lag::{self, Watched};
use crate::report::{Findings, LOADS, Row, load_line};
use crate::service::{Events, Running};
use crate::{Bench, Part};

/// Readers, each on a connection of their own.
const READERS: u32 = 1_000;

/// Between two updates of a reader; somewhat more than a second, since they may
/// make 60 a minute.
const PACE: Duration = Duration::from_millis(1_020);

/// Readers whose sessions are watched.
const WATCHED: usize = 20;

/// The bars, in milliseconds.
const LATENCY_BAR: f64 = 10.0;
const REDIS_BAR: f64 = 50.0;
const TABLE_BAR: f64 = 300.0;

/// The bar for rows that the history writes for each update.
const WRITES_BAR: f64 = 0.1;

/// Measures latency, lags and row writes.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let service = Running::new(bench.servers, Part::Steady).await?;
    bench.say(&format!("{READERS} readers start a session each"));
    let crowd = Crowd::start(service.http, READERS as usize, 100)?;
    service.caught_up(Duration::from_mins(1)).await?;

    let stop = CancellationToken::new();
    let watched = || {
        let members = crowd.members().step_by(READERS as usize / WATCHED);
        members
            .map(|member| Watched {
                reader: member.reader,
                session: member.session.clone(),
            })
            .collect()
    };
    let redis = lag::in_redis(service.env.redis_url.clone(), watched(), stop.clone());
    let table = lag::in_table(service.pool.clone(), watched(), stop.clone());
    let (redis, table) = (tokio::spawn(redis), tokio::spawn(table));
    // They have to have looked once before anything moves.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut share = crowd.in_one_lane();

    let length = bench.plan.steady;
    bench.say(&format!("an update a second each, {} s", length.as_secs()));
    let times = u32::try_from(length.as_millis() / PACE.as_millis())?;
    let arrivals = Arrivals {
        count: READERS * times,
        within: PACE * times,
        patience: Duration::from_secs(5),
    };
    let load = async || {
        let mut script = Updates::of(&mut share);
        open::run(service.http, &mut script, READERS as usize, arrivals)
    };
    let measured = service.measure(Events::Each(1), load).await;
    stop.cancel();
    let (in_redis, in_table) = (redis.await??, table.await??);
    let measured = measured?;
    let in_redis = lag::lags(&service.pool, in_redis).await?;
    let in_table = lag::lags(&service.pool, in_table).await?;
    let wanted = WATCHED * times as usize;
    for lags in [&in_redis, &in_table] {
        ensure!(
            lags.count == wanted,
            "{} of {wanted} updates were seen",
            lags.count
        );
    }
    let writes = row_writes(bench, service).await?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 updates")]
    let writes = writes as f64 / measured.load.good as f64;

    let [p50, p99] = [50, 99].map(|percent| measured.load.percentile(percent));
    let lag_row = |what: &str, lags: &lag::Lags, bar| {
        Row::new(
            what,
            format!("p50 {:.1} ms, p99 {:.1} ms", lags.p50, lags.p99),
        )
        .at_most(lags.p99, bar, "ms")
    };
    Ok(Findings {
        rows: vec![
            Row::new(
                Part::Steady.title(),
                format!("p50 {p50:.1} ms, p99 {p99:.1} ms"),
            )
            .at_most(p99, LATENCY_BAR, "ms"),
            lag_row("… from the log to Redis", &in_redis, REDIS_BAR),
            lag_row("… from the log to the history", &in_table, TABLE_BAR),
            Row::new(
                "… rows that the history writes for an update",
                format!("{writes:.2}"),
            )
            .at_most(writes, WRITES_BAR, ""),
        ],
        chapters: vec![(
            "An update a second".to_owned(),
            format!("{LOADS}{}", load_line("1,000 readers", &measured)),
        )],
        conditions: vec![
            format!(
                "An update a second: an open loop, an update every {:.2} s of each of {READERS} \
                 readers on a connection each, at times fixed before and spread evenly; latency is \
                 measured from the time at which an update was to be sent.",
                PACE.as_secs_f64()
            ),
            format!(
                "Lags: {WATCHED} of the sessions are looked up every {} ms in Redis and every {} ms \
                 in the history; told is the time from an event's row in the log (`recorded_at`, \
                 before its commit) until its version, or a newer one, was seen there.",
                lag::REDIS_PAUSE.as_millis(),
                lag::TABLE_PAUSE.as_millis()
            ),
            "Rows that the history writes: `n_tup_upd` of the partitions of `read.history` over the \
             updates acknowledged; the inserts are those of the starts."
                .to_owned(),
        ],
        ..Findings::default()
    })
}

/// Updates of rows in the history so far. Backends tell the statistics what they
/// did at the latest when they end, so the service does first.
async fn row_writes(bench: &Bench<'_>, service: Running<'_>) -> anyhow::Result<i64> {
    let url = service.env.database_url.clone();
    service.stop().await?;
    let pool = sqlx::PgPool::connect(&url).await?;
    let (inserted, updated): (i64, i64) = sqlx::query_as(
        "select sum(n_tup_ins)::bigint, sum(n_tup_upd)::bigint from pg_stat_user_tables
        where relid in (select inhrelid from pg_inherits where inhparent = 'read.history'::regclass)",
    )
    .fetch_one(&pool)
    .await
    .context("Postgres does not tell what it wrote")?;
    pool.close().await;
    ensure!(
        inserted == i64::from(READERS),
        "{inserted} rows of {READERS} sessions"
    );
    bench.say(&format!("{updated} rows were updated in the history"));
    Ok(updated)
}
