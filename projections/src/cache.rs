//! Redis, as a cache must be used: every call has a deadline, and a failure is
//! an answer like any other, never worth waiting for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::RedisError;
use redis::aio::ConnectionManager;
use thiserror::Error;

/// How long requests do not ask Redis after it failed; then one of them does. So
/// an outage costs one request in a while its deadline, not every one.
const AWAY: Duration = Duration::from_millis(500);

/// A handle to Redis; cheap to clone. Clones know together whether it is away.
#[derive(Clone)]
pub struct Cache {
    connection: ConnectionManager,
    away: Arc<Away>,
}

struct Away {
    since: Instant,
    /// Until when Redis is not asked, in milliseconds after `since`; 0 when it
    /// answers.
    until_ms: AtomicU64,
}

/// Redis had no answer.
#[derive(Debug, Error)]
pub enum CacheError {
    /// None within the deadline.
    #[error("Redis did not answer within {0:?}")]
    Late(Duration),
    /// It refused, or cannot be reached.
    #[error("Redis failed")]
    Failed(#[from] RedisError),
    /// It was not asked, since it did not answer a moment ago.
    #[error("Redis is away")]
    Away,
}

impl Cache {
    /// Uses a connection.
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self {
            connection,
            away: Arc::new(Away {
                since: Instant::now(),
                until_ms: AtomicU64::new(0),
            }),
        }
    }

    /// Makes a call within a deadline. The connection's own timeouts do not
    /// cover waiting for a reconnect; this one does.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub async fn call<T>(
        &self,
        deadline: Duration,
        call: impl AsyncFnOnce(ConnectionManager) -> Result<T, RedisError>,
    ) -> Result<T, CacheError> {
        match tokio::time::timeout(deadline, call(self.connection.clone())).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(CacheError::Late(deadline)),
        }
    }

    /// As [`Cache::call`], for a request that somebody waits for: Redis is not
    /// asked while it is known to be away.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub async fn ask<T>(
        &self,
        deadline: Duration,
        call: impl AsyncFnOnce(ConnectionManager) -> Result<T, RedisError>,
    ) -> Result<T, CacheError> {
        if !self.away.may_ask() {
            return Err(CacheError::Away);
        }
        let answer = self.call(deadline, call).await;
        match &answer {
            Ok(_) => self.away.until_ms.store(0, Ordering::Relaxed),
            Err(_) => self
                .away
                .until_ms
                .store(self.away.next(), Ordering::Relaxed),
        }
        answer
    }
}

impl Away {
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn next(&self) -> u64 {
        self.now() + u64::try_from(AWAY.as_millis()).unwrap_or(u64::MAX)
    }

    /// While Redis is away, one caller at a time finds out whether it still is.
    fn may_ask(&self) -> bool {
        let until = self.until_ms.load(Ordering::Relaxed);
        until == 0
            || self.now() >= until
                && self
                    .until_ms
                    .compare_exchange(until, self.next(), Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_asks_a_redis_that_is_away() {
        let away = Away {
            since: Instant::now()
                .checked_sub(AWAY)
                .expect("the clock has run for longer"),
            until_ms: AtomicU64::new(0),
        };
        assert!(away.may_ask() && away.may_ask());
        away.until_ms.store(1, Ordering::Relaxed);
        assert!(away.may_ask());
        assert!(!away.may_ask());
    }
}
