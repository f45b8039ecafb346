//! Logs outages of publishing: when one begins, every ten seconds while it
//! lasts, and when it ends.
//!
//! Each line contains the cause, the duration and how many events wait. This is
//! more than [`eventlog::availability`] reports, which logs the changes only.

use std::time::{Duration, Instant};

use eventlog::deadline::with_deadline;
use eventlog::error::error_chain;
use eventlog::read;
use sqlx::PgPool;

use super::{RelayError, STATEMENT_TIMEOUT};

/// How often an ongoing outage is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct OutageLog {
    /// The global position of the last published event; `None` if unknown.
    published: Option<i64>,
    /// When the outage began; `None` while there is none.
    since: Option<Instant>,
    logged_at: Option<Instant>,
}

impl OutageLog {
    /// The stream contains all events up to a global position.
    pub fn published(&mut self, global_position: i64) {
        self.published = Some(global_position);
    }

    /// Publishing failed. Logs the error, unless the outage was logged within
    /// [`LOG_INTERVAL`].
    pub async fn failed(&mut self, error: &RelayError, pool: &PgPool) {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.logged_at.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return;
        }
        self.logged_at = Some(Instant::now());
        let head = with_deadline(STATEMENT_TIMEOUT, read::head(pool))
            .await
            .ok();
        let error = error_chain(error);
        tracing::warn!(
            seconds = since.elapsed().as_secs(),
            // An upper bound, because global positions have gaps.
            waiting_at_most = head
                .zip(self.published)
                .map(|(head, published)| head - published),
            "publishing events failed: {error}; they wait in the log and are published later",
        );
    }

    /// Publishing succeeded, or no event waits.
    pub fn end(&mut self) {
        self.logged_at = None;
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs();
            tracing::warn!(seconds, "publishing events resumed");
        }
    }

    /// Whether publishing failed last.
    pub fn is_ongoing(&self) -> bool {
        self.since.is_some()
    }

    /// Forgets the outage of this relay after another relay has led for
    /// [`LOG_INTERVAL`]. A shorter lead proves nothing, because two failing relays
    /// alternate. Returns whether the outage is forgotten.
    pub fn another_leads(&mut self, since: Instant) -> bool {
        let is_over = since.elapsed() > LOG_INTERVAL;
        if is_over {
            *self = Self::default();
        }
        is_over
    }
}
