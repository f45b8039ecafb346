//! A health probe of Postgres with a connection pool of its own.
//!
//! The API uses it for readiness, and to mark an active session from Redis as
//! possibly outdated. The probe never waits behind requests, because it shares no
//! connection with them.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::availability::Availability;
use crate::deadline::with_deadline;

const PING_INTERVAL: Duration = Duration::from_secs(1);

/// The time for a ping, including the connect.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The health of Postgres; cheap to clone.
#[derive(Clone, Debug)]
pub struct DatabaseHealth {
    pool: PgPool,
    availability: Arc<Availability>,
}

impl DatabaseHealth {
    /// Pings with `pool`, which nothing else should use.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self {
            pool,
            availability: Arc::new(Availability::new(
                "Postgres",
                "commands fail with 503 until it is available",
            )),
        }
    }

    /// The result of the last ping; `true` before the first.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.availability.is_available()
    }

    /// Pings Postgres now and returns whether it responded.
    pub async fn check(&self) -> bool {
        let ping = async { self.pool.acquire().await?.ping().await };
        let result = with_deadline(PING_TIMEOUT, ping).await;
        match &result {
            Ok(()) => self.availability.succeeded(),
            Err(error) => self.availability.failed(error),
        }
        result.is_ok()
    }

    /// Pings Postgres every second until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            self.check().await;
            let _ = tokio::time::timeout(PING_INTERVAL, shutdown.cancelled()).await;
        }
    }
}
