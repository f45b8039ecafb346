//! A replica of Postgres that reads for the primary, as long as it does so well.
//! Nothing it does or does not do is a client's concern: whatever it does not
//! answer soon, the primary is asked.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a read may take at the replica. The primary is there to answer it
/// instead, and a reader waits for both.
pub const REPLICA_PATIENCE: Duration = Duration::from_secs(1);

use eventlog::Pool;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;

use prometheus_client::registry::Registry;

/// How long a replica that failed is left alone. Then one read asks it, and the
/// others only when that one was answered.
const REST: Duration = Duration::from_secs(1);

/// What Postgres says to a query that stood in the way of what the primary did,
/// and to one that took too long (`serialization_failure`, `query_canceled`).
const CANCELLED: [&str; 2] = ["40001", "57014"];

/// A replica; cheap to clone.
#[derive(Clone, Debug)]
pub struct Replica {
    pool: Pool,
    breaker: Arc<Breaker>,
    reads: Counter,
    fallbacks: Family<Fallback, Counter>,
}

/// A read that the primary has to answer.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Fallback {
    reason: Reason,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Reason {
    /// It does not have yet what the answer must include.
    Behind,
    /// It failed a moment ago, and was not asked.
    Resting,
    /// It cannot be reached, or has no connection left.
    Away,
    /// It took too long.
    BodyTimeout,
    /// It broke the query off.
    Cancelled,
    /// It answered otherwise.
    Refused,
}

impl Replica {
    /// A replica that is reached by a pool.
    #[must_use]
    pub fn new(pool: Pool, registry: &mut Registry) -> Self {
        let reads = Counter::default();
        registry.register("reading_sessions_replica_reads", "Reads that the replica answered", reads.clone());
        let fallbacks = Family::default();
        registry.register("reading_sessions_replica_fallbacks", "Reads that the primary answered instead of the replica, by why", fallbacks.clone());
        Self {
            pool,
            breaker: Arc::default(),
            reads,
            fallbacks,
        }
    }

    /// What a query finds here; `None` when the primary is to be asked, because
    /// the query finds nothing (this is too old) or the replica does not answer.
    pub async fn read<T, Found>(
        &self,
        query: impl FnOnce(PoolConnection<Postgres>) -> Found,
    ) -> Option<T>
    where
        Found: Future<Output = sqlx::Result<Option<T>>>,
    {
        let reason = match self.ask(query).await {
            Ok(found) => {
                self.reads.inc();
                return Some(found);
            }
            Err(reason) => reason,
        };
        self.fallbacks.get_or_create(&Fallback { reason }).inc();
        None
    }

    async fn ask<T, Found>(
        &self,
        query: impl FnOnce(PoolConnection<Postgres>) -> Found,
    ) -> Result<T, Reason>
    where
        Found: Future<Output = sqlx::Result<Option<T>>>,
    {
        if !self.breaker.lets_through(Instant::now()) {
            return Err(Reason::Resting);
        }
        let read = async { query(self.pool.acquire().await?).await };
        let (reason, error) = match tokio::time::timeout(REPLICA_PATIENCE, read).await {
            Ok(Ok(found)) => {
                if self.breaker.close() {
                    tracing::info!("the replica answers again");
                }
                return found.ok_or(Reason::Behind);
            }
            Ok(Err(error)) => (Reason::of(&error), error.to_string()),
            Err(late) => (Reason::BodyTimeout, late.to_string()),
        };
        // One query that takes too long, or is in the way of what is replayed, says
        // nothing of others; a second one does if none succeeded in between.
        let opens = reason != Reason::Cancelled || self.breaker.doubts();
        if opens && self.breaker.open(Instant::now()) {
            tracing::warn!(error, "the replica does not answer; the primary does");
        }
        Err(reason)
    }
}

impl Reason {
    fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => match error.code() {
                Some(code) if CANCELLED.contains(&code.as_ref()) => Self::Cancelled,
                // It is shutting down, or starting (operator intervention).
                Some(code) if code.starts_with("57") => Self::Away,
                _ => Self::Refused,
            },
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed => Self::Away,
            _ => Self::Refused,
        }
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let name = match self {
            Self::Behind => "behind",
            Self::Resting => "resting",
            Self::Away => "away",
            Self::BodyTimeout => "slow",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

/// A circuit breaker: open, it lets one call through in a while.
#[derive(Debug, Default)]
struct Breaker {
    /// When the next call may go through; `None` while it is closed.
    next: Mutex<Option<Instant>>,
    /// Whether the last call was broken off.
    doubted: AtomicBool,
}

impl Breaker {
    fn lets_through(&self, now: Instant) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        match *next {
            None => true,
            Some(time) if now < time => false,
            // Whatever becomes of this call, the one after it has to wait again.
            Some(_) => {
                *next = Some(now + REST);
                true
            }
        }
    }

    /// A call was broken off; tells whether the one before it was too.
    fn doubts(&self) -> bool {
        self.doubted.swap(true, Ordering::Relaxed)
    }

    /// A call failed; tells whether that is news.
    fn open(&self, now: Instant) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.replace(now + REST).is_none()
    }

    /// A call succeeded; tells whether that is news.
    fn close(&self) -> bool {
        self.doubted.store(false, Ordering::Relaxed);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_breaker_lets_one_call_through_in_a_while() {
        let breaker = Breaker::default();
        let start = Instant::now();
        assert!(breaker.lets_through(start) && breaker.lets_through(start));
        assert!(breaker.open(start));
        assert!(!breaker.open(start), "no news");
        assert!(!breaker.lets_through(start));

        let rested = start + REST;
        assert!(breaker.lets_through(rested));
        assert!(!breaker.lets_through(rested), "one is enough");
        assert!(
            breaker.lets_through(rested + REST),
            "if it never comes back"
        );

        assert!(breaker.close());
        assert!(!breaker.close(), "no news");
        assert!(!breaker.doubts() && breaker.doubts());
        breaker.close();
        assert!(!breaker.doubts(), "one succeeded in between");
        assert!(breaker.lets_through(rested) && breaker.lets_through(rested));
    }
}
