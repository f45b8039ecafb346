//! How long a connection may keep the service waiting: briefly for its first
//! request, so that one that says nothing, or says it a byte at a time, costs
//! little; longer between requests. A head that comes slowly on a connection
//! that has been served costs no more than one that is idle, so it has the same
//! time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::Limits;

/// The requests of one connection, and how long to wait for the next.
pub struct ConnectionTimeout {
    limits: Limits,
    accepted: Instant,
    requests: Arc<Mutex<Requests>>,
}

#[derive(Default)]
struct Requests {
    open: usize,
    /// When the last one was answered.
    answered: Option<Instant>,
}

/// A request that is being answered; dropped, it is answered or given up.
pub struct Open(Arc<Mutex<Requests>>);

impl ConnectionTimeout {
    /// For a connection that was accepted just now.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            accepted: Instant::now(),
            requests: Arc::default(),
        }
    }

    /// Counts a request.
    pub fn open(&self) -> Open {
        lock(&self.requests).open += 1;
        Open(Arc::clone(&self.requests))
    }

    /// Comes when the connection has kept the service waiting for too long.
    pub async fn exhausted(&self) {
        loop {
            let now = Instant::now();
            let deadline = lock(&self.requests).deadline(self.limits, self.accepted, now);
            if deadline <= now {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

impl Requests {
    /// When to end the connection, or to look again: while requests are open,
    /// the client waits for the service, not the other way round.
    fn deadline(&self, limits: Limits, accepted: Instant, now: Instant) -> Instant {
        match (self.open, self.answered) {
            (1.., _) => now + limits.head,
            (0, None) => accepted + limits.head,
            (0, Some(answered)) => answered + limits.idle,
        }
    }
}

fn lock(requests: &Mutex<Requests>) -> MutexGuard<'_, Requests> {
    requests.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut requests = lock(&self.0);
        requests.open -= 1;
        requests.answered = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_request_must_come_soon_and_the_next_may_come_later() {
        let limits = Limits::default();
        let accepted = Instant::now();
        let at = |seconds| accepted + Duration::from_secs(seconds);
        let deadline = |open, answered, now| {
            let requests = Requests { open, answered };
            requests.deadline(limits, accepted, now)
        };
        assert_eq!(deadline(0, None, at(3)), accepted + limits.head);
        assert_eq!(deadline(0, Some(at(5)), at(60)), at(5) + limits.idle);
        // It waits for the service; there is no deadline yet.
        assert!(deadline(1, None, at(30)) > at(30));
        assert!(deadline(2, Some(at(5)), at(200)) > at(200));
    }
}
