//! The measured service: separate processes with token checks and default settings,
//! usually one with every role. It has its own database, stream and Redis database.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dev_servers::Servers;
use eventlog::read;
use messaging::Subjects;
use reqwest::Method;
use server::connect;
use sqlx::PgPool;
use tests::app::{self, Metrics};
use tests::process::Process;
use tests::reader::Reader;
use tests::stack::TestEnv;
use uuid::Uuid;

use crate::Part;
use crate::generator::Load;
use crate::usage::{self, Meter, Span};

mod env;
mod log;

pub use env::{create_env, delete_data};
pub use log::{log_path, print_log_tail};

/// Longest time until the projections have caught up. After that, the run fails.
const CATCH_UP: Duration = Duration::from_mins(1);

/// Time between two requests for the last event.
const REQUEST_INTERVAL: Duration = Duration::from_secs(5);

/// The running service.
pub struct RunningService<'a> {
    pub http: SocketAddr,
    /// Finds the read tables by name.
    pub pool: PgPool,
    pub env: TestEnv,
    servers: &'a Servers,
    /// Each with the name of its CPU time.
    processes: Vec<(&'static str, Process)>,
    /// Processes in front of the service, with the names of their CPU times.
    front: Vec<(&'static str, u32)>,
}

/// A load, and what it cost the service.
#[derive(Clone)]
pub struct Measured {
    pub load: Load,
    /// CPU time of the processes during the load.
    pub span: Span,
    /// Time from the last response until the projections had caught up.
    pub caught_up: Duration,
    /// Peak resident memory of the service since its start, in bytes.
    pub resident: u64,
}

impl Measured {
    /// CPU time of the service and of Postgres for a successful response, in microseconds.
    pub fn cpu(&self) -> f64 {
        let micros = |name| self.span.used.micros_each(name, self.load.successful);
        micros("service") + micros("Postgres")
    }
}

/// Appends to the log, and the events in them.
#[derive(Clone, Copy, Default)]
pub struct Appends {
    pub count: f64,
    pub events: f64,
}

/// The number of events that a load must append.
#[derive(Clone, Copy)]
pub enum EventCount {
    /// Exactly this many events per successful response.
    PerCommand(usize),
    /// At least one event per successful response. A command whose response comes too
    /// late appends events as well.
    AtLeast,
}

/// The processes of the servers.
pub fn server_pids(servers: &Servers) -> anyhow::Result<Vec<(&'static str, u32)>> {
    [
        ("Postgres", servers.postgres.pid()),
        ("NATS", servers.nats.pid()),
        ("Redis", servers.redis.pid()),
    ]
    .into_iter()
    .map(|(name, pid)| Ok((name, pid.with_context(|| format!("{name} is not running"))?)))
    .collect()
}

impl<'a> RunningService<'a> {
    /// Starts the service in an existing environment.
    pub async fn start(servers: &'a Servers, env: TestEnv) -> anyhow::Result<Self> {
        Self::start_with(servers, env, &[]).await
    }

    /// Starts the service with settings that differ from their defaults.
    pub async fn start_with(
        servers: &'a Servers,
        env: TestEnv,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let process = start_process(servers, &env, settings).await?;
        let http = process.http;
        Self::from_processes(servers, env, http, vec![("service", process)], Vec::new()).await
    }

    /// Starts the service in a new environment.
    pub async fn new(servers: &'a Servers, part: Part) -> anyhow::Result<Self> {
        Self::start(servers, create_env(servers, part).await?).await
    }

    /// A service of processes that run already, behind the address `http`.
    pub async fn from_processes(
        servers: &'a Servers,
        env: TestEnv,
        http: SocketAddr,
        processes: Vec<(&'static str, Process)>,
        front: Vec<(&'static str, u32)>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            http,
            pool: app::pool(&env).await,
            env,
            servers,
            processes,
            front,
        })
    }

    /// Time from the start of the slowest process until `/readyz` succeeded.
    pub fn ready_after(&self) -> Duration {
        let after = self
            .processes
            .iter()
            .map(|(_, process)| process.ready_after);
        after.max().unwrap_or_default()
    }

    /// Stops the service gracefully and keeps its data.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.pool.close().await;
        for (name, process) in self.processes {
            let ended = process.terminate().await;
            ensure!(ended.success(), "{name} ended with {ended}");
        }
        Ok(())
    }

    /// Runs a load, then checks that all acknowledged commands are in the log, in the
    /// stream and in the projections. Fails if they are not, because the figures would
    /// be meaningless.
    pub async fn measure(
        &self,
        events: EventCount,
        load: impl AsyncFnOnce() -> anyhow::Result<Load>,
    ) -> anyhow::Result<Measured> {
        let head = read::head(&self.pool).await?;
        let meter = self.meter()?;
        let load = load().await?;
        let span = meter.stop();
        self.check(head, events, load, span).await
    }

    /// Waits for the projections after a load, and checks the acknowledged commands. `head`
    /// is the last global position before the load.
    pub async fn check(
        &self,
        head: i64,
        events: EventCount,
        load: Load,
        span: Span,
    ) -> anyhow::Result<Measured> {
        let caught_up = self.wait_for_projections(CATCH_UP).await?;
        let written = self.written_after(head).await?;
        match events {
            EventCount::PerCommand(count) => {
                ensure!(
                    load.errors() == 0,
                    "of {} requests, {} were rejected, {} failed and {} were not sent",
                    load.offered,
                    load.rejected,
                    load.failed,
                    load.unsent
                );
                ensure!(
                    written == load.successful * count,
                    "{written} events after {} acknowledged commands",
                    load.successful
                );
            }
            EventCount::AtLeast => ensure!(
                written >= load.successful,
                "{written} events after {} acknowledged updates",
                load.successful
            ),
        }
        self.check_stream_and_history().await?;
        Ok(Measured {
            load,
            span,
            caught_up,
            resident: self.resident()?,
        })
    }

    /// The number of events in the log after a global position.
    pub async fn written_after(&self, global_position: i64) -> anyhow::Result<usize> {
        let written: i64 =
            sqlx::query_scalar("select count(*) from events where global_position > $1")
                .bind(global_position)
                .fetch_one(&self.pool)
                .await?;
        Ok(usize::try_from(written)?)
    }

    /// Waits until the projections have caught up, and returns the time that took. The
    /// reader of the last event requests it, because projections hold positions back.
    pub async fn wait_for_projections(&self, timeout: Duration) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let last: Option<(i64, Uuid)> = sqlx::query_as(
            "select global_position, (payload ->> 'reader_id')::uuid from events
            order by global_position desc limit 1",
        )
        .fetch_optional(&self.pool)
        .await?;
        let mut next_request = started;
        while let Err(behind) = app::caught_up(&self.pool, &self.env).await {
            ensure!(
                started.elapsed() < timeout,
                "the projections did not catch up within {timeout:?}: {behind}"
            );
            match last {
                Some((position, reader)) if Instant::now() >= next_request => {
                    next_request = Instant::now() + REQUEST_INTERVAL;
                    self.request_position(position, reader).await?;
                }
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        Ok(started.elapsed())
    }

    /// Waits until the projections have caught up by themselves, at most for `timeout`.
    pub async fn wait_without_request(&self, timeout: Duration) {
        let started = Instant::now();
        while started.elapsed() < timeout && app::caught_up(&self.pool, &self.env).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Requests history and statistics that include a global position. The requests fail
    /// if the projections are more than a few seconds behind.
    async fn request_position(&self, position: i64, reader: Uuid) -> anyhow::Result<()> {
        let reader = self.reader(reader);
        let query = async |path: &str| {
            let path = format!("{path}?min_position={position}");
            reader.try_call(Method::GET, &path, None).await
        };
        tokio::try_join!(query("/history"), query("/stats/daily"))?;
        Ok(())
    }

    /// The API, up to `/reading-sessions`.
    pub fn url(&self) -> String {
        format!("http://{}/api/v1/reading-sessions", self.http)
    }

    /// A reader that calls this service.
    pub fn reader(&self, id: Uuid) -> Reader {
        Reader::with_id(id).at(&self.url())
    }

    /// Checks that the stream and the history contain as many events as the log. Waits
    /// for the relay, because the projections also read the log directly.
    pub async fn check_stream_and_history(&self) -> anyhow::Result<()> {
        let events: i64 = sqlx::query_scalar("select count(*) from events")
            .fetch_one(&self.pool)
            .await?;
        let versions: i64 =
            sqlx::query_scalar("select coalesce(sum(version), 0)::bigint from history")
                .fetch_one(&self.pool)
                .await?;
        ensure!(
            versions == events,
            "the history has {versions} of {events} events"
        );
        let expected = u64::try_from(events)?;
        let started = Instant::now();
        loop {
            let published = self.published().await?;
            if published == expected {
                break;
            }
            ensure!(
                published < expected && started.elapsed() < CATCH_UP,
                "the stream has {published} of {events} events"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ensure!(events > 0, "the log is empty");
        Ok(())
    }

    /// The number of events in the stream.
    pub async fn published(&self) -> anyhow::Result<u64> {
        Ok(self.stream().await?.0)
    }

    /// The number of events in the stream, and their size in bytes.
    pub async fn stream(&self) -> anyhow::Result<(u64, u64)> {
        let jetstream = connect::jetstream(&app::settings(&self.env, &[]).nats).await?;
        let name = Subjects::new(&self.env.nats_prefix).stream().to_owned();
        let stream = jetstream.get_stream(name).await?;
        let state = &stream.cached_info().state;
        Ok((state.messages, state.bytes))
    }

    /// The metrics of the first process.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        let (_, process) = self.processes.first().context("no process is running")?;
        metrics(process).await
    }

    /// Appends of all processes since their start.
    pub async fn appends(&self) -> anyhow::Result<Appends> {
        let mut appends = Appends::default();
        for (_, process) in &self.processes {
            let metrics = Metrics::parse(metrics(process).await?);
            let sum =
                |of: &str| metrics.number(&format!("reading_sessions_append_batch_events_{of}"));
            appends.count += sum("count").unwrap_or(0.0);
            appends.events += sum("sum").unwrap_or(0.0);
        }
        Ok(appends)
    }

    /// Reads of active sessions since the start: all of them, and cache hits.
    pub async fn active_reads(&self) -> anyhow::Result<(u64, u64)> {
        let metrics = Metrics::parse(self.metrics().await?);
        let count = |result: &str| {
            let name = format!("reading_sessions_active_reads_total{{result=\"{result}\"}}");
            metrics.count(&name)
        };
        let others = ["stale", "miss", "redis_late", "redis_failed", "redis_away"];
        let hits = count("hit");
        Ok((hits + others.map(count).iter().sum::<u64>(), hits))
    }

    /// Starts to measure the CPU time of all processes.
    pub fn meter(&self) -> anyhow::Result<Meter> {
        Ok(Meter::start(self.pids()?))
    }

    /// The processes of the service, of the servers and in front of the service.
    pub fn pids(&self) -> anyhow::Result<Vec<(&'static str, u32)>> {
        let mut pids = server_pids(self.servers)?;
        pids.extend(&self.front);
        for (name, process) in &self.processes {
            let pid = process.pid();
            pids.push((name, pid.with_context(|| format!("{name} is not running"))?));
        }
        Ok(pids)
    }

    /// Peak resident memory of the largest process of the service, in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let pids = self.processes.iter().map(|(_, process)| process.pid());
        let resident = pids.map(|pid| usage::peak_resident(pid?));
        resident
            .flatten()
            .max()
            .context("the service is not running")
    }
}

async fn metrics(process: &Process) -> anyhow::Result<String> {
    let url = format!("http://{}/metrics", process.admin);
    let response = tests::reader::client().get(url).send().await?;
    Ok(response.error_for_status()?.text().await?)
}

/// Starts a process of the service with additional settings.
pub async fn start_process(
    servers: &Servers,
    env: &TestEnv,
    settings: &[(&str, &str)],
) -> anyhow::Result<Process> {
    let (executable, log) = (crate::executable()?, log_path(servers)?);
    Ok(Process::start_with_defaults(&executable, env, &log, settings).await)
}
