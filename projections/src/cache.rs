//! Calls to Redis with a deadline and a circuit breaker.
//!
//! Redis is a cache: callers treat every failure like a miss, and never retry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::aio::ConnectionManager;
use redis::{ErrorKind, RedisError};
use thiserror::Error;

mod liveness;

use liveness::Liveness;

/// How long a late answer is waited for, after the call has ended.
const LATE_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A handle to Redis; cheap to clone. Clones share the circuit breaker.
#[derive(Clone)]
pub struct Cache {
    connection: ConnectionManager,
    state: Arc<State>,
}

struct State {
    liveness: Liveness,
    /// Whether a task waits for a late answer.
    awaits_late_answer: AtomicBool,
}

/// A call to Redis failed. Callers read Postgres instead.
#[derive(Debug, Error)]
pub enum CacheError {
    #[error("Redis did not respond within {0:?}")]
    TimedOut(Duration),
    #[error("Redis failed")]
    Failed(#[from] RedisError),
    /// No call was made, because Redis hung or was disconnected within the cooldown.
    #[error("Redis is unavailable")]
    Unavailable,
}

impl Cache {
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self {
            connection,
            state: Arc::new(State {
                liveness: Liveness::new(),
                awaits_late_answer: AtomicBool::new(false),
            }),
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
        let liveness = &self.state.liveness;
        if !liveness.allows_call() {
            return Err(CacheError::Unavailable);
        }
        let began_at = Instant::now();
        let result = self.call(deadline, call).await;
        match &result {
            Err(CacheError::TimedOut(_)) => {
                liveness.timed_out(began_at);
                self.await_late_answer();
            }
            Err(CacheError::Failed(error)) if !is_answer(error) => liveness.disconnected(),
            Ok(_) | Err(_) => liveness.answered(),
        }
        result
    }

    /// Finds out whether Redis answers late. It answers the calls of a connection in
    /// their order, so the answer to a PING follows that of each call before it.
    fn await_late_answer(&self) {
        let state = Arc::clone(&self.state);
        if state.awaits_late_answer.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut connection = self.connection.clone();
        tokio::spawn(async move {
            let ping = redis::cmd("PING");
            let answer = ping.query_async::<redis::Value>(&mut connection);
            let answer = tokio::time::timeout(LATE_ANSWER_TIMEOUT, answer).await;
            let is_alive = match answer {
                Ok(Ok(_)) => true,
                Ok(Err(error)) => is_answer(&error),
                Err(_) => false,
            };
            if is_alive {
                state.liveness.answered();
            }
            state.awaits_late_answer.store(false, Ordering::Relaxed);
        });
    }
}

/// Whether Redis itself returned the error, for example because the user may not run the
/// command. Other errors come from the connection.
fn is_answer(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType
    )
}
