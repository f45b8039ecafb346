//! Whether Postgres is there, asked all the time by a connection of its own: who
//! answers from Redis alone can say that it may be stale, and a probe does not
//! wait behind requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::deadline::with_deadline;
use sqlx::{Connection, PgPool};
use tokio_util::sync::CancellationToken;

/// How often Postgres is asked.
const EVERY: Duration = Duration::from_secs(1);

/// How long it may take to answer, connecting included.
const DEADLINE: Duration = Duration::from_secs(1);

/// The pulse of Postgres; cheap to clone.
#[derive(Clone, Debug)]
pub struct DatabaseHealth {
    pool: PgPool,
    lost: Arc<AtomicBool>,
}

impl DatabaseHealth {
    /// Asks by `pool`, which is for this alone.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self {
            pool,
            lost: Arc::default(),
        }
    }

    /// Whether Postgres did not answer when it was last asked.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Asks now.
    pub async fn ask(&self) -> bool {
        let ping = async { self.pool.acquire().await?.ping().await };
        let answered = with_deadline(DEADLINE, ping).await;
        if let Err(error) = &answered
            && !self.lost.load(Ordering::Relaxed)
        {
            tracing::warn!(%error, "Postgres does not answer");
        }
        let was_lost = self.lost.swap(answered.is_err(), Ordering::Relaxed);
        if answered.is_ok() && was_lost {
            tracing::info!("Postgres answers again");
        }
        answered.is_ok()
    }

    /// Asks until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            self.ask().await;
            let _ = tokio::time::timeout(EVERY, shutdown.cancelled()).await;
        }
    }
}
