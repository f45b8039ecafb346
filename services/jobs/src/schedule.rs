//! The jobs and their schedules.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{Days, NaiveTime};
use domain::Timestamp;
use thiserror::Error;

/// A background job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Job {
    /// Ends sessions without a recent event.
    IdleSessions,
    /// Writes all active sessions to the cache.
    WarmUp,
    /// Creates the partitions of the coming months.
    Partitions,
    /// Removes old months from the history.
    Retention,
    /// Removes old days from the statistics.
    StatisticsWindow,
    /// Deletes old idempotency keys and old records of runs.
    IdempotencyKeys,
    /// Overwrites the events of erased readers in the log.
    Erasures,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// This long after the end of the last run.
    Every(Duration),
    /// Every day at this hour (0 to 23), UTC.
    Daily(u32),
}

impl Job {
    /// In the order in which they are listed.
    pub const ALL: [Self; 7] = [
        Self::IdleSessions,
        Self::WarmUp,
        Self::Partitions,
        Self::Retention,
        Self::StatisticsWindow,
        Self::IdempotencyKeys,
        Self::Erasures,
    ];

    /// The name in the job table, in metrics, over HTTP and on the command line.
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

    /// The names of all jobs, separated by commas.
    #[must_use]
    pub fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }

    /// Daily jobs run at night (UTC), when less reading is expected.
    #[must_use]
    pub const fn schedule(self) -> Schedule {
        match self {
            // The request that erases a reader also requests a run of `erasures`.
            // The schedule is for erasures that were interrupted.
            Self::IdleSessions | Self::Erasures => Schedule::Every(Duration::from_mins(1)),
            // A start of the service and an emptied Redis also request a run. The
            // schedule is for entries that expired unused.
            Self::WarmUp => Schedule::Every(Duration::from_hours(24)),
            Self::Partitions => Schedule::Daily(1),
            Self::Retention => Schedule::Daily(2),
            Self::StatisticsWindow => Schedule::Daily(3),
            Self::IdempotencyKeys => Schedule::Every(Duration::from_hours(1)),
        }
    }
}

/// No job has this name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unknown job {0}; the jobs are {jobs}", jobs = Job::names())]
pub struct UnknownJob(String);

impl FromStr for Job {
    type Err = UnknownJob;

    fn from_str(name: &str) -> Result<Self, UnknownJob> {
        Self::ALL
            .into_iter()
            .find(|job| job.as_str() == name)
            .ok_or_else(|| UnknownJob(name.to_owned()))
    }
}

impl Schedule {
    /// When the job is due again after a run that ended at `now`.
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
    fn daily_job_is_due_at_the_next_such_hour(#[case] now: Timestamp, #[case] next: Timestamp) {
        assert_eq!(Schedule::Daily(2).next(now), next);
    }

    #[test]
    fn job_is_parsed_from_its_name() {
        for job in Job::ALL {
            assert_eq!(job.as_str().parse(), Ok(job));
        }
        let error = "cook".parse::<Job>().unwrap_err().to_string();
        assert!(error.starts_with("unknown job cook; the jobs are idle_sessions, warm_up,"));
    }
}
