//! A replay of the history from a large log, then a warm-up of the cache with all its
//! sessions, both with the command line. After that, the time until the service is
//! ready on that log.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dev_servers::Servers;
use sqlx::{Connection, PgConnection};
use tests::process;
use tests::stack::TestEnv;

use crate::bars::Bar;
use crate::generator::per_second;
use crate::report::{Findings, Row, median, megabytes};
use crate::service::{self, RunningService};
use crate::usage::{Meter, Span};
use crate::{Bench, Part, fill, usage};

/// Events of each session. The events of 20,000 sessions alternate in the log.
const EVENTS_PER_SESSION: u32 = 50;

/// Measured starts of the service.
const STARTS: usize = 3;

/// The limit of a replay or a warm-up on idle cores: each step waits for the one before.
const ONE_STREAM: &str = "one stream of batches";

/// Longest time of a replay or a warm-up.
const TIMEOUT: Duration = Duration::from_mins(5);

/// Interval at which the memory of the replay is read.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let one_row = bench.one_row().await?;
    let env = service::create_env(bench.servers, Part::Replay).await?;
    let sessions = bench.plan.replayed / EVENTS_PER_SESSION;
    let events = sessions * EVENTS_PER_SESSION;
    bench.print(&format!("filling a log of {events} events"));
    let mut connection = PgConnection::connect(&env.admin_url).await?;
    fill::sessions(&mut connection, "replay", sessions, EVENTS_PER_SESSION).await?;
    sqlx::query("vacuum analyze events")
        .execute(&mut connection)
        .await?;

    bench.print("replaying the history");
    let meter = Meter::with_children(service::server_pids(bench.servers)?, "service");
    let (took, resident) = replay(&env).await?;
    let replay_span = meter.stop();
    let replayed: i64 = sqlx::query_scalar("select sum(version)::bigint from read.history")
        .fetch_one(&mut connection)
        .await?;
    ensure!(
        replayed == i64::from(events),
        "the history has {replayed} of {events} events"
    );
    bench.print("warming up an empty cache");
    let (warm_up, warm_up_span) = warm_up(bench.servers, &env, &mut connection, sessions).await?;
    connection.close().await?;
    bench.print("starting the service");
    let mut ready = Vec::new();
    let meter = Meter::with_children(service::server_pids(bench.servers)?, "service");
    for _ in 0..STARTS {
        let service = RunningService::start(bench.servers, env.clone()).await?;
        ready.push(service.ready_after().as_secs_f64());
        service.stop().await?;
    }

    let ready_span = meter.stop();
    let rate = per_second(events as usize, took);
    let (memory, warmed) = (megabytes(resident), per_second(sessions as usize, warm_up));
    let ready = median(ready);
    Ok(Findings {
        rows: vec![
            Row::new(
                format!("{}, {events} events", Part::Replay.title()),
                format!("{rate:.0}/s"),
            )
            .reference(format!("pgbench, one row {one_row:.0}/s"), rate / one_row)
            .bar(Bar::Replay, rate / one_row)
            .limit(replay_span.limit(ONE_STREAM)),
            Row::new(
                "… peak resident memory of the replay",
                format!("{memory:.0} MB"),
            )
            .bar(Bar::ReplayMemory, memory)
            .limit("memory"),
            Row::new(
                format!("warm-up of an empty cache, {sessions} active sessions"),
                format!("{:.1} s, {warmed:.0}/s", warm_up.as_secs_f64()),
            )
            .bar(Bar::WarmUp, warmed)
            .limit(warm_up_span.limit(ONE_STREAM)),
            Row::new(
                format!("start until ready, {events} events in the log"),
                format!("{ready:.2} s"),
            )
            .bar(Bar::Ready, ready)
            .limit(ready_span.limit("connecting to the servers")),
        ],
        spans: vec![
            ("replay".to_owned(), replay_span),
            ("warm-up".to_owned(), warm_up_span),
            ("start until ready, and stop".to_owned(), ready_span),
        ],
        conditions: vec![
            format!(
                "Replay: `reading-sessions replay history`, from the start of the process to its end. \
                 The sessions have {EVENTS_PER_SESSION} events each, and the events of 20,000 sessions \
                 alternate."
            ),
            "Warm-up: `reading-sessions warm-up` with the sessions of the same log, measured in the \
             same way."
                .to_owned(),
            format!(
                "Readiness: from the start of the process until `/readyz` returns 200, polled every \
                 20 ms. The figure is the median of {STARTS} starts on that log. The stream is empty at \
                 the first start."
            ),
        ],
        ..Findings::default()
    })
}

/// Runs a replay. Returns its time and its peak resident memory in bytes.
async fn replay(env: &TestEnv) -> anyhow::Result<(Duration, u64)> {
    let started = Instant::now();
    let mut child = process::plain_command(&crate::executable()?, env)
        .args(["replay", "history"])
        .spawn()?;
    let pid = child.id().context("the replay is not running")?;
    let mut resident = 0;
    let status = loop {
        resident = usage::peak_resident(pid).unwrap_or(0).max(resident);
        if let Ok(status) = tokio::time::timeout(POLL_INTERVAL, child.wait()).await {
            break status?;
        }
        ensure!(
            started.elapsed() < TIMEOUT,
            "the replay did not end within {TIMEOUT:?}"
        );
    };
    ensure!(status.success(), "the replay failed");
    Ok((started.elapsed(), resident))
}

/// Makes all sessions active and fills an empty cache with them.
async fn warm_up(
    servers: &Servers,
    env: &TestEnv,
    connection: &mut PgConnection,
    sessions: u32,
) -> anyhow::Result<(Duration, Span)> {
    let active = fill::claim_sessions(connection, 0).await?.len();
    ensure!(
        active == sessions as usize,
        "{active} of {sessions} sessions are active"
    );
    let meter = Meter::with_children(service::server_pids(servers)?, "service");
    let took = run_warm_up(env).await?;
    let span = meter.stop();
    let redis = redis::Client::open(env.redis_url.as_str())?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    let entries: usize = redis::cmd("DBSIZE").query_async(&mut redis).await?;
    // One entry per session, and the checkpoint.
    ensure!(
        entries == active + 1,
        "the cache has {entries} entries for {active} sessions"
    );
    Ok((took, span))
}

/// Runs `reading-sessions warm-up`. Returns its time.
pub async fn run_warm_up(env: &TestEnv) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let warm_up = process::plain_command(&crate::executable()?, env)
        .arg("warm-up")
        .status();
    let status = tokio::time::timeout(TIMEOUT, warm_up).await;
    let status =
        status.with_context(|| format!("the warm-up did not end within {TIMEOUT:?}"))??;
    ensure!(status.success(), "the warm-up failed");
    Ok(started.elapsed())
}
