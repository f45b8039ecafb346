//! What the log tells while events are not published: why, since when and how
//! many wait; once, then now and then, and when it is over.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use super::{DEADLINE, RelayError};
use eventlog::deadline::with_deadline;
use eventlog::read;

/// How often an outage is told of.
const TELL: Duration = Duration::from_secs(10);

/// An outage, if there is one, and how far events were published before it.
#[derive(Debug, Default)]
pub struct OutageLog {
    published: Option<i64>,
    since: Option<Instant>,
    told: Option<Instant>,
}

impl OutageLog {
    /// The stream holds all events up to a global position.
    pub fn published(&mut self, global_position: i64) {
        self.published = Some(global_position);
    }

    /// Nothing waits, or what waited was taken.
    pub fn over(&mut self) {
        self.told = None;
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs();
            tracing::warn!(seconds, "events are published again");
        }
    }

    /// Whether events are not published, as far as this relay knows.
    pub fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// Another relay has been leading since `since`. For a while that says little:
    /// two that fail take turns.
    pub fn led_elsewhere(&mut self, since: Instant) {
        if since.elapsed() > TELL {
            *self = Self::default();
        }
    }

    /// Tells of an error, unless one was told of a moment ago.
    pub async fn tell(&mut self, error: &RelayError, pool: &PgPool) {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.told.is_some_and(|told| told.elapsed() < TELL) {
            return;
        }
        self.told = Some(Instant::now());
        let head = with_deadline(DEADLINE, read::head(pool)).await.ok();
        tracing::warn!(
            error = error as &dyn std::error::Error,
            seconds = since.elapsed().as_secs(),
            // Global positions have holes.
            waiting_at_most = head
                .zip(self.published)
                .map(|(head, published)| head - published),
            "events are not published; they wait in the log",
        );
    }
}
