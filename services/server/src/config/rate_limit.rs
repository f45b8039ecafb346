//! The settings of rate limits and of the daily budget of stored bytes.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use api::rate_limit::RateLimits;
use clap::Args;

use super::{parse_bytes, parse_seconds};

/// Maximum numbers of calls in a sliding window, by reader, or by address for
/// calls without a valid token.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Rate limits")]
pub struct RateLimitArgs {
    /// Position updates in a window, by reader; a batch counts once.
    #[arg(
        long = "rate-limit-high-frequency",
        env = "RATE_LIMIT_HIGH_FREQUENCY",
        value_name = "COUNT",
        default_value = "60"
    )]
    pub high_frequency: NonZeroU32,
    /// Other calls of client apps in a window, by reader.
    #[arg(
        long = "rate-limit-normal",
        env = "RATE_LIMIT_NORMAL",
        value_name = "COUNT",
        default_value = "30"
    )]
    pub normal: NonZeroU32,
    /// Admin calls, exports and erasures in a window, by user.
    #[arg(
        long = "rate-limit-low-frequency",
        env = "RATE_LIMIT_LOW_FREQUENCY",
        value_name = "COUNT",
        default_value = "10"
    )]
    pub low_frequency: NonZeroU32,
    /// Uploads of whole sessions in a window, by reader.
    #[arg(
        long = "rate-limit-sync",
        env = "RATE_LIMIT_SYNC",
        value_name = "COUNT",
        default_value = "10"
    )]
    pub sync: NonZeroU32,
    /// Calls without a valid token in a window, by address.
    #[arg(
        long = "rate-limit-auth",
        env = "RATE_LIMIT_AUTH",
        value_name = "COUNT",
        default_value = "5"
    )]
    pub auth: NonZeroU32,
    /// Length of the sliding window, in seconds.
    #[arg(long = "rate-limit-window", env = "RATE_LIMIT_WINDOW", value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub window: Duration,
    /// Maximum time that a request waits for Redis to count it, in
    /// milliseconds; then the process counts locally.
    #[arg(long = "rate-limit-deadline", env = "RATE_LIMIT_DEADLINE", value_name = "MILLISECONDS", default_value = "10", value_parser = parse_milliseconds)]
    pub deadline: Duration,
    /// Bytes that the commands of a reader may store in 24 hours, for example `50MB`;
    /// 0 sets no limit.
    ///
    /// Further commands of the reader return 429 with the code `quota`.
    #[arg(long = "rate-limit-daily-bytes", env = "RATE_LIMIT_DAILY_BYTES", value_name = "BYTES", default_value = "50MB", value_parser = parse_bytes)]
    pub daily_bytes: u64,
}

impl RateLimitArgs {
    #[must_use]
    pub fn limits(&self) -> RateLimits {
        RateLimits {
            high_frequency: self.high_frequency,
            normal: self.normal,
            low_frequency: self.low_frequency,
            sync: self.sync,
            auth: self.auth,
            window: self.window,
            deadline: self.deadline,
            daily_bytes: NonZeroU64::new(self.daily_bytes),
        }
    }
}

fn parse_milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(milliseconds @ 1..=10_000) => Ok(Duration::from_millis(milliseconds)),
        _ => Err("expected a whole number of milliseconds from 1 to 10000".to_owned()),
    }
}
