//! Jobs that a command runs, outside a running service.

use eventlog::{Appender, commit_feed};
use futures::FutureExt;
use futures::future::BoxFuture;
use jobs::tasks::JobContext;
use projections::zones::Zones;

use super::roles::commands;
use crate::config::{DatabaseArgs, JobArgs, RedisArgs, RuleArgs};
use crate::connect;

pub struct Jobs {
    pub context: JobContext,
    /// Appends the events of the jobs. Completes when `context` is dropped.
    pub appender: BoxFuture<'static, ()>,
}

/// Connects jobs that run outside a running service.
///
/// # Errors
/// When an address is missing or invalid.
pub fn jobs(
    database: &DatabaseArgs,
    redis: &RedisArgs,
    rules: &RuleArgs,
    jobs: &JobArgs,
) -> anyhow::Result<Jobs> {
    // Relays also poll the log, so the commits need no announcement.
    let (feed, _) = commit_feed::channel();
    let pool = connect::jobs_pool(database)?;
    let append = connect::append_pool(database)?;
    let (appender, task) = Appender::new(append, feed, |_| {});
    let commands = commands(appender, rules, pool.clone().into())?;
    Ok(Jobs {
        context: JobContext {
            pool,
            commands,
            operations: connect::projection_ops(database, redis, Zones::load()),
            settings: jobs.settings(),
        },
        appender: task.boxed(),
    })
}
