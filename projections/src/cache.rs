//! Calls to Redis with a deadline and a circuit breaker.
//!
//! Redis is a cache: callers treat every failure like a miss, and never wait or retry.

use std::sync::Arc;
use std::time::Duration;

use eventlog::availability::CircuitBreaker;
use redis::RedisError;
use redis::aio::ConnectionManager;
use thiserror::Error;

/// How long requests skip Redis after a failed call. Then one request tries it. So at
/// most one request per cooldown waits out its deadline while Redis hangs.
const COOLDOWN: Duration = Duration::from_millis(500);

/// A handle to Redis; cheap to clone. Clones share the circuit breaker.
#[derive(Clone)]
pub struct Cache {
    connection: ConnectionManager,
    breaker: Arc<CircuitBreaker>,
}

/// A call to Redis failed. Callers read Postgres instead.
#[derive(Debug, Error)]
pub enum CacheError {
    #[error("Redis did not respond within {0:?}")]
    TimedOut(Duration),
    #[error("Redis failed")]
    Failed(#[from] RedisError),
    /// No call was made, because an earlier one failed within the cooldown.
    #[error("Redis is unavailable")]
    Unavailable,
}

impl Cache {
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self {
            connection,
            breaker: Arc::new(CircuitBreaker::new(COOLDOWN)),
        }
    }

    /// Makes a call with a deadline. The timeouts of the connection do not include the
    /// time that it waits for a reconnect; this deadline does.
    pub async fn call<T>(
        &self,
        deadline: Duration,
        call: impl AsyncFnOnce(ConnectionManager) -> Result<T, RedisError>,
    ) -> Result<T, CacheError> {
        match tokio::time::timeout(deadline, call(self.connection.clone())).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(CacheError::TimedOut(deadline)),
        }
    }

    /// Like [`Cache::call`], for requests: fails at once while the circuit breaker is
    /// open.
    pub async fn call_if_available<T>(
        &self,
        deadline: Duration,
        call: impl AsyncFnOnce(ConnectionManager) -> Result<T, RedisError>,
    ) -> Result<T, CacheError> {
        if !self.breaker.allows_call() {
            return Err(CacheError::Unavailable);
        }
        let result = self.call(deadline, call).await;
        match &result {
            Ok(_) => self.breaker.close(),
            Err(_) => self.breaker.open(),
        };
        result
    }
}
