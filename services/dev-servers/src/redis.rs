//! Redis or Valkey: its configuration, and whether it answers. Writes nothing
//! to disk: the service keeps nothing in it that may not be lost.

use std::process::Command;

use anyhow::Context;

use super::data_dir;
use super::server_dir::Home;
use super::discover::Binary;

pub fn url(home: &Home) -> String {
    format!("redis://:{}@127.0.0.1:{}/0", home.password, home.port)
}

pub fn prepare(home: &Home) -> anyhow::Result<()> {
    std::fs::create_dir_all(home.data())?;
    // JSON's strings are quoted as the server's are.
    let data = serde_json::to_string(
        home.data()
            .to_str()
            .context("the data folder is not UTF-8")?,
    )?;
    let configuration = format!(
        "bind 127.0.0.1
port {port}
requirepass {password}
dir {data}
daemonize no
save \"\"
appendonly no
# A test has a database of its own.
databases 4096
maxmemory 256mb
maxmemory-policy volatile-lru
# A leftover server is recognised by its arguments.
set-proc-title no
",
        port = home.port,
        password = home.password,
    );
    data_dir::write_secret(&home.folder.join("redis.conf"), &configuration)
}

pub fn command(home: &Home, binary: &Binary) -> Command {
    let mut command = Command::new(&binary.path);
    command
        .arg(home.folder.join("redis.conf"))
        .current_dir(&home.folder);
    command
}

pub async fn answers(url: &str) -> anyhow::Result<()> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let pong: String = redis::cmd("PING").query_async(&mut connection).await?;
    anyhow::ensure!(pong == "PONG", "it answered {pong}");
    Ok(())
}
