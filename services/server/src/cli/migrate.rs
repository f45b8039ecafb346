//! `reading-sessions migrate`: brings the database's schema up to date.

use anyhow::Context;
use eventlog::migrations;

use crate::config::DatabaseArgs;
use crate::connect;

/// Applies the migrations that are missing and creates partitions ahead.
///
/// # Errors
/// When Postgres does not answer or a migration fails; it is rolled back.
pub async fn run(args: &DatabaseArgs) -> anyhow::Result<()> {
    let pool = connect::migrations_pool(args)?;
    migrations::migrate(&pool)
        .await
        .context("the database was not migrated")?;
    migrations::create_partitions(&pool)
        .await
        .context("partitions were not created ahead")?;
    pool.close().await;
    Ok(())
}
