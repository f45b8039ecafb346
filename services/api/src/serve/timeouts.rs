//! The timeouts of a connection. The first request must arrive soon, so that a
//! client that sends nothing, or one byte at a time, occupies a connection only
//! briefly. Between requests the timeout is longer.
//!
//! Slow headers on a connection with earlier requests cost no more than an idle
//! connection. They therefore share its timeout.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::ClientTimeouts;

/// Tracks the requests of one connection to decide when it has timed out.
pub struct ConnectionTimeout {
    timeouts: ClientTimeouts,
    accepted_at: Instant,
    requests: Arc<Mutex<Requests>>,
}

#[derive(Default)]
struct Requests {
    in_progress: usize,
    /// When the latest request finished; `None` before that.
    finished_at: Option<Instant>,
}

/// Marks a request as in progress until it is dropped.
pub struct RequestGuard(Arc<Mutex<Requests>>);

impl ConnectionTimeout {
    pub fn new(timeouts: ClientTimeouts) -> Self {
        Self {
            timeouts,
            accepted_at: Instant::now(),
            requests: Arc::default(),
        }
    }

    pub fn begin_request(&self) -> RequestGuard {
        lock(&self.requests).in_progress += 1;
        RequestGuard(Arc::clone(&self.requests))
    }

    /// Completes when the connection has timed out.
    pub async fn expired(&self) {
        loop {
            let now = Instant::now();
            let deadline = lock(&self.requests).deadline(self.timeouts, self.accepted_at, now);
            if deadline <= now {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

impl Requests {
    /// When the connection times out. While a request is in progress, the client
    /// waits for the service, so there is no deadline; the result is then the time
    /// of the next check.
    fn deadline(&self, timeouts: ClientTimeouts, accepted_at: Instant, now: Instant) -> Instant {
        match (self.in_progress, self.finished_at) {
            (1.., _) => now + timeouts.headers,
            (0, None) => accepted_at + timeouts.headers,
            (0, Some(finished_at)) => finished_at + timeouts.idle,
        }
    }
}

fn lock(requests: &Mutex<Requests>) -> MutexGuard<'_, Requests> {
    requests.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut requests = lock(&self.0);
        requests.in_progress -= 1;
        requests.finished_at = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn first_request_has_a_shorter_deadline_than_the_next() {
        let timeouts = ClientTimeouts::default();
        let accepted_at = Instant::now();
        let at = |seconds| accepted_at + Duration::from_secs(seconds);
        let deadline = |in_progress, finished_at, now| {
            let requests = Requests {
                in_progress,
                finished_at,
            };
            requests.deadline(timeouts, accepted_at, now)
        };
        assert_eq!(deadline(0, None, at(3)), accepted_at + timeouts.headers);
        assert_eq!(deadline(0, Some(at(5)), at(60)), at(5) + timeouts.idle);
        // A request is in progress, so there is no deadline yet.
        assert!(deadline(1, None, at(30)) > at(30));
        assert!(deadline(2, Some(at(5)), at(200)) > at(200));
    }
}
