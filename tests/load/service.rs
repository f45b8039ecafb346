//! The service under load: a process of its own, with every role, token
//! checks and all defaults.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use eventlog::{Subjects, read};
use services::connect;
use services::dev::Servers;
use sqlx::PgPool;
use tests::app;
use tests::process::{self, Process};
use tests::stack::Corner;

use crate::usage::{self, Usage};

/// How long the projections may take to catch up before the run is void.
const CATCH_UP: Duration = Duration::from_mins(1);

/// The running service.
pub struct Running {
    /// Where it listens.
    pub http: SocketAddr,
    process: Process,
    pool: PgPool,
    corner: Corner,
}

impl Running {
    /// Migrates and starts it.
    pub async fn start(servers: &Servers) -> anyhow::Result<Self> {
        let executable = crate::executable()?;
        let corner = Corner {
            database_url: servers.database_url().to_owned(),
            nats_url: servers.nats_url().to_owned(),
            nats_prefix: String::new(),
            redis_url: servers.redis_url().to_owned(),
        };
        let migrated = process::command_of(&executable, &corner)
            .arg("migrate")
            .status()
            .await?;
        ensure!(migrated.success(), "the database was not migrated");
        let process = Process::start_of(&executable, &corner).await;
        Ok(Self {
            http: process.http,
            pool: app::pool(&corner).await,
            process,
            corner,
        })
    }

    /// How many events the log holds.
    pub async fn events(&self) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar("select count(*) from events")
            .fetch_one(&self.pool)
            .await?)
    }

    /// Waits for the projections; returns how long they took.
    pub async fn caught_up(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        while let Err(behind) = app::caught_up(&self.pool, &self.corner).await {
            ensure!(
                started.elapsed() < CATCH_UP,
                "the projections are behind: {behind}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(started.elapsed())
    }

    /// That the stream and the history hold as many events as the log.
    pub async fn everywhere(&self) -> anyhow::Result<()> {
        let events = self.events().await?;
        let versions: i64 =
            sqlx::query_scalar("select coalesce(sum(version), 0)::bigint from history")
                .fetch_one(&self.pool)
                .await?;
        ensure!(
            versions == events,
            "the history has {versions} of {events} events"
        );
        let jetstream = connect::jetstream(&app::settings(&self.corner, &[]).nats).await?;
        let name = Subjects::new(&self.corner.nats_prefix).stream().to_owned();
        let stream = jetstream.get_stream(name).await?;
        let published = stream.cached_info().state.messages;
        ensure!(
            published == u64::try_from(events)?,
            "the stream has {published} of {events} events"
        );
        let head = read::head(&self.pool).await?;
        ensure!(head > 0, "the log is empty");
        Ok(())
    }

    /// CPU time used so far, by process.
    pub fn usage(&self, servers: &Servers) -> anyhow::Result<Usage> {
        let pid =
            |name: &str, pid: Option<u32>| pid.with_context(|| format!("{name} does not run"));
        let of = [
            ("service", pid("the service", self.process.pid())?),
            ("Postgres", pid("Postgres", servers.postgres.pid())?),
            ("NATS", pid("NATS", servers.nats.pid())?),
            ("Redis", pid("Redis", servers.redis.pid())?),
            ("generator", std::process::id()),
        ];
        let mut usage: std::collections::BTreeMap<_, _> = of
            .into_iter()
            .map(|(name, pid)| (name, usage::cpu(pid)))
            .collect();
        // The generator is the parent of all the others.
        let others: Duration = usage
            .iter()
            .filter(|(name, _)| **name != "generator")
            .map(|(_, cpu)| *cpu)
            .sum();
        if let Some(own) = usage.get_mut("generator") {
            *own = own.saturating_sub(others);
        }
        Ok(Usage(usage))
    }

    /// The most memory that the service has had resident, in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let pid = self.process.pid().context("the service does not run")?;
        Ok(usage::peak_resident(pid).unwrap_or(0))
    }
}
