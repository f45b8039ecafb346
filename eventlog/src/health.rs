//! The failures of this process that an operator must know: what a role does not do, and
//! why. `/readyz` and the metrics read them.
//!
//! Each role registers its failures at the start and reports them as they come and go. A
//! role that is on standby, because another process does its work, has no failure.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Postgres does not respond.
    PostgresUnavailable,
    /// Postgres responds, and refuses writes.
    PostgresReadOnly,
    /// The relay cannot publish until an operator acts.
    RelayStopped,
    /// The worker of a projection cannot apply events.
    ProjectionFailing,
    /// No process has completed a job for an hour.
    JobsNotRunning,
    /// NATS refused a publish or a subscription of this process.
    NatsPermissionRefused,
}

impl Failure {
    /// The name in `/readyz` and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PostgresUnavailable => "postgres_unavailable",
            Self::PostgresReadOnly => "postgres_read_only",
            Self::RelayStopped => "relay_stopped",
            Self::ProjectionFailing => "projection_failing",
            Self::JobsNotRunning => "jobs_not_running",
            Self::NatsPermissionRefused => "nats_permission_refused",
        }
    }

    /// Whether requests of client apps fail. The other failures concern work in the
    /// background, and an API that is otherwise fine must continue to receive requests.
    #[must_use]
    pub const fn affects_requests(self) -> bool {
        matches!(self, Self::PostgresUnavailable | Self::PostgresReadOnly)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All failures that the roles of this process can report; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HealthRegistry(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    failure: Failure,
    /// `None` while there is no failure.
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    reason: String,
    /// When the failure ends unless it is reported again; `None` for never.
    until: Option<Instant>,
}

/// Reports one failure. Clones report the same one.
#[derive(Clone, Debug)]
pub struct HealthFlag {
    registry: HealthRegistry,
    index: usize,
}

impl HealthRegistry {
    /// Adds a failure that can occur. Each worker of a role adds its own.
    #[must_use]
    pub fn register(&self, failure: Failure) -> HealthFlag {
        let mut entries = self.lock();
        entries.push(Entry {
            failure,
            current: None,
        });
        HealthFlag {
            registry: self.clone(),
            index: entries.len() - 1,
        }
    }

    /// The registered failures, each with its reason; `None` if it has not occurred.
    #[must_use]
    pub fn failures(&self) -> Vec<(Failure, Option<String>)> {
        self.failures_at(Instant::now())
    }

    fn failures_at(&self, now: Instant) -> Vec<(Failure, Option<String>)> {
        let entries = self.lock();
        let reason = |entry: &Entry| {
            let current = entry.current.as_ref()?;
            let is_over = current.until.is_some_and(|until| until <= now);
            (!is_over).then(|| current.reason.clone())
        };
        let failures = entries.iter().map(|entry| (entry.failure, reason(entry)));
        failures.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HealthFlag {
    /// Reports the failure until [`HealthFlag::clear`].
    pub fn fail(&self, reason: impl Into<String>) {
        self.set(Some(Current {
            reason: reason.into(),
            until: None,
        }));
    }

    /// Reports a failure whose end nothing reports. It ends after `term`.
    pub fn fail_for(&self, term: Duration, reason: impl Into<String>) {
        self.set(Some(Current {
            reason: reason.into(),
            until: Some(Instant::now() + term),
        }));
    }

    /// Reports that there is no failure.
    pub fn clear(&self) {
        self.set(None);
    }

    fn set(&self, current: Option<Current>) {
        self.registry.lock()[self.index].current = current;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_lasts_until_it_is_cleared() {
        let registry = HealthRegistry::default();
        let (relay, jobs) = (
            registry.register(Failure::RelayStopped),
            registry.register(Failure::JobsNotRunning),
        );
        relay.fail("the stream is empty");
        let reason = Some("the stream is empty".to_owned());
        let none = (Failure::JobsNotRunning, None);
        assert_eq!(
            registry.failures(),
            [(Failure::RelayStopped, reason), none.clone()]
        );
        relay.clear();
        jobs.clear();
        assert_eq!(registry.failures(), [(Failure::RelayStopped, None), none]);
    }

    #[test]
    fn failure_with_a_term_ends_by_itself() {
        let registry = HealthRegistry::default();
        let refused = registry.register(Failure::NatsPermissionRefused);
        refused.fail_for(Duration::from_mins(1), "refused");
        let now = Instant::now();
        assert_eq!(registry.failures_at(now)[0].1.as_deref(), Some("refused"));
        let later = now + Duration::from_secs(61);
        assert_eq!(registry.failures_at(later)[0].1, None);
    }
}
