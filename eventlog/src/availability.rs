//! Whether a dependency (Postgres, Redis, a replica) is available: a log line
//! per change instead of one per failed call, and an optional circuit breaker.
//!
//! This module makes no calls. Its callers report how their calls ended.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Withholds calls for a cooldown after a failed call. After the cooldown it
/// allows one call as a probe (half-open); the probe closes or reopens it.
///
/// The state is one atomic, so that a check on a hot path takes no lock.
#[derive(Debug)]
pub struct CircuitBreaker {
    cooldown: Duration,
    created_at: Instant,
    /// When the next probe is allowed, in milliseconds after `created_at`; 0
    /// while the breaker is closed.
    probe_at_ms: AtomicU64,
}

impl CircuitBreaker {
    #[must_use]
    pub fn new(cooldown: Duration) -> Self {
        Self {
            cooldown,
            created_at: Instant::now(),
            probe_at_ms: AtomicU64::new(0),
        }
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.probe_at_ms.load(Ordering::Relaxed) == 0
    }

    /// Whether the caller may make its call. While the breaker is open, this
    /// returns `true` to one caller per cooldown. A probe that never returns
    /// therefore delays the next one by a cooldown and no longer.
    #[must_use]
    pub fn allows_call(&self) -> bool {
        self.allows_call_at(Instant::now())
    }

    fn allows_call_at(&self, now: Instant) -> bool {
        let probe_at = self.probe_at_ms.load(Ordering::Relaxed);
        probe_at == 0
            || self.millis(now) >= probe_at
                && self
                    .probe_at_ms
                    .compare_exchange(
                        probe_at,
                        self.next_probe(now),
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    )
                    .is_ok()
    }

    /// Records a failed call. Returns whether the breaker was closed before.
    pub fn open(&self) -> bool {
        self.open_at(Instant::now())
    }

    fn open_at(&self, now: Instant) -> bool {
        self.probe_at_ms
            .swap(self.next_probe(now), Ordering::Relaxed)
            == 0
    }

    /// Records a successful call. Returns whether the breaker was open before.
    pub fn close(&self) -> bool {
        // Most calls find it closed: they must not contend for the cache line.
        !self.is_closed() && self.probe_at_ms.swap(0, Ordering::Relaxed) != 0
    }

    fn millis(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.created_at);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    /// Never 0, which means a closed breaker.
    fn next_probe(&self, now: Instant) -> u64 {
        self.millis(now + self.cooldown).max(1)
    }
}

/// Logs when a dependency becomes unavailable and when it is available again,
/// once each.
#[derive(Debug)]
pub struct Availability {
    dependency: &'static str,
    consequence: &'static str,
    breaker: CircuitBreaker,
}

impl Availability {
    /// `dependency` is the subject of both log lines, such as "Redis".
    /// `consequence` completes the first one: how the service works without the
    /// dependency, or the next step of an operator.
    #[must_use]
    pub fn new(dependency: &'static str, consequence: &'static str) -> Self {
        Self::with_circuit_breaker(dependency, consequence, Duration::ZERO)
    }

    /// Also withholds calls; see [`CircuitBreaker`].
    #[must_use]
    pub fn with_circuit_breaker(
        dependency: &'static str,
        consequence: &'static str,
        cooldown: Duration,
    ) -> Self {
        Self {
            dependency,
            consequence,
            breaker: CircuitBreaker::new(cooldown),
        }
    }

    /// Whether the last recorded call succeeded; `true` before the first one.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.breaker.is_closed()
    }

    /// See [`CircuitBreaker::allows_call`]; always `true` without a breaker.
    #[must_use]
    pub fn allows_call(&self) -> bool {
        self.breaker.cooldown.is_zero() || self.breaker.allows_call()
    }

    /// Records a failed call.
    pub fn failed(&self, cause: &dyn Display) {
        if self.breaker.open() {
            let Self {
                dependency,
                consequence,
                ..
            } = self;
            tracing::warn!(
                dependency,
                error = %cause,
                "{dependency} unavailable: {cause}; {consequence}"
            );
        }
    }

    /// Records a successful call.
    pub fn succeeded(&self) {
        if self.breaker.close() {
            let dependency = self.dependency;
            tracing::info!(dependency, "{dependency} available again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(1);

    #[test]
    fn open_breaker_allows_one_probe_per_cooldown() {
        let breaker = CircuitBreaker::new(COOLDOWN);
        let start = breaker.created_at;
        assert!(breaker.allows_call_at(start) && breaker.allows_call_at(start));

        assert!(breaker.open_at(start));
        assert!(!breaker.open_at(start), "it was open");
        assert!(!breaker.allows_call_at(start));

        let probe_at = start + COOLDOWN;
        assert!(breaker.allows_call_at(probe_at));
        assert!(!breaker.allows_call_at(probe_at), "one probe suffices");
        assert!(
            breaker.allows_call_at(probe_at + COOLDOWN),
            "the first probe never returned"
        );
    }

    #[test]
    fn success_closes_the_breaker() {
        let breaker = CircuitBreaker::new(COOLDOWN);
        let start = breaker.created_at;
        breaker.open_at(start);
        assert!(breaker.close());
        assert!(!breaker.close(), "it was closed");
        assert!(breaker.allows_call_at(start) && breaker.allows_call_at(start));
    }

    #[test]
    fn availability_without_breaker_withholds_no_call() {
        let availability = Availability::new("Redis", "each process counts alone");
        assert!(availability.is_available());
        availability.failed(&"connection refused");
        assert!(!availability.is_available());
        assert!(availability.allows_call() && availability.allows_call());
        availability.succeeded();
        assert!(availability.is_available());
    }
}
