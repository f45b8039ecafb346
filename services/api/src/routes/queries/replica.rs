//! Reads from a replica of Postgres while it works. Clients never see an error of
//! the replica: if a read fails or takes too long, the primary serves it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventlog::Pool;
use eventlog::availability::Availability;
use eventlog::sqlstate::SqlState;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;

/// How long a read of the replica may take. If it times out, the client waits for
/// the primary on top.
pub const REPLICA_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the circuit breaker stays open before it lets one read through.
const COOLDOWN: Duration = Duration::from_secs(1);

/// A replica. Clones are cheap and share the circuit breaker.
#[derive(Clone, Debug)]
pub struct Replica {
    pool: Pool,
    health: Arc<ReplicaHealth>,
    reads: Counter,
    fallbacks: Family<FallbackLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FallbackLabels {
    reason: Fallback,
}

/// Why the primary served a read instead of the replica.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Fallback {
    /// The replica has not reached `min_position` yet.
    Behind,
    CircuitOpen,
    /// The replica is unreachable, or its pool has no free connection.
    Unavailable,
    Timeout,
    /// The replica cancelled the query.
    Cancelled,
    /// Another error of the replica.
    Failed,
}

impl Replica {
    #[must_use]
    pub fn new(pool: Pool, registry: &mut Registry) -> Self {
        let reads = Counter::default();
        registry.register(
            "reading_sessions_replica_reads",
            "Reads that the replica served",
            reads.clone(),
        );
        let fallbacks = Family::default();
        registry.register(
            "reading_sessions_replica_fallbacks",
            "Reads that the primary served instead of the replica, by reason",
            fallbacks.clone(),
        );
        Self {
            pool,
            health: Arc::new(ReplicaHealth::new(COOLDOWN)),
            reads,
            fallbacks,
        }
    }

    /// Returns `None` if the primary has to serve the read: the replica failed, or
    /// `query` returned `None` because the replica is too far behind.
    pub(super) async fn read<T, Rows>(
        &self,
        query: impl FnOnce(PoolConnection<Postgres>) -> Rows,
    ) -> Option<T>
    where
        Rows: Future<Output = sqlx::Result<Option<T>>>,
    {
        match self.try_read(query).await {
            Ok(rows) => {
                self.reads.inc();
                Some(rows)
            }
            Err(reason) => {
                let labels = FallbackLabels { reason };
                self.fallbacks.get_or_create(&labels).inc();
                None
            }
        }
    }

    async fn try_read<T, Rows>(
        &self,
        query: impl FnOnce(PoolConnection<Postgres>) -> Rows,
    ) -> Result<T, Fallback>
    where
        Rows: Future<Output = sqlx::Result<Option<T>>>,
    {
        if !self.health.allow() {
            return Err(Fallback::CircuitOpen);
        }
        let read = async { query(self.pool.acquire().await?).await };
        let (reason, error) = match tokio::time::timeout(REPLICA_TIMEOUT, read).await {
            Ok(Ok(rows)) => {
                self.health.record_success();
                return rows.ok_or(Fallback::Behind);
            }
            Ok(Err(error)) => (Fallback::from_error(&error), error.to_string()),
            Err(elapsed) => (Fallback::Timeout, elapsed.to_string()),
        };
        if reason == Fallback::Cancelled {
            self.health.record_cancel(&error);
        } else {
            self.health.record_failure(&error);
        }
        Err(reason)
    }
}

impl Fallback {
    fn from_error(error: &sqlx::Error) -> Self {
        match SqlState::from_error(error) {
            // `statement_timeout` expired, or the query conflicted with replay.
            Some(SqlState::QueryCanceled | SqlState::SerializationFailure) => {
                return Self::Cancelled;
            }
            Some(SqlState::OperatorIntervention) => return Self::Unavailable,
            _ => {}
        }
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed => Self::Unavailable,
            _ => Self::Failed,
        }
    }
}

impl EncodeLabelValue for Fallback {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let name = match self {
            Self::Behind => "behind",
            Self::CircuitOpen => "resting",
            Self::Unavailable => "away",
            Self::Timeout => "slow",
            Self::Cancelled => "cancelled",
            Self::Failed => "refused",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

/// A circuit breaker that tolerates single cancelled queries.
#[derive(Debug)]
struct ReplicaHealth {
    availability: Availability,
    /// Whether a query was cancelled since the last success.
    cancelled: AtomicBool,
}

impl ReplicaHealth {
    fn new(cooldown: Duration) -> Self {
        Self {
            availability: Availability::with_circuit_breaker(
                "read replica",
                "queries use the primary",
                cooldown,
            ),
            cancelled: AtomicBool::new(false),
        }
    }

    fn allow(&self) -> bool {
        self.availability.allows_call()
    }

    fn record_success(&self) {
        self.cancelled.store(false, Ordering::Relaxed);
        self.availability.succeeded();
    }

    fn record_failure(&self, error: &str) {
        self.availability.failed(&error);
    }

    /// One cancelled query may be slow itself, or conflict with replay: other
    /// queries are unaffected. The second one in a row counts as a failure.
    fn record_cancel(&self, error: &str) {
        if self.cancelled.swap(true, Ordering::Relaxed) {
            self.record_failure(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_cancelled_query_in_a_row_opens_the_circuit() {
        let health = ReplicaHealth::new(Duration::from_hours(1));
        health.record_cancel("canceling statement due to statement timeout");
        assert!(health.allow());
        health.record_success();
        health.record_cancel("canceling statement due to conflict with recovery");
        assert!(health.allow(), "a query succeeded in between");
        health.record_cancel("canceling statement due to conflict with recovery");
        assert!(!health.allow());
        health.record_success();
        assert!(health.allow());
    }

    #[test]
    fn any_other_failure_opens_the_circuit() {
        let health = ReplicaHealth::new(Duration::from_hours(1));
        assert!(health.allow());
        health.record_failure("connection refused");
        assert!(!health.allow());
    }
}
