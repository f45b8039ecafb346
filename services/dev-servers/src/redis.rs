//! Redis or Valkey: its configuration and its readiness check. It writes nothing to
//! disk, because the service stores in it only what it can rebuild.

use std::process::Command;

use anyhow::Context;

use super::discover::Binary;
use super::own_files;
use super::server_dir::ServerDir;

pub fn url(dir: &ServerDir) -> String {
    format!("redis://:{}@127.0.0.1:{}/0", dir.password, dir.port)
}

pub fn prepare(dir: &ServerDir) -> anyhow::Result<()> {
    own_files::ensure_dir(&dir.data(), 0o700, None)?;
    // The configuration format quotes strings like JSON.
    let data = serde_json::to_string(
        dir.data()
            .to_str()
            .context("the path of the data folder is not UTF-8")?,
    )?;
    let configuration = format!(
        "bind 127.0.0.1
port {port}
requirepass {password}
dir {data}
daemonize no
save \"\"
appendonly no
# Each test has its own database.
databases 4096
maxmemory 256mb
maxmemory-policy volatile-lru
# A leftover server is recognised by its arguments.
set-proc-title no
",
        port = dir.port,
        password = dir.password,
    );
    own_files::write_secret(&dir.path.join("redis.conf"), &configuration, None)
}

pub fn command(dir: &ServerDir, binary: &Binary) -> Command {
    let mut command = Command::new(&binary.path);
    command
        .arg(dir.path.join("redis.conf"))
        .current_dir(&dir.path);
    command
}

pub async fn check_ready(url: &str) -> anyhow::Result<()> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let pong: String = redis::cmd("PING").query_async(&mut connection).await?;
    anyhow::ensure!(pong == "PONG", "Redis replied {pong} to PING");
    Ok(())
}
