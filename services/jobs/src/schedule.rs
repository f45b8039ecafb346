//! The jobs, and when they are due.

use std::fmt;
use std::time::Duration;

use chrono::{Days, NaiveTime};
use clap::ValueEnum;
use domain::Timestamp;

/// A job of upkeep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Job {
    /// Ends sessions of which nothing was heard for long.
    IdleSessions,
    /// Fills the cache.
    WarmUp,
    /// Creates partitions for the months to come.
    Partitions,
    /// Takes old months out of the history.
    Retention,
    /// Takes old days out of the statistics.
    StatisticsWindow,
    /// Forgets idempotency keys, and the runs of jobs.
    IdempotencyKeys,
    /// Writes over what the log holds of readers who were erased.
    Erasures,
}

/// When a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// So long after it ended.
    Every(Duration),
    /// Daily at an hour, UTC.
    Daily(u32),
}

impl Job {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::IdleSessions,
        Self::WarmUp,
        Self::Partitions,
        Self::Retention,
        Self::StatisticsWindow,
        Self::IdempotencyKeys,
        Self::Erasures,
    ];

    /// As it stands everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdleSessions => "idle_sessions",
            Self::WarmUp => "warm_up",
            Self::Partitions => "partitions",
            Self::Retention => "retention",
            Self::StatisticsWindow => "statistics_window",
            Self::IdempotencyKeys => "idempotency_keys",
            Self::Erasures => "erasures",
        }
    }

    /// The job of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// All names, as a sentence says them.
    #[must_use]
    pub fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }

    /// When it is due. Those that run daily do so while readers sleep, as far as
    /// they sleep at the same time.
    #[must_use]
    pub const fn schedule(self) -> Schedule {
        match self {
            // Erasures are asked for when a reader is erased; this is for those that
            // were cut off.
            Self::IdleSessions | Self::Erasures => Schedule::Every(Duration::from_mins(1)),
            // Asked for when the service starts and when Redis was emptied; this
            // is for entries that nobody wrote or read for as long as they last.
            Self::WarmUp => Schedule::Every(Duration::from_hours(24)),
            Self::Partitions => Schedule::Daily(1),
            Self::Retention => Schedule::Daily(2),
            Self::StatisticsWindow => Schedule::Daily(3),
            Self::IdempotencyKeys => Schedule::Every(Duration::from_hours(1)),
        }
    }
}

impl Schedule {
    /// When it is due after a run that ended now.
    #[must_use]
    pub fn next(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Every(pause) => now + pause,
            Self::Daily(hour) => {
                let time = NaiveTime::from_hms_opt(hour, 0, 0).expect("an hour of the day");
                let today = now.date_naive().and_time(time).and_utc();
                if today > now {
                    today
                } else {
                    today + Days::new(1)
                }
            }
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(pause) if pause.as_secs() < 3_600 => {
                write!(f, "every {} min", pause.as_secs() / 60)
            }
            Self::Every(pause) => write!(f, "every {} h", pause.as_secs() / 3_600),
            Self::Daily(hour) => write!(f, "daily at {hour:02}:00 UTC"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::before("2026-03-29T01:59:59Z", "2026-03-29T02:00:00Z")]
    #[case::at_the_hour("2026-03-29T02:00:00Z", "2026-03-30T02:00:00Z")]
    #[case::after("2026-12-31T23:00:00Z", "2027-01-01T02:00:00Z")]
    fn a_daily_job_is_due_at_its_next_hour(#[case] now: Timestamp, #[case] next: Timestamp) {
        assert_eq!(Schedule::Daily(2).next(now), next);
    }

    #[test]
    fn a_job_is_called_the_same_everywhere() {
        for job in Job::ALL {
            let value = job.to_possible_value().unwrap();
            assert_eq!(value.get_name(), job.as_str());
            assert_eq!(Job::named(job.as_str()), Some(job));
        }
    }
}
