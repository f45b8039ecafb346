//! Upkeep by the clock: partitions are there before the months they are for.

use std::time::Duration;

use projections::schema;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// Partitions are made months ahead, so a day that fails is no harm.
const EVERY: Duration = Duration::from_hours(24);

/// Works at once and then daily, until `shutdown`. Safe in several processes
/// at the same time: the partitions that exist stay.
pub async fn run(pool: PgPool, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match schema::create_partitions(&pool).await {
            Ok(0) => {}
            Ok(created) => tracing::info!(created, "partitions were created ahead"),
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "partitions were not created ahead"
            ),
        }
        let _ = tokio::time::timeout(EVERY, shutdown.cancelled()).await;
    }
}
