//! Far more than the service can do: five times as many updates, in an open
//! loop, whether they are answered or not. It refuses what it cannot do, at once,
//! and goes on doing what it can; afterwards it is as before.

use std::time::{Duration, Instant};

use crate::generator::crowd::{Crowd, Share};
use crate::generator::open::{self, Arrivals};
use crate::generator::percentile;
use crate::generator::scripts::Updates;
use crate::report::{Findings, LOADS, Row, load_line, megabytes, percent};
use crate::service::{Events, Running};
use crate::{Bench, CONNECTIONS, Part, rounds};

/// What is offered, in times of what the service does at most.
const TIMES: f64 = 5.0;

/// Connections. More than the requests that the service works on at the same
/// time, so that it must refuse; fewer than those that it accepts.
const LINES: usize = 6_000;

/// An arrival that finds no connection free for so long is not sent.
const PATIENCE: Duration = Duration::from_millis(100);

/// The least that it must go on serving, over its capacity: refusing and offering
/// take their part of the same cores.
const SERVED_BAR: f64 = 0.5;

/// The most that refusals may take, in milliseconds.
const REFUSED_BAR: f64 = 1_000.0;

/// The most that may be resident, in megabytes: twice that of a saturated run.
const MEMORY_BAR: f64 = 400.0;

/// How soon all must be as before, in seconds.
const RECOVERED_BAR: f64 = 5.0;

/// The quiet load by which that is told: so many a second, for so long, all good
/// and within this latency.
const QUIET: u32 = 200;
const LOOK: Duration = Duration::from_millis(500);
const NORMAL_MS: f64 = 50.0;

/// How long that is waited for.
const RECOVERY: Duration = Duration::from_mins(1);

/// Measures the wave and what comes after it.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let service = Running::new(bench.servers, Part::Overload).await?;
    bench.say(&format!("{} readers start a session each", bench.readers));
    let mut crowd = Crowd::start(service.http, bench.readers, CONNECTIONS)?;
    service.caught_up(Duration::from_mins(1)).await?;
    let capacity = if let Some(capacity) = bench.capacity {
        capacity
    } else {
        bench.say("what the service does at most");
        rounds::capacity(&service, &mut crowd, bench.plan.length).await?
    };
    let mut share = crowd.in_one_lane();

    let length = bench.plan.overload;
    bench.say(&format!(
        "{TIMES} times {capacity:.0} updates a second, {} s",
        length.as_secs()
    ));
    let mut recovered = Duration::ZERO;
    let wave = arrivals(TIMES * capacity, length);
    let load = async || {
        let load = open::run(service.http, &mut Updates::of(&mut share), LINES, wave)?;
        bench.say("the wave is over");
        let over = Instant::now();
        recovered = recovery(&service, &mut share, over)?;
        Ok(load)
    };
    let measured = service.measure(Events::AtLeast, load).await?;
    service.stop().await?;

    let load = &measured.load;
    let offered = f64::from(wave.count) / length.as_secs_f64();
    let served = load.rate();
    let refused = percentile(&load.refusals, 99);
    let unsent = percent(load.unsent as u64, load.offered as u64);
    let memory = megabytes(measured.resident);
    let recovered = recovered.as_secs_f64();
    let text = format!(
        "Of {} updates in {:.1} s, {} were served, {} refused with 429 or 503, and {} found no \
         free connection, and {} no answer. Latency of the served: p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms; \
         of the refused: p50 {:.0} ms, p99 {refused:.0} ms.\n\n{LOADS}{}",
        load.offered,
        load.took.as_secs_f64(),
        load.good,
        load.refused,
        load.unsent,
        load.failed,
        load.percentile(50),
        load.percentile(95),
        load.percentile(99),
        percentile(&load.refusals, 50),
        load_line("overload", &measured)
    );
    Ok(Findings {
        rows: vec![
            Row::new(
                format!("{} ({offered:.0}/s), served", Part::Overload.title()),
                format!("{served:.0}/s"),
            )
            .beside(format!("its capacity {capacity:.0}/s"), served / capacity)
            .at_least(served / capacity, SERVED_BAR, ""),
            Row::new(
                "… found no free connection, of all offered",
                format!("{unsent:.0} %"),
            ),
            Row::new("… p99 of refusals (429, 503)", format!("{refused:.0} ms")).at_most(
                refused,
                REFUSED_BAR,
                "ms",
            ),
            Row::new(
                "… resident memory of the service, peak",
                format!("{memory:.0} MB"),
            )
            .at_most(memory, MEMORY_BAR, "MB"),
            Row::new(
                "… until latency is as before, after the wave",
                format!("{recovered:.1} s"),
            )
            .at_most(recovered, RECOVERED_BAR, "s"),
        ],
        chapters: vec![("Overload".to_owned(), text)],
        conditions: vec![format!(
            "Overload: an open loop of {TIMES} times the updates a second that the closed loop came \
             to, over {LINES} connections, by one thread of the generator on the same two cores; an \
             update that finds no connection free within {} ms is not sent. As before: {QUIET} \
             updates a second for {:.1} s, all good, p99 ≤ {NORMAL_MS} ms.",
            PATIENCE.as_millis(),
            LOOK.as_secs_f64()
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
        patience: PATIENCE,
    }
}

/// From the end of the wave to the first look at which all was normal.
fn recovery(service: &Running<'_>, share: &mut Share, over: Instant) -> anyhow::Result<Duration> {
    loop {
        let begun = over.elapsed();
        let mut script = Updates::of(share);
        let load = open::run(
            service.http,
            &mut script,
            50,
            arrivals(f64::from(QUIET), LOOK),
        )?;
        let is_normal = load.errors() == 0 && load.percentile(99) <= NORMAL_MS;
        if is_normal || begun > RECOVERY {
            return Ok(begun);
        }
    }
}
