//! Distinguishes a Redis that is late from one that hangs.
//!
//! On a saturated machine a healthy Redis responds late, because every process waits for
//! the processor. Requests must keep using it then: reads of Postgres would load the
//! machine even more. So one timeout proves nothing. Redis hangs if several calls in a
//! row time out and nothing is answered in between, not even late.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use eventlog::availability::CircuitBreaker;

/// How long requests skip Redis once it hangs or is disconnected. Then one request tries
/// it. So at most one request per cooldown waits out its deadline while Redis hangs.
const COOLDOWN: Duration = Duration::from_millis(500);

/// The number of consecutive timeouts, without an answer in between, after which Redis
/// counts as hanging.
const MAX_TIMEOUTS: u32 = 3;

/// The least time without an answer until Redis counts as hanging: many calls can time
/// out at the same moment, and some have a shorter deadline.
const MIN_SILENCE: Duration = Duration::from_millis(100);

/// The results of recent calls to Redis.
#[derive(Debug)]
pub(super) struct Liveness {
    breaker: CircuitBreaker,
    /// Timeouts since the last answer. An atomic of its own, so that an answer takes no
    /// lock while there are none.
    timeouts: AtomicU32,
    /// When the first call began that has timed out since the last answer.
    silent_since: Mutex<Option<Instant>>,
}

impl Liveness {
    pub(super) fn new() -> Self {
        Self {
            breaker: CircuitBreaker::new(COOLDOWN),
            timeouts: AtomicU32::new(0),
            silent_since: Mutex::default(),
        }
    }

    /// See [`CircuitBreaker::allows_call`].
    pub(super) fn allows_call(&self) -> bool {
        self.breaker.allows_call()
    }

    /// Redis answered, in time or late.
    pub(super) fn answered(&self) {
        if self.timeouts.load(Ordering::Relaxed) > 0 {
            let mut silent_since = self.lock();
            *silent_since = None;
            self.timeouts.store(0, Ordering::Relaxed);
        }
        self.breaker.close();
    }

    /// A call that began at `began_at` was not answered within its deadline.
    pub(super) fn timed_out(&self, began_at: Instant) {
        self.timed_out_at(began_at, Instant::now());
    }

    fn timed_out_at(&self, began_at: Instant, now: Instant) {
        let mut silent_since = self.lock();
        let since = *silent_since.get_or_insert(began_at);
        let timeouts = self.timeouts.fetch_add(1, Ordering::Relaxed) + 1;
        if timeouts >= MAX_TIMEOUTS && now.duration_since(since) >= MIN_SILENCE {
            self.breaker.open();
        }
    }

    /// There is no connection to Redis.
    pub(super) fn disconnected(&self) {
        self.breaker.open();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.silent_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(100);

    /// A call that begins this many milliseconds after `start` and times out.
    fn time_out(liveness: &Liveness, start: Instant, began_ms: u64) {
        let began_at = start + Duration::from_millis(began_ms);
        liveness.timed_out_at(began_at, began_at + DEADLINE);
    }

    #[test]
    fn three_timeouts_without_an_answer_mean_that_redis_hangs() {
        let (liveness, start) = (Liveness::new(), Instant::now());
        time_out(&liveness, start, 0);
        time_out(&liveness, start, 100);
        assert!(liveness.allows_call());
        time_out(&liveness, start, 200);
        assert!(!liveness.allows_call());
        liveness.answered();
        assert!(liveness.allows_call());
        time_out(&liveness, start, 700);
        assert!(liveness.allows_call(), "the answer ended the silence");
    }

    #[test]
    fn late_answers_keep_redis_available() {
        let (liveness, start) = (Liveness::new(), Instant::now());
        for n in 0..100 {
            time_out(&liveness, start, n * 100);
            time_out(&liveness, start, n * 100);
            liveness.answered();
            assert!(liveness.allows_call());
        }
    }

    #[test]
    fn short_deadlines_prove_nothing_before_the_silence_is_long() {
        let (liveness, start) = (Liveness::new(), Instant::now());
        let short = Duration::from_millis(10);
        for n in 0..9 {
            let began_at = start + n * short;
            liveness.timed_out_at(began_at, began_at + short);
            assert!(liveness.allows_call(), "after {n} timeouts");
        }
        let began_at = start + 9 * short;
        liveness.timed_out_at(began_at, began_at + short);
        assert!(!liveness.allows_call(), "nothing was answered for 100 ms");
    }

    #[test]
    fn lost_connection_disables_redis_at_once() {
        let liveness = Liveness::new();
        liveness.disconnected();
        assert!(!liveness.allows_call());
        liveness.answered();
        assert!(liveness.allows_call());
    }
}
