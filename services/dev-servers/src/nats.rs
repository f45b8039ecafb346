//! NATS with `JetStream`: its configuration and its readiness check. Creates no
//! stream.

use std::process::Command;
use std::str::FromStr;

use anyhow::Context;
use async_nats::{ConnectOptions, ServerAddr};
use serde_json::json;

use super::discover::Binary;
use super::own_files;
use super::server_dir::ServerDir;

const USER: &str = "reading_sessions";

/// In bytes; more than development needs. The default of `JetStream` is a share of
/// the disk that is free at the start, so it rejects streams after a start on a full
/// disk.
const MAX_FILE_STORE: u64 = 100 << 30;

/// In bytes, for streams and consumers in memory.
const MAX_MEMORY_STORE: u64 = 256 << 20;

pub fn url(dir: &ServerDir) -> String {
    format!("nats://{USER}:{}@127.0.0.1:{}", dir.password, dir.port)
}

/// Writes the configuration as JSON, which the configuration format includes.
pub fn prepare(dir: &ServerDir) -> anyhow::Result<()> {
    own_files::ensure_dir(&dir.data(), 0o700, None)?;
    let configuration = json!({
        "server_name": "reading_sessions",
        "listen": format!("127.0.0.1:{}", dir.port),
        "authorization": { "user": USER, "password": dir.password },
        "jetstream": {
            "store_dir": dir.data(),
            "max_file_store": MAX_FILE_STORE,
            "max_memory_store": MAX_MEMORY_STORE,
        },
    });
    own_files::write_secret(
        &dir.path.join("nats.conf"),
        &format!("{configuration:#}\n"),
        None,
    )
}

pub fn command(dir: &ServerDir, binary: &Binary) -> Command {
    let mut command = Command::new(&binary.path);
    command
        .arg("-c")
        .arg(dir.path.join("nats.conf"))
        .current_dir(&dir.path);
    command
}

/// The server is ready when `JetStream` responds: it recovers its streams first.
pub async fn check_ready(url: &str) -> anyhow::Result<()> {
    let address = ServerAddr::from_str(url)?;
    // The client ignores the credentials in the address.
    let user = address.username().unwrap_or_default().to_owned();
    let password = address.password().unwrap_or_default().to_owned();
    let options = ConnectOptions::with_user_and_password(user, password);
    let client = options.connect(address).await?;
    let account = async_nats::jetstream::new(client).query_account().await;
    account.context("JetStream does not respond")?;
    Ok(())
}
