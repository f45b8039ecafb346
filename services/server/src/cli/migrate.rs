//! `reading-sessions migrate`: applies missing migrations and creates partitions.

use anyhow::Context;
use eventlog::migrations;

use crate::config::DatabaseArgs;
use crate::connect;

pub async fn run(args: &DatabaseArgs) -> anyhow::Result<()> {
    connect::check_postgres(args).await?;
    let pool = connect::migrations_pool(args)?;
    migrations::migrate(&pool)
        .await
        .context("migration failed")?;
    migrations::create_partitions(&pool)
        .await
        .context("creating partitions failed")?;
    pool.close().await;
    Ok(())
}
