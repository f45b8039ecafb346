//! Redis, as a cache must be used: every call has a deadline, and a failure is
//! an answer like any other, never worth waiting for.

use std::time::Duration;

use redis::RedisError;
use redis::aio::ConnectionManager;
use thiserror::Error;

/// A handle to Redis; cheap to clone.
#[derive(Clone)]
pub struct Cache {
    connection: ConnectionManager,
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
}

impl Cache {
    /// Uses a connection.
    #[must_use]
    pub const fn new(connection: ConnectionManager) -> Self {
        Self { connection }
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
}
