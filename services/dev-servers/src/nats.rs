//! NATS with `JetStream`: its configuration, and whether it answers. Creates no
//! stream.

use std::process::Command;
use std::str::FromStr;

use anyhow::Context;
use async_nats::{ConnectOptions, ServerAddr};
use serde_json::json;

use super::data_dir;
use super::server_dir::Home;
use super::discover::Binary;

const USER: &str = "reading_sessions";

/// More than any development needs. `JetStream` itself proposes a share of the
/// disk that is free now, and then refuses streams when the disk was full once.
const MAX_FILE_STORE: u64 = 100 << 30;

/// Streams and consumers that want memory.
const MAX_MEMORY_STORE: u64 = 256 << 20;

pub fn url(home: &Home) -> String {
    format!("nats://{USER}:{}@127.0.0.1:{}", home.password, home.port)
}

/// Writes the configuration: JSON, which the server's own format includes.
pub fn prepare(home: &Home) -> anyhow::Result<()> {
    std::fs::create_dir_all(home.data())?;
    let configuration = json!({
        "server_name": "reading_sessions",
        "listen": format!("127.0.0.1:{}", home.port),
        "authorization": { "user": USER, "password": home.password },
        "jetstream": {
            "store_dir": home.data(),
            "max_file_store": MAX_FILE_STORE,
            "max_memory_store": MAX_MEMORY_STORE,
        },
    });
    data_dir::write_secret(
        &home.folder.join("nats.conf"),
        &format!("{configuration:#}\n"),
    )
}

pub fn command(home: &Home, binary: &Binary) -> Command {
    let mut command = Command::new(&binary.path);
    command
        .arg("-c")
        .arg(home.folder.join("nats.conf"))
        .current_dir(&home.folder);
    command
}

/// Answers when `JetStream` does: it recovers its streams before.
pub async fn answers(url: &str) -> anyhow::Result<()> {
    let address = ServerAddr::from_str(url)?;
    // The client does not take credentials from the address by itself.
    let user = address.username().unwrap_or_default().to_owned();
    let password = address.password().unwrap_or_default().to_owned();
    let options = ConnectOptions::with_user_and_password(user, password);
    let client = options.connect(address).await?;
    let account = async_nats::jetstream::new(client).query_account().await;
    account.context("JetStream does not answer")?;
    Ok(())
}
