//! A replay of the history from a log of its own size, then a warm-up of the
//! cache with all of its sessions, as operators run them, and then how long the
//! service takes until it is ready, with that log.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sqlx::{Connection, PgConnection};
use tests::process;
use tests::stack::TestEnv;

use crate::generator::per_second;
use crate::report::{Findings, Row, median, megabytes};
use crate::service::{self, Running};
use crate::{Bench, Part, fill, usage};

/// The events of each session. Twenty thousand sessions are read at the same
/// time: their events alternate in the log.
const EVENTS_EACH: u32 = 50;

/// The bars for a replay: events over pgbench's one-row rate, and megabytes.
const REPLAY_BAR: f64 = 15.0;
const MEMORY_BAR: f64 = 300.0;

/// The bar for a warm-up, in sessions a second: 100,000 in ten seconds.
const WARM_UP_BAR: f64 = 10_000.0;

/// The bar for readiness, in seconds.
const READY_BAR: f64 = 1.0;

/// How often readiness is measured.
const STARTS: usize = 3;

/// How long a replay or a warm-up may take.
const LONGEST: Duration = Duration::from_mins(5);

/// How often the memory of the replay is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Measures all of it on one log.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let one_row = bench.one_row().await?;
    let env = service::env(bench.servers, Part::Replay).await?;
    let sessions = bench.plan.replayed / EVENTS_EACH;
    let events = sessions * EVENTS_EACH;
    bench.say(&format!("a log of {events} events is filled"));
    let mut connection = PgConnection::connect(&env.database_url).await?;
    fill::sessions(&mut connection, "replay", sessions, EVENTS_EACH).await?;
    sqlx::query("vacuum analyze events")
        .execute(&mut connection)
        .await?;

    bench.say("the history is replayed from it");
    let (took, resident) = replay(&env).await?;
    let replayed: i64 = sqlx::query_scalar("select sum(version)::bigint from read.history")
        .fetch_one(&mut connection)
        .await?;
    ensure!(
        replayed == i64::from(events),
        "the history has {replayed} of {events} events"
    );
    bench.say("an empty cache is warmed up");
    let warm_up = warm_up(&env, &mut connection, sessions).await?;
    connection.close().await?;
    bench.say("the service starts on it");
    let mut ready = Vec::new();
    for _ in 0..STARTS {
        let service = Running::start(bench.servers, env.clone()).await?;
        ready.push(service.ready_after().as_secs_f64());
        service.stop().await?;
    }

    let rate = per_second(events as usize, took);
    let (memory, warmed) = (megabytes(resident), per_second(sessions as usize, warm_up));
    let ready = median(ready);
    Ok(Findings {
        rows: vec![
            Row::new(
                format!("{}, {events} events", Part::Replay.title()),
                format!("{rate:.0}/s"),
            )
            .beside(format!("pgbench one row {one_row:.0}/s"), rate / one_row)
            .at_least(rate / one_row, REPLAY_BAR, ""),
            Row::new(
                "… resident memory of the replay, peak",
                format!("{memory:.0} MB"),
            )
            .at_most(memory, MEMORY_BAR, "MB"),
            Row::new(
                format!("warm-up of an empty cache, {sessions} active sessions"),
                format!("{:.1} s, {warmed:.0}/s", warm_up.as_secs_f64()),
            )
            .at_least(warmed, WARM_UP_BAR, "/s"),
            Row::new(
                format!("ready after its start, {events} events in the log"),
                format!("{ready:.2} s"),
            )
            .at_most(ready, READY_BAR, "s"),
        ],
        conditions: vec![
            format!(
                "The replay: `reading-sessions replay history` as operators run it, from the start \
                 of the process to its end; {EVENTS_EACH} events a session, of 20,000 sessions in \
                 turn."
            ),
            "The warm-up: `reading-sessions warmup` in the same way, of that log's sessions."
                .to_owned(),
            format!(
                "Readiness: from the start of the process until `/readyz` answers 200, asked every \
                 20 ms; the median of {STARTS} starts on that log, none of which is in the stream \
                 yet."
            ),
        ],
        ..Findings::default()
    })
}

/// Replays; returns how long it took and the most memory that it had resident.
async fn replay(env: &TestEnv) -> anyhow::Result<(Duration, u64)> {
    let started = Instant::now();
    let mut child = process::plain_command(&crate::executable()?, env)
        .args(["replay", "history"])
        .spawn()?;
    let pid = child.id().context("the replay does not run")?;
    let mut resident = 0;
    let status = loop {
        resident = usage::peak_resident(pid).unwrap_or(0).max(resident);
        if let Ok(status) = tokio::time::timeout(LOOK, child.wait()).await {
            break status?;
        }
        ensure!(started.elapsed() < LONGEST, "the replay takes too long");
    };
    ensure!(status.success(), "the replay failed");
    Ok((started.elapsed(), resident))
}

/// Has all sessions be active, and fills an empty cache with them.
async fn warm_up(
    env: &TestEnv,
    connection: &mut PgConnection,
    sessions: u32,
) -> anyhow::Result<Duration> {
    let claimed = fill::claim(connection, 0).await?.len();
    ensure!(
        claimed == sessions as usize,
        "{claimed} of {sessions} sessions are active"
    );
    let started = Instant::now();
    let warm_up = process::plain_command(&crate::executable()?, env)
        .arg("warmup")
        .status();
    let status = tokio::time::timeout(LONGEST, warm_up).await;
    let status = status.context("the warm-up takes too long")??;
    let took = started.elapsed();
    ensure!(status.success(), "the warm-up failed");
    let redis = redis::Client::open(env.redis_url.as_str())?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    let entries: usize = redis::cmd("DBSIZE").query_async(&mut redis).await?;
    // And the checkpoint.
    ensure!(entries == claimed + 1, "{entries} entries of {claimed}");
    Ok(took)
}
