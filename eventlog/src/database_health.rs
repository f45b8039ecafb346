//! A health probe of Postgres with a connection pool of its own.
//!
//! The API uses it for readiness, and to mark an active session from Redis as
//! possibly outdated. The probe never waits behind requests, because it shares no
//! connection with them.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::availability::Availability;
use crate::deadline::with_deadline;
use crate::error::error_chain;
use crate::health::{Failure, HealthFlag, HealthRegistry};

const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The time for a probe, including the connect.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the server refuses writes, as far as the service can know.
const READ_ONLY: &str = "Postgres refuses writes: it is a replica, or \
    default_transaction_read_only is on";

/// The health of Postgres; cheap to clone.
#[derive(Clone, Debug)]
pub struct DatabaseHealth {
    pool: PgPool,
    availability: Arc<Availability>,
    writes: Arc<Availability>,
    unavailable: HealthFlag,
    read_only: HealthFlag,
}

impl DatabaseHealth {
    /// Probes with `pool`, which nothing else should use, and reports to `health`.
    #[must_use]
    pub fn new(pool: PgPool, health: &HealthRegistry) -> Self {
        let consequence = "commands fail with 503 until it is available";
        Self {
            pool,
            availability: Arc::new(Availability::new("Postgres", consequence)),
            writes: Arc::new(Availability::new("writing to Postgres", consequence)),
            unavailable: health.register(Failure::PostgresUnavailable),
            read_only: health.register(Failure::PostgresReadOnly),
        }
    }

    /// Whether Postgres responded to the last probe; `true` before the first.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.availability.is_available()
    }

    /// Probes Postgres now and reports the result.
    pub async fn check(&self) {
        match with_deadline(PROBE_TIMEOUT, self.is_read_only()).await {
            Ok(is_read_only) => {
                self.availability.succeeded();
                self.unavailable.clear();
                if is_read_only {
                    self.writes.failed(&READ_ONLY);
                    self.read_only.fail(READ_ONLY);
                } else {
                    self.writes.succeeded();
                    self.read_only.clear();
                }
            }
            Err(error) => {
                self.availability.failed(&error);
                let error = error_chain(&error);
                self.unavailable
                    .fail(format!("Postgres is unavailable: {error}"));
                self.read_only.clear();
            }
        }
    }

    /// A replica is read-only too.
    async fn is_read_only(&self) -> sqlx::Result<bool> {
        sqlx::query_scalar!(
            r#"select current_setting('transaction_read_only')::bool as "is_read_only!""#
        )
        .fetch_one(&self.pool)
        .await
    }

    /// Probes Postgres every second until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            self.check().await;
            let _ = tokio::time::timeout(PROBE_INTERVAL, shutdown.cancelled()).await;
        }
    }
}
