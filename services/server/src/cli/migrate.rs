//! `reading-sessions migrate`: applies missing migrations and creates partitions.

use anyhow::Context;
use eventlog::migrations;

use crate::config::DatabaseArgs;
use crate::connect;

pub async fn run(args: &DatabaseArgs) -> anyhow::Result<()> {
    let pool = connect::migrations_pool(args)?;
    if let Err(error) = migrations::migrate(&pool).await {
        // The pool waits for a Postgres that is starting, and then does not report
        // why it cannot connect.
        connect::check_postgres(args).await?;
        return Err(error).context("migration failed");
    }
    migrations::create_partitions(&pool)
        .await
        .context("creating partitions failed")?;
    pool.close().await;
    Ok(())
}
