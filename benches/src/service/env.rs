//! The database, stream and Redis database of each part.

use anyhow::{Context, ensure};
use dev_servers::Servers;
use eventlog::roles::DatabaseRole;
use messaging::Subjects;
use server::connect;
use sqlx::{Connection, Executor, PgConnection};
use tests::app;
use tests::process;
use tests::stack::{ROLE_PASSWORD, TestEnv, as_role};

use crate::Part;

/// The database, stream prefix and Redis database of one part of the run.
fn env_of(servers: &Servers, part: Part) -> anyhow::Result<TestEnv> {
    let (server, _) = servers
        .database_url()
        .rsplit_once('/')
        .context("the database URL contains no database")?;
    let redis = servers.redis_url().trim_end_matches("/0");
    let admin_url = format!("{server}/{}", part.database());
    Ok(TestEnv {
        database_url: as_role(&admin_url, DatabaseRole::Service),
        admin_url,
        nats_url: servers.nats_url().to_owned(),
        nats_prefix: part.database(),
        redis_url: format!("{redis}/{}", part as u8),
    })
}

/// Creates the environment of a part, with a migrated database.
pub async fn create_env(servers: &Servers, part: Part) -> anyhow::Result<TestEnv> {
    let env = env_of(servers, part)?;
    let mut admin = PgConnection::connect(servers.database_url()).await?;
    admin
        .execute(format!("create database {}", part.database()).as_str())
        .await?;
    admin.close().await?;
    let migrated = process::plain_command(&crate::executable()?, &env)
        .arg("migrate")
        .env("DATABASE_URL", &env.admin_url)
        .env("POSTGRES_SERVICE_PASSWORD", ROLE_PASSWORD)
        .status()
        .await?;
    ensure!(migrated.success(), "`reading-sessions migrate` failed");
    Ok(env)
}

/// Deletes the data of a part, so that their maintenance (vacuum, for example) does not
/// slow the next part. After a failure, some data may not exist.
pub async fn delete_data(servers: &Servers, part: Part) -> anyhow::Result<()> {
    let env = env_of(servers, part)?;
    let mut admin = PgConnection::connect(servers.database_url()).await?;
    admin
        .execute(format!("drop database if exists {} with (force)", part.database()).as_str())
        .await?;
    admin.close().await?;
    let jetstream = connect::jetstream(&app::settings(&env, &[]).nats).await?;
    let subjects = Subjects::new(&env.nats_prefix);
    for stream in [
        subjects.stream(),
        subjects.cursor_stream(),
        subjects.dead_letter_stream(),
    ] {
        let _ = jetstream.delete_stream(stream).await;
    }
    let redis = redis::Client::open(env.redis_url.as_str())?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    redis::cmd("FLUSHDB").exec_async(&mut redis).await?;
    Ok(())
}
