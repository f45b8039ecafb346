//! What updates make Postgres write: rows in the read tables, and bytes of WAL.

use std::time::Duration;

use anyhow::ensure;
use sqlx::PgConnection;

/// Postgres counts the rows that a backend has written at the latest this long after the
/// backend became idle.
pub const COUNT_DELAY: Duration = Duration::from_secs(11);

/// Rows that all projections have written so far: inserts, updates and deletes in all
/// tables of the schema `read`.
pub async fn projected_rows(database: &mut PgConnection) -> anyhow::Result<i64> {
    let rows = sqlx::query_scalar(
        "select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint
        from pg_stat_user_tables where schemaname = 'read'",
    )
    .fetch_one(database)
    .await?;
    Ok(rows)
}

/// The end of the WAL of the server, in bytes.
pub async fn wal_position(database: &mut PgConnection) -> anyhow::Result<i64> {
    let position =
        sqlx::query_scalar("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
            .fetch_one(database)
            .await?;
    Ok(position)
}

/// A count divided by the number of updates.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub fn per_update(count: i64, updates: u64) -> anyhow::Result<f64> {
    ensure!(updates > 0, "no update succeeded");
    Ok(count as f64 / updates as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_divided_by_the_updates() {
        assert!((per_update(8_850, 59_000).unwrap() - 0.15).abs() < 1e-9);
        assert!(per_update(1, 0).is_err());
    }
}
