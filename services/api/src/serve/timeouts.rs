//! The timeouts of a connection. The first request must arrive soon, so that a
//! client that sends nothing, or one byte at a time, occupies a connection only
//! briefly. Between requests the timeout is longer.
//!
//! Slow headers on a connection with earlier requests cost no more than an idle
//! connection. They therefore share its timeout.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::ClientTimeouts;

/// Tracks the requests of one connection to decide when it has timed out. Clones share
/// the state.
#[derive(Clone, Debug)]
pub struct ConnectionTimeout {
    timeouts: ClientTimeouts,
    accepted_at: Instant,
    requests: Arc<Mutex<Requests>>,
}

#[derive(Debug, Default)]
struct Requests {
    /// Requests without a response.
    in_progress: usize,
    /// When the responses began that are not sent completely, oldest first.
    responses: Vec<Instant>,
    /// When the latest request finished; `None` before that.
    finished_at: Option<Instant>,
}

/// Marks a request as in progress until it is dropped.
#[derive(Debug)]
pub struct RequestGuard {
    requests: Arc<Mutex<Requests>>,
    /// `None` before the response.
    response_began: Option<Instant>,
}

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
        RequestGuard {
            requests: Arc::clone(&self.requests),
            response_began: None,
        }
    }

    /// Since when the service has been waiting for the client: for its next request, or
    /// for it to receive a response. `None` while the service prepares a response.
    pub fn waiting_since(&self) -> Option<Instant> {
        let requests = lock(&self.requests);
        let oldest = requests.responses.first().copied();
        let since = oldest.or(requests.finished_at);
        (requests.in_progress == 0).then(|| since.unwrap_or(self.accepted_at))
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
    /// When the connection times out. A client that does not receive a response would
    /// otherwise keep it in memory, also if it sends further requests. While only requests
    /// are in progress, the client waits for the service, so there is no deadline; the
    /// result is then the time of the next check.
    fn deadline(&self, timeouts: ClientTimeouts, accepted_at: Instant, now: Instant) -> Instant {
        match (self.responses.first(), self.in_progress, self.finished_at) {
            (Some(oldest), _, _) => *oldest + timeouts.idle,
            (None, 1.., _) => now + timeouts.headers,
            (None, 0, None) => accepted_at + timeouts.headers,
            (None, 0, Some(finished_at)) => finished_at + timeouts.idle,
        }
    }
}

fn lock(requests: &Mutex<Requests>) -> MutexGuard<'_, Requests> {
    requests.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RequestGuard {
    /// The response begins.
    pub fn respond(&mut self) {
        let mut requests = lock(&self.requests);
        let now = Instant::now();
        self.response_began = Some(now);
        requests.in_progress -= 1;
        requests.responses.push(now);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut requests = lock(&self.requests);
        match self.response_began {
            Some(began) => {
                let index = requests.responses.partition_point(|other| *other < began);
                requests.responses.remove(index);
            }
            None => requests.in_progress -= 1,
        }
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
                responses: Vec::new(),
            };
            requests.deadline(timeouts, accepted_at, now)
        };
        assert_eq!(deadline(0, None, at(3)), accepted_at + timeouts.headers);
        assert_eq!(deadline(0, Some(at(5)), at(60)), at(5) + timeouts.idle);
        // A request is in progress, so there is no deadline yet.
        assert!(deadline(1, None, at(30)) > at(30));
        assert!(deadline(2, Some(at(5)), at(200)) > at(200));
    }

    #[tokio::test(start_paused = true)]
    async fn response_that_is_not_received_times_out_in_spite_of_other_requests() {
        let timeouts = ClientTimeouts::default();
        let timeout = ConnectionTimeout::new(timeouts);
        let mut unread = timeout.begin_request();
        unread.respond();
        let began = Instant::now();
        let others = async {
            loop {
                let mut other = timeout.begin_request();
                tokio::time::sleep(Duration::from_secs(7)).await;
                other.respond();
            }
        };
        tokio::select! {
            () = others => {}
            () = timeout.expired() => {}
        }
        assert_eq!(began.elapsed().as_secs(), timeouts.idle.as_secs());
        assert_eq!(timeout.waiting_since(), Some(began));
        drop(unread);
        assert!(timeout.waiting_since() > Some(began));
    }
}
