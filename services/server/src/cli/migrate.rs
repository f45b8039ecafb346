//! `reading-sessions migrate`: creates the roles of Postgres, applies missing migrations
//! and creates partitions.

use anyhow::Context;
use clap::Args;
use eventlog::migrations::{self, RoleSeparation};
use eventlog::roles;
use sqlx::PgPool;

use crate::config::{DatabaseArgs, RolePasswords};
use crate::connect;

#[derive(Args, Clone, Debug)]
pub struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: &MigrateArgs) -> anyhow::Result<()> {
    apply(&args.database, &RolePasswords::from_environment()?).await?;
    Ok(())
}

/// Migrates the database, and lets the roles with a password log in.
pub async fn apply(
    args: &DatabaseArgs,
    passwords: &RolePasswords,
) -> anyhow::Result<RoleSeparation> {
    let pool = connect::migrations_pool(args)?;
    let separation = match migrations::migrate(&pool).await {
        Ok(separation) => separation,
        Err(error) => {
            // The pool waits for a Postgres that is starting, and then does not report
            // why it cannot connect.
            connect::check_postgres(args).await?;
            return Err(error).context("migration failed");
        }
    };
    if separation == RoleSeparation::NotPermitted {
        tracing::warn!(
            "creating the roles of Postgres failed: the role of DATABASE_URL may not create \
             roles; every process that uses it can change the log. Run `migrate` with a role \
             that has CREATEROLE"
        );
    }
    set_passwords(&pool, passwords).await?;
    pool.close().await;
    let roles: Vec<&str> = passwords.0.iter().map(|(role, _)| role.name()).collect();
    tracing::info!(
        "the database is at migration {}; passwords set for: {}",
        migrations::required(),
        if roles.is_empty() {
            "none".to_owned()
        } else {
            roles.join(", ")
        }
    );
    Ok(separation)
}

async fn set_passwords(pool: &PgPool, passwords: &RolePasswords) -> anyhow::Result<()> {
    for (role, password) in &passwords.0 {
        roles::set_password(pool, *role, password.expose())
            .await
            .with_context(|| format!("setting the password of {} failed", role.name()))?;
    }
    Ok(())
}
