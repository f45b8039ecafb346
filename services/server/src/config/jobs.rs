//! The settings of background jobs.

use std::time::Duration;

use chrono::Days;
use clap::Args;
use jobs::settings::JobSettings;

use super::parse_seconds;

/// Ages at which background jobs end sessions and remove data.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Jobs")]
pub struct JobArgs {
    /// End a session provisionally after this many seconds without an event. A later
    /// observation makes it active again.
    #[arg(long, env = "IDLE_AFTER", value_name = "SECONDS", default_value = "7200", value_parser = parse_seconds)]
    pub idle_after: Duration,
    /// Remove months from the history when all their sessions ended more than
    /// this many days ago; 0 keeps everything.
    ///
    /// The log and the statistics keep these sessions.
    #[arg(long, env = "RETENTION_DAYS", value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(0..=36_500))]
    pub retention_days: u32,
    /// Delete daily statistics older than this many days; 0 keeps everything.
    ///
    /// Queries reach back 366 days, so fewer days are not accepted.
    #[arg(long, env = "STATISTICS_DAYS", value_name = "DAYS", default_value_t = 0, value_parser = parse_statistics_days)]
    pub statistics_days: u32,
    /// Delete idempotency keys older than this many days.
    #[arg(long, env = "IDEMPOTENCY_KEYS_DAYS", value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub idempotency_keys_days: u32,
}

impl JobArgs {
    #[must_use]
    pub fn settings(&self) -> JobSettings {
        let days = |days: u32| (days > 0).then(|| Days::new(days.into()));
        JobSettings {
            idle_after: self.idle_after,
            retention: days(self.retention_days),
            statistics: days(self.statistics_days),
            idempotency_keys: Days::new(self.idempotency_keys_days.into()),
        }
    }
}

fn parse_statistics_days(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(days @ (0 | 366..=36_500)) => Ok(days),
        _ => Err("expected 0, or a whole number of days from 366 to 36500".to_owned()),
    }
}
