//! `reading-sessions warmup`: the cache filled, while somebody watches.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use projections::rebuild::ReplayError;
use tokio::sync::watch;

use super::format::{count, rate};
use super::progress_bar::{self, say};
use super::{STOPPED, database, print, until_stopped};
use crate::config::{DatabaseArgs, RedisArgs};
use crate::connect;

/// From where and to where.
#[derive(Args, Clone, Debug)]
pub struct WarmUpArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

/// Fills the cache until that is done or stopped.
///
/// # Errors
/// When a server does not answer, or the cache is being filled elsewhere.
pub async fn run(args: &WarmUpArgs) -> anyhow::Result<ExitCode> {
    database(&args.database).await?.close().await;
    let source = connect::projection_ops(&args.database, &args.redis);
    let progress = watch::Sender::default();
    let shown = progress.subscribe();
    let began = Instant::now();
    let done = until_stopped(async |stop| {
        let work = source.warm_up(&progress, stop);
        progress_bar::with("warmup", "sessions", shown, work).await
    })
    .await;
    match done {
        Ok(done) => {
            let took = began.elapsed();
            print(&format!(
                "{} active sessions in {:.1} s, {} sessions/s; {} entries put.",
                count(done.sessions),
                took.as_secs_f64(),
                count(rate(done.sessions, took)),
                count(done.put)
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => match error.downcast_ref() {
            Some(ReplayError::Stopped) => {
                say("stopped; what was put is right, and the next one begins anew");
                Ok(ExitCode::from(STOPPED))
            }
            _ => Err(error.context("the cache was not filled")),
        },
    }
}
