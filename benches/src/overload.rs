//! Overload: an open loop of five times as many updates as the service can process. The
//! service must reject the excess quickly, keep serving the rest, and recover soon
//! afterwards.

use std::time::{Duration, Instant};

use crate::bars::Bar;
use crate::generator::open::{self, Arrivals};
use crate::generator::percentile;
use crate::generator::reader_pool::{ReaderPool, ThreadShare};
use crate::generator::scripts::Updates;
use crate::limits::OFFERED_LOAD;
use crate::report::{Findings, LOAD_TABLE_HEADER, Row, load_row, megabytes, percent};
use crate::service::{self, EventCount, RunningService};
use crate::{Bench, CONNECTIONS, Part, rounds};

/// Offered load as a multiple of the capacity.
const LOAD_FACTOR: f64 = 5.0;

/// More connections than requests that the service processes at the same time, so that
/// it must reject some, but fewer than it accepts.
const OPEN_CONNECTIONS: usize = 6_000;

/// The service accepts the connections of the generator. By default, one address may have
/// a quarter of all connections.
const ONE_ADDRESS: (&str, &str) = ("HTTP_CONNECTIONS_PER_ADDRESS", "10000");

/// Longest wait of an update for a free connection. After that, it is not sent.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Updates per second of a probe, which detects the recovery.
const PROBE_RATE: u32 = 200;

const PROBE_LENGTH: Duration = Duration::from_millis(500);

/// The service has recovered if all updates of a probe succeed and their p99 is at
/// most this, in milliseconds.
const NORMAL_MS: f64 = 50.0;

/// Longest wait for the recovery.
const RECOVERY_TIMEOUT: Duration = Duration::from_mins(1);

pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let env = service::create_env(bench.servers, Part::Overload).await?;
    let service = RunningService::start_with(bench.servers, env, &[ONE_ADDRESS]).await?;
    bench.print(&format!("{} readers start one session each", bench.readers));
    let mut pool = ReaderPool::start(service.http, bench.readers, CONNECTIONS)?;
    service.wait_for_projections(Duration::from_mins(1)).await?;
    let capacity = if let Some(capacity) = bench.capacity {
        capacity
    } else {
        bench.print("measuring the capacity");
        rounds::capacity(&service, &mut pool, bench.plan.length).await?
    };
    let mut share = pool.into_single_lane();

    let length = bench.plan.overload;
    bench.print(&format!(
        "{LOAD_FACTOR} times {capacity:.0} updates per second, {} s",
        length.as_secs()
    ));
    let mut recovered = Duration::ZERO;
    let overload = arrivals(LOAD_FACTOR * capacity, length);
    let load = async || {
        let mut script = Updates::new(&mut share);
        let load = open::run(service.http, &mut script, OPEN_CONNECTIONS, overload)?;
        bench.print("waiting for the recovery");
        recovered = recovery_time(&service, &mut share, Instant::now())?;
        Ok(load)
    };
    let measured = service.measure(EventCount::AtLeast, load).await?;
    service.stop().await?;

    let load = &measured.load;
    let limit = measured.span.limit(OFFERED_LOAD);
    let offered = f64::from(overload.count) / length.as_secs_f64();
    let served = load.rate();
    let rejected = percentile(&load.rejection_latencies, 99);
    let unsent = percent(load.unsent as u64, load.offered as u64);
    let memory = megabytes(measured.resident);
    let recovered = recovered.as_secs_f64();
    let text = format!(
        "Of {} updates in {:.1} s, {} were served and {} were rejected with 429 or 503. {} found no \
         free connection, and {} received no response. Latency of served updates: p50 {:.0} ms, p95 \
         {:.0} ms, p99 {:.0} ms. Latency of rejections: p50 {:.0} ms, p99 {rejected:.0} \
         ms.\n\n{LOAD_TABLE_HEADER}{}",
        load.offered,
        load.elapsed.as_secs_f64(),
        load.successful,
        load.rejected,
        load.unsent,
        load.failed,
        load.percentile(50),
        load.percentile(95),
        load.percentile(99),
        percentile(&load.rejection_latencies, 50),
        load_row("overload", &measured)
    );
    Ok(Findings {
        rows: vec![
            Row::new(
                format!("{} ({offered:.0}/s), served", Part::Overload.title()),
                format!("{served:.0}/s"),
            )
            .reference(format!("capacity {capacity:.0}/s"), served / capacity)
            .bar(Bar::OverloadServed, served / capacity)
            .limit(&limit),
            Row::new(
                "… updates that found no free connection",
                format!("{unsent:.0} %"),
            )
            .limit(&limit),
            Row::new(
                "… p99 of rejections (429, 503)",
                format!("{rejected:.0} ms"),
            )
            .bar(Bar::OverloadRejections, rejected)
            .limit(&limit),
            Row::new(
                "… peak resident memory of the service",
                format!("{memory:.0} MB"),
            )
            .bar(Bar::OverloadMemory, memory)
            .limit("memory"),
            Row::new(
                "… until latency is normal after the overload",
                format!("{recovered:.1} s"),
            )
            .bar(Bar::OverloadRecovery, recovered)
            .limit(&limit),
        ],
        sections: vec![("Overload".to_owned(), text)],
        spans: vec![(
            "overload, and its recovery".to_owned(),
            measured.span.clone(),
        )],
        conditions: vec![format!(
            "Overload: an open loop of {LOAD_FACTOR} times the updates per second of the closed loop, \
             over {OPEN_CONNECTIONS} connections, from one generator thread on the same cores. `{}` is \
             {}, because all connections come from one address. An update that finds no free connection within {} ms is not sent. Latency is normal if \
             {PROBE_RATE} updates per second succeed for {:.1} s with p99 ≤ {NORMAL_MS} ms.",
            ONE_ADDRESS.0,
            ONE_ADDRESS.1,
            MAX_WAIT.as_millis(),
            PROBE_LENGTH.as_secs_f64()
        )],
        ..Findings::default()
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "far below 2^32, and positive"
)]
fn arrivals(rate: f64, within: Duration) -> Arrivals {
    Arrivals {
        count: (rate * within.as_secs_f64()) as u32,
        within,
        max_wait: MAX_WAIT,
    }
}

/// The time from the end of the overload to the start of the first normal probe.
fn recovery_time(
    service: &RunningService<'_>,
    share: &mut ThreadShare,
    end: Instant,
) -> anyhow::Result<Duration> {
    loop {
        let elapsed = end.elapsed();
        let mut script = Updates::new(share);
        let load = open::run(
            service.http,
            &mut script,
            50,
            arrivals(f64::from(PROBE_RATE), PROBE_LENGTH),
        )?;
        let is_normal = load.errors() == 0 && load.percentile(99) <= NORMAL_MS;
        if is_normal || elapsed > RECOVERY_TIMEOUT {
            return Ok(elapsed);
        }
    }
}
