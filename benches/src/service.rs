//! The service under load: a process of its own, with every role, token
//! checks and all defaults, in a database, a stream and a Redis database of its
//! own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use eventlog::{Subjects, read};
use server::connect;
use dev_servers::Servers;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tests::app;
use tests::process::{self, Process};
use tests::stack::TestEnv;

use crate::Part;
use crate::generator::Load;
use crate::usage::{self, Usage};

/// How long the projections may take to catch up before the run is void.
const CATCH_UP: Duration = Duration::from_mins(1);

/// Lines of the log that a failure shows.
const TAIL: usize = 10;

/// The running service.
pub struct Running<'a> {
    /// Where it listens.
    pub http: SocketAddr,
    /// Its database, the read tables too.
    pub pool: PgPool,
    /// Where its data are.
    pub env: TestEnv,
    servers: &'a Servers,
    process: Process,
}

/// A load, and what was seen beside it.
#[derive(Clone)]
pub struct Measured {
    /// The load.
    pub load: Load,
    /// CPU time meanwhile.
    pub used: Usage,
    /// How long the projections took to catch up after the last request.
    pub caught_up: Duration,
    /// Peak resident memory of the service so far, in bytes.
    pub resident: u64,
}

/// How many events a load makes.
#[derive(Clone, Copy)]
pub enum Events {
    /// Exactly so many for each good answer.
    Each(usize),
    /// One for each good answer, or more: what was answered too late is written
    /// all the same.
    AtLeast,
}

/// Where the data of one part of the run are: a database, and places on the
/// other servers.
fn env_of(servers: &Servers, part: Part) -> anyhow::Result<TestEnv> {
    let (server, _) = servers
        .database_url()
        .rsplit_once('/')
        .context("an address names its database")?;
    let redis = servers.redis_url().trim_end_matches("/0");
    Ok(TestEnv {
        database_url: format!("{server}/{}", part.name()),
        nats_url: servers.nats_url().to_owned(),
        nats_prefix: part.name().to_owned(),
        redis_url: format!("{redis}/{}", part as u8),
    })
}

/// Makes the environment of a part, its database migrated.
pub async fn env(servers: &Servers, part: Part) -> anyhow::Result<TestEnv> {
    let env = env_of(servers, part)?;
    let mut admin = PgConnection::connect(servers.database_url()).await?;
    admin
        .execute(format!("create database {}", part.name()).as_str())
        .await?;
    admin.close().await?;
    let migrated = process::plain_command(&crate::executable()?, &env)
        .arg("migrate")
        .status()
        .await?;
    ensure!(migrated.success(), "the database was not migrated");
    Ok(env)
}

/// Removes all that is in a part's environment: what comes next shall not share the
/// machine with its upkeep. There may be nothing, after a failure.
pub async fn clear(servers: &Servers, part: Part) -> anyhow::Result<()> {
    let env = env_of(servers, part)?;
    let mut admin = PgConnection::connect(servers.database_url()).await?;
    admin
        .execute(format!("drop database if exists {} with (force)", part.name()).as_str())
        .await?;
    admin.close().await?;
    let jetstream = connect::jetstream(&app::settings(&env, &[]).nats).await?;
    let subjects = Subjects::new(&env.nats_prefix);
    for stream in [subjects.stream(), subjects.dead_letter_stream()] {
        let _ = jetstream.delete_stream(stream).await;
    }
    let redis = redis::Client::open(env.redis_url.as_str())?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    redis::cmd("FLUSHDB").exec_async(&mut redis).await?;
    Ok(())
}

impl<'a> Running<'a> {
    /// Starts it in a test environment.
    pub async fn start(servers: &'a Servers, env: TestEnv) -> anyhow::Result<Self> {
        let executable = crate::executable()?;
        let process = Process::start_with_defaults(&executable, &env, &log(servers)?).await;
        Ok(Self {
            http: process.http,
            pool: app::pool(&env).await,
            process,
            env,
            servers,
        })
    }

    /// Starts it in a new environment.
    pub async fn new(servers: &'a Servers, part: Part) -> anyhow::Result<Self> {
        Self::start(servers, env(servers, part).await?).await
    }

    /// From its start until it said that it is ready.
    pub fn ready_after(&self) -> Duration {
        self.process.ready_after
    }

