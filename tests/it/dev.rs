//! `reading-sessions dev`: its servers stop with it, and its data remains.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tests::process::executable;
use tests::{scaled, until};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use uuid::Uuid;

/// How long the servers may take to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long `dev` may take to start; the first start downloads the servers.
const START_TIMEOUT: Duration = Duration::from_mins(5);

/// Variables of the environment that must not affect the tests.
const SETTINGS: [&str; 3] = ["DATABASE_URL", "NATS_URL", "REDIS_URL"];

/// Starts `dev` and waits until it has printed its addresses.
async fn start(data: &Path) -> Child {
    let mut command = Command::new(executable());
    command
        .args([
            "dev",
            "--http-addr",
            "127.0.0.1:0",
            "--admin-addr",
            "127.0.0.1:0",
        ])
        .arg("--data")
        .arg(data)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    for setting in SETTINGS {
        command.env_remove(setting);
    }
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("Ctrl-C") {
                return;
            }
        }
        panic!("dev exited instead of starting");
    };
    let started = tokio::time::timeout(scaled(START_TIMEOUT), ready).await;
    started.expect("dev starts in time");
    child
}

/// The process ids of its servers.
fn server_pids(data: &Path) -> Vec<String> {
    ["postgres", "nats", "redis"]
        .map(|server| std::fs::read_to_string(data.join(server).join("pid")).unwrap())
        .map(|pid| pid.trim().to_owned())
        .into()
}

async fn is_running(pid: &str) -> bool {
    let mut kill = Command::new("kill");
    kill.args(["-0", pid]).stderr(Stdio::null());
    kill.status().await.unwrap().success()
}

async fn wait_for_exit(pids: &[String]) {
    for pid in pids {
        let what = format!("the exit of process {pid}");
        until(&what, EXIT_TIMEOUT, async || !is_running(pid).await).await;
    }
}

#[tokio::test]
async fn killed_dev_stops_its_servers_and_can_start_again() {
    let data: PathBuf = std::env::temp_dir().join(format!("reading-sessions-{}", Uuid::new_v4()));
    let mut dev = start(&data).await;
    let killed = server_pids(&data);
    for pid in &killed {
        assert!(is_running(pid).await);
    }
    dev.kill().await.unwrap();
    wait_for_exit(&killed).await;

    let mut dev = start(&data).await;
    let stopped = server_pids(&data);
    let pid = dev.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(sent.unwrap().success());
    let exited = tokio::time::timeout(scaled(EXIT_TIMEOUT), dev.wait()).await;
    assert!(exited.expect("dev exits").unwrap().success());
    wait_for_exit(&stopped).await;
    std::fs::remove_dir_all(data).unwrap();
}
