//! Connections of the service to Postgres during a load, from `pg_stat_activity`.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The largest counts seen. The maxima may be from different moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connections {
    pub open: i64,
    /// Connections that were running a statement or were inside a transaction.
    pub in_use: i64,
}

impl Connections {
    /// The larger counts of both.
    pub fn max(self, other: Self) -> Self {
        Self {
            open: self.open.max(other.open),
            in_use: self.in_use.max(other.in_use),
        }
    }
}

/// Polls until `stop` is cancelled.
pub async fn watch(pool: PgPool, stop: CancellationToken) -> anyhow::Result<Connections> {
    let mut most = Connections::default();
    while !stop.is_cancelled() {
        let (open, in_use) = sqlx::query_as(
            "select count(*), count(*) filter (where state <> 'idle') from pg_stat_activity
            where datname = current_database() and application_name like 'reading-sessions-%'",
        )
        .fetch_one(&pool)
        .await?;
        most = most.max(Connections { open, in_use });
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_has_the_larger_count_of_each_kind() {
        let one = Connections { open: 9, in_use: 2 };
        let other = Connections { open: 7, in_use: 5 };
        let most = one.max(other);
        assert_eq!((most.open, most.in_use), (9, 5));
    }
}
