//! `reading-sessions dev`: its servers never outlive it, and its data do.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tests::process::executable;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use uuid::Uuid;

/// How long servers may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// Settings that whoever runs the tests may have, and that are not theirs.
const SETTINGS: [&str; 3] = ["DATABASE_URL", "NATS_URL", "REDIS_URL"];

/// Starts it, and waits until it has printed where it is.
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
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.starts_with("Ctrl-C") {
            return child;
        }
    }
    panic!("it ended instead of starting");
}

/// The processes of its servers.
fn servers(data: &Path) -> Vec<String> {
    ["postgres", "nats", "redis"]
        .map(|server| std::fs::read_to_string(data.join(server).join("pid")).unwrap())
        .map(|pid| pid.trim().to_owned())
        .into()
}

async fn runs(pid: &str) -> bool {
    let mut kill = Command::new("kill");
    kill.args(["-0", pid]).stderr(Stdio::null());
    kill.status().await.unwrap().success()
}

async fn are_gone(pids: &[String]) {
    let started = Instant::now();
    for pid in pids {
        while runs(pid).await {
            assert!(started.elapsed() < GONE, "process {pid} is still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn servers_do_not_outlive_a_killed_dev_and_it_starts_again() {
    let data: PathBuf = std::env::temp_dir().join(format!("reading-sessions-{}", Uuid::new_v4()));
    let mut dev = start(&data).await;
    let killed = servers(&data);
    for pid in &killed {
        assert!(runs(pid).await);
    }
    dev.kill().await.unwrap();
    are_gone(&killed).await;

    let mut dev = start(&data).await;
    let stopped = servers(&data);
    let pid = dev.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(sent.unwrap().success());
    assert!(dev.wait().await.unwrap().success());
    are_gone(&stopped).await;
    std::fs::remove_dir_all(data).unwrap();
}
