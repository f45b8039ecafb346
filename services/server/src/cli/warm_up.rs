//! `reading-sessions warm-up`: writes every active session to the cache.

use std::time::Instant;

use clap::Args;
use eventlog::audit::Action;
use projections::zones::Zones;
use tokio::sync::watch;

use super::audit::{CliAction, recorded};
use super::connect_database;
use super::format::{count, counted, rate};
use super::output::print;
use super::progress_bar;
use super::wait::{Interrupted, is_stopped, until_stopped};
use crate::config::{DatabaseArgs, RedisArgs};
use crate::connect;

#[derive(Args, Clone, Debug)]
pub struct WarmUpArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

pub async fn run(args: &WarmUpArgs) -> anyhow::Result<()> {
    let pool = connect_database(&args.database).await?;
    let action = CliAction::new(Action::WarmUp, None);
    recorded(&pool, action, async || warm_up(args).await).await
}

async fn warm_up(args: &WarmUpArgs) -> anyhow::Result<()> {
    let operations = connect::projection_ops(&args.database, &args.redis, Zones::load());
    let progress = watch::Sender::default();
    let started = Instant::now();
    let filled = until_stopped(async |stop| {
        let warm_up = operations.warm_up(&progress, stop);
        Ok(progress_bar::show("warm-up", "sessions", progress.subscribe(), warm_up).await?)
    })
    .await;
    match filled {
        Ok(done) => {
            let took = started.elapsed();
            print(&format!(
                "Read {} in {:.1} s, {} sessions/s; wrote {}.",
                counted(done.sessions, "active session", "active sessions"),
                took.as_secs_f64(),
                count(rate(done.sessions, took)),
                counted(done.stored, "entry", "entries")
            ))
        }
        Err(error) if is_stopped(&error) => Err(Interrupted(
            "warm-up stopped; the entries written so far are correct, and the next warm-up starts \
             from the beginning"
                .to_owned(),
        )
        .into()),
        Err(error) => Err(error.context("warm-up failed")),
    }
}