    /// Stops it in order; its data stay.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.pool.close().await;
        let ended = self.process.terminate().await;
        ensure!(ended.success(), "the service ended with {ended}");
        Ok(())
    }

    /// Runs a load and checks what became of it: whatever was acknowledged is in
    /// the log, in the stream and in the projections. A figure without that is
    /// worth nothing.
    pub async fn measure(
        &self,
        events: Events,
        load: impl AsyncFnOnce() -> anyhow::Result<Load>,
    ) -> anyhow::Result<Measured> {
        let head = read::head(&self.pool).await?;
        let before = self.usage()?;
        let load = load().await?;
        let used = self.usage()?.since(&before);
        let caught_up = self.caught_up(CATCH_UP).await?;
        let written = self.written_after(head).await?;
        match events {
            Events::Each(each) => {
                ensure!(
                    load.errors() == 0,
                    "of {} requests {} were refused, {} failed, and {} were not sent",
                    load.offered,
                    load.refused,
                    load.failed,
                    load.unsent
                );
                ensure!(
                    written == load.good * each,
                    "{written} events of {} commands that were acknowledged",
                    load.good
                );
            }
            Events::AtLeast => ensure!(
                written >= load.good,
                "{written} events of {} updates that were acknowledged",
                load.good
            ),
        }
        self.everywhere().await?;
        Ok(Measured {
            load,
            used,
            caught_up,
            resident: self.resident()?,
        })
    }

    /// How many events stand in the log after a position.
    pub async fn written_after(&self, position: i64) -> anyhow::Result<usize> {
        let written: i64 =
            sqlx::query_scalar("select count(*) from events where global_position > $1")
                .bind(position)
                .fetch_one(&self.pool)
                .await?;
        Ok(usize::try_from(written)?)
    }

    /// Waits for the projections; returns how long they took.
    pub async fn caught_up(&self, longest: Duration) -> anyhow::Result<Duration> {
        let started = Instant::now();
        while let Err(behind) = app::caught_up(&self.pool, &self.env).await {
            ensure!(
                started.elapsed() < longest,
                "the projections are behind: {behind}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(started.elapsed())
    }

    /// That the stream and the history hold as many events as the log. The
    /// projections may have come to its end before the relay: they read the log.
    pub async fn everywhere(&self) -> anyhow::Result<()> {
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
        let wanted = u64::try_from(events)?;
        let started = Instant::now();
        loop {
            let published = self.published().await?;
            if published == wanted {
                break;
            }
            ensure!(
                published < wanted && started.elapsed() < CATCH_UP,
                "the stream has {published} of {events} events"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ensure!(events > 0, "the log is empty");
        Ok(())
    }

    /// How many events the stream holds.
    pub async fn published(&self) -> anyhow::Result<u64> {
        let jetstream = connect::jetstream(&app::settings(&self.env, &[]).nats).await?;
        let name = Subjects::new(&self.env.nats_prefix).stream().to_owned();
        let stream = jetstream.get_stream(name).await?;
        Ok(stream.cached_info().state.messages)
    }

    /// Reads of active sessions so far: all, and those that Redis answered.
    pub async fn active_reads(&self) -> anyhow::Result<(u64, u64)> {
        let url = format!("http://{}/metrics", self.process.admin);
        let answer = tests::reader::client().get(url).send().await?;
        let metrics = app::Metrics::parse(answer.error_for_status()?.text().await?);
        let of = |result: &str| {
            let name = format!("reading_sessions_active_reads_total{{result=\"{result}\"}}");
            metrics.count(&name)
        };
        let others = ["stale", "miss", "redis_late", "redis_failed", "redis_away"];
        let hits = of("hit");
        Ok((hits + others.map(of).iter().sum::<u64>(), hits))
    }

    /// CPU time used so far, by process.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let pid =
            |name: &str, pid: Option<u32>| pid.with_context(|| format!("{name} does not run"));
        let of = [
            ("service", pid("the service", self.process.pid())?),
            ("Postgres", pid("Postgres", self.servers.postgres.pid())?),
            ("NATS", pid("NATS", self.servers.nats.pid())?),
            ("Redis", pid("Redis", self.servers.redis.pid())?),
        ];
        let mut usage: std::collections::BTreeMap<_, _> = of
            .into_iter()
            .map(|(name, pid)| (name, usage::cpu(pid)))
            .collect();
        // The parent of all the others.
        usage.insert("generator", usage::own_cpu(std::process::id()));
        Ok(Usage(usage))
    }

    /// The most memory that the service has had resident, in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let pid = self.process.pid().context("the service does not run")?;
        Ok(usage::peak_resident(pid).unwrap_or(0))
    }
}

/// Where the log of the service goes.
pub fn log(servers: &Servers) -> anyhow::Result<PathBuf> {
    let folder = servers.nats.folder().and_then(std::path::Path::parent);
    let folder = folder.context("the servers have a folder")?;
    Ok(folder.join("service.log"))
}

/// Shows the end of that log, after a failure.
#[expect(clippy::print_stdout, reason = "whoever runs this wants to know")]
pub fn tell_log(servers: &Servers) {
    let log = log(servers).and_then(|log| Ok(std::fs::read_to_string(log)?));
    let lines: Vec<&str> = log.iter().flat_map(|log| log.lines()).collect();
    for line in lines.iter().skip(lines.len().saturating_sub(TAIL)) {
        println!("        {line}");
    }
}
