//! `reading-sessions dev`: its servers stop with it, and its data remains. It refuses
//! a data folder that another user could have prepared.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
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

/// The command `dev` with a data folder and free ports.
fn dev(data: &Path) -> Command {
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
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for setting in SETTINGS {
        command.env_remove(setting);
    }
    command
}

/// The error of `dev` for a data folder that it refuses.
async fn refusal(data: &Path) -> String {
    let finished = tokio::time::timeout(scaled(START_TIMEOUT), dev(data).output()).await;
    let output = finished.expect("dev exits").unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    error
}

/// A new folder with a mode.
fn folder(mode: u32) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("reading-sessions-{}", Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
    folder
}

/// Starts `dev` and waits until it has printed its addresses.
async fn start(data: &Path) -> Child {
    let mut child = dev(data).stderr(Stdio::inherit()).spawn().unwrap();
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

#[tokio::test]
async fn folder_that_another_user_can_prepare_is_refused() {
    let (data, elsewhere) = (folder(0o777), folder(0o700));
    let victim = elsewhere.join("victim");
    std::fs::write(&victim, "precious").unwrap();
    symlink(&victim, data.join("lock")).unwrap();
    std::fs::write(data.join("jwt-secret"), "known to another user".repeat(2)).unwrap();
    let error = refusal(&data).await;
    assert!(error.contains("other users can write to it"), "{error}");
    assert!(error.contains("choose another one with --data"), "{error}");

    // Root can test the folder of another user; others test the link in their own.
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    if std::fs::metadata(&data).unwrap().uid() == 0 {
        chown(&data, Some(65_534), None).unwrap();
        let error = refusal(&data).await;
        assert!(error.contains("it belongs to another user"), "{error}");
        chown(&data, Some(0), None).unwrap();
    }
    let error = refusal(&data).await;
    assert!(error.contains("it is a symbolic link"), "{error}");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    for folder in [data, elsewhere] {
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[tokio::test]
async fn planted_jwt_secret_is_refused_and_the_servers_stop() {
    let data = folder(0o755);
    let secret = data.join("jwt-secret");
    std::fs::write(&secret, "known to another user".repeat(2)).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = refusal(&data).await;
    assert!(error.contains("jwt-secret"), "{error}");
    assert!(
        error.contains("other users can read this secret"),
        "{error}"
    );
    wait_for_exit(&server_pids(&data)).await;
    std::fs::remove_dir_all(data).unwrap();
}
