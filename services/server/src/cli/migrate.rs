//! `reading-sessions migrate`: brings the database's schema up to date.

use anyhow::Context;
use projections::schema;

use crate::config::DatabaseArgs;
use crate::connect;

/// Applies the migrations that are missing and creates partitions ahead.
///
/// # Errors
/// When Postgres does not answer or a migration fails; it is rolled back.
pub async fn run(args: &DatabaseArgs) -> anyhow::Result<()> {
    let pool = connect::maintenance_pool(args)?;
    schema::migrate(&pool)
        .await
        .context("the database was not migrated")?;
    schema::create_partitions(&pool)
        .await
        .context("partitions were not created ahead")?;
    pool.close().await;
    Ok(())
}
