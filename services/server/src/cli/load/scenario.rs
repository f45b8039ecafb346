//! The users of the original's load test: what they send, how often, and how long they
//! pause. Three in four users read, and one in four requests the active session in bursts.
//!
//! Users wait for each response before they pause. So a slow service receives fewer
//! requests, as it does from people.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Load;
use super::figures::Failure;
use super::http::CallError;
use super::readers::Token;
use super::request::Request;

/// One of this many users sends bursts; the others read.
pub const BURST_SHARE: usize = 4;

/// Pause of a reading user between two requests, in milliseconds.
const READING_PAUSE: RangeInclusive<u64> = 5_000..=10_000;

/// Pause of a burst user between two bursts, in milliseconds.
const BURST_PAUSE: RangeInclusive<u64> = 1_000..=2_000;

/// Requests in a burst.
const BURST_SIZE: usize = 5;

/// Bursts until a burst user continues as another reader. With the start and the end that
/// is 27 calls. The service allows a reader 30 such calls per minute.
const BURSTS_PER_READER: usize = 5;

/// Readers that a burst user needs until the first of them has no call in the window of
/// 60 s. A reader is in use for at least six of the shortest pauses.
pub const READERS_PER_BURST_USER: usize = 11;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reading,
    Burst,
}

/// A session that the run started and has not ended.
pub struct OpenSession {
    pub token: Token,
    pub id: Uuid,
    pub position: u32,
}

/// A simulated user.
pub struct User {
    load: Arc<Load>,
    kind: Kind,
    token: Token,
    session: Option<Uuid>,
    /// Percent of the book.
    position: u32,
    /// Bursts of the current reader.
    bursts: usize,
    /// Sessions of earlier readers whose end failed.
    open: Vec<OpenSession>,
}

impl User {
    /// The user with this number, from 0 on. The kinds alternate, so that their shares are
    /// right at any time of the ramp-up.
    pub fn new(load: Arc<Load>, number: usize) -> Self {
        let is_burst = number % BURST_SHARE == BURST_SHARE - 1;
        Self {
            kind: if is_burst { Kind::Burst } else { Kind::Reading },
            token: load.readers.take(),
            load,
            session: None,
            position: 0,
            bursts: 0,
            open: Vec::new(),
        }
    }

    /// Sends requests until `stop` is cancelled. A request in progress completes first.
    /// Returns the sessions that are still active.
    pub async fn run(mut self, stop: CancellationToken) -> Vec<OpenSession> {
        while !stop.is_cancelled() {
            let pause = match self.kind {
                Kind::Reading => {
                    self.send_random_request().await;
                    READING_PAUSE
                }
                Kind::Burst => {
                    self.send_burst(&stop).await;
                    BURST_PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(random_pause(&pause)) => {}
            }
        }
        self.open.extend(self.open_session());
        self.open
    }

    fn open_session(&self) -> Option<OpenSession> {
        self.session.map(|id| OpenSession {
            token: self.token.clone(),
            id,
            position: self.position,
        })
    }

    /// The weights of the original. A user without a session starts one instead of an
    /// update or an end, as an app would.
    async fn send_random_request(&mut self) {
        match (random_below(100), self.session) {
            (30..80, Some(session)) => self.update(session).await,
            (80..90, Some(session)) => self.end(session).await,
            (90.., _) => self.send(Request::History).await,
            (..90, _) => self.start().await,
        }
    }

    /// The first request of a reader starts a session, so that the bursts read one.
    async fn send_burst(&mut self, stop: &CancellationToken) {
        if self.bursts == BURSTS_PER_READER {
            self.continue_as_another_reader().await;
        }
        if self.session.is_none() {
            return self.start().await;
        }
        self.bursts += 1;
        for _ in 0..BURST_SIZE {
            if stop.is_cancelled() {
                break;
            }
            self.send(Request::Active).await;
        }
    }

    async fn continue_as_another_reader(&mut self) {
        if let Some(session) = self.session {
            self.end(session).await;
        }
        self.open.extend(self.open_session());
        let next = self.load.readers.exchange(&self.token);
        self.token = next;
        self.session = None;
        self.bursts = 0;
    }

    async fn start(&mut self) {
        let request = Request::Start {
            book: Uuid::new_v4(),
        };
        if let Ok(Some(session)) = self.request(request).await {
            self.session = Some(session);
            self.position = 0;
        }
    }

    async fn update(&mut self, session: Uuid) {
        self.position = (self.position + 1) % 100;
        let request = Request::Update {
            session,
            position: self.position,
        };
        self.send(request).await;
    }

    async fn end(&mut self, session: Uuid) {
        let request = Request::End {
            session,
            position: self.position,
        };
        if self.request(request).await.is_ok() {
            self.session = None;
        }
    }

    async fn send(&mut self, request: Request) {
        // The figures contain the result.
        let _ = self.request(request).await;
    }

    /// Sends a request and records it. Forgets a session that the service refuses, as an
    /// app would.
    async fn request(&mut self, request: Request) -> Result<Option<Uuid>, CallError> {
        let (latency, result) = self.load.api.send(&self.token, request).await;
        self.load
            .figures()
            .record(request.call(), latency, result.as_ref().err());
        let refused = matches!(
            result.as_ref().map_err(|error| &error.failure),
            Err(Failure::Status {
                status: 400 | 404,
                ..
            })
        );
        if refused && request.session().is_some() {
            self.session = None;
        }
        result
    }
}

/// A number from 0 to `bound - 1`.
fn random_below(bound: u64) -> u64 {
    // The last four bytes of the UUID are random.
    let (_, random) = Uuid::new_v4().as_u64_pair();
    (random & u64::from(u32::MAX)) % bound
}

/// A random pause from a range of milliseconds.
fn random_pause(millis: &RangeInclusive<u64>) -> Duration {
    let choices = millis.end() - millis.start() + 1;
    Duration::from_millis(millis.start() + random_below(choices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_over_their_range() {
        let pauses: Vec<Duration> = (0..1_000).map(|_| random_pause(&READING_PAUSE)).collect();
        let (shortest, longest) = (Duration::from_secs(5), Duration::from_secs(10));
        assert!(
            pauses
                .iter()
                .all(|pause| (shortest..=longest).contains(pause))
        );
        let short = pauses
            .iter()
            .filter(|pause| **pause < Duration::from_millis(7_500));
        let short = short.count();
        assert!((350..650).contains(&short), "{short}");
    }

    #[test]
    fn a_reader_of_a_burst_user_stays_below_the_rate_limit() {
        // Start and end count towards the same limit.
        let calls = BURSTS_PER_READER * BURST_SIZE + 2;
        assert!(calls <= 30, "{calls}");
        // A pause follows the start and each burst.
        let in_use = BURST_PAUSE.start() * (BURSTS_PER_READER as u64 + 1);
        assert!(in_use * (READERS_PER_BURST_USER as u64 - 1) >= 60_000);
    }
}
