//! The service as a process of its own, to be killed.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::app::SECRET;
use crate::reader::client;
use crate::stack::Corner;

/// How long the service may take to start on a busy machine.
const START: Duration = Duration::from_secs(20);

/// A running `reading-sessions serve`.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub http: SocketAddr,
    /// Where probes and operators call.
    pub admin: SocketAddr,
    /// Where client apps call.
    pub url: String,
    /// From its start until it said that it is ready.
    pub ready_after: Duration,
}

/// The executable beside the tests; `make` builds it first.
#[must_use]
pub fn executable() -> PathBuf {
    let tests = std::env::current_exe().expect("a test is a file");
    let target = tests.ancestors().nth(2).expect("in target/<profile>/deps");
    let executable = target.join("reading-sessions");
    assert!(
        executable.exists(),
        "{} is not built; run `cargo build` first",
        executable.display()
    );
    executable
}

/// The executable, with the settings of a corner and what suits tests.
#[must_use]
pub fn command(corner: &Corner) -> Command {
    let mut command = plain(&executable(), corner);
    command
        // Limits that nobody meets by chance; counting goes on.
        .env("RATE_LIMIT_HIGH_FREQUENCY", "1000000")
        .env("RATE_LIMIT_NORMAL", "1000000")
        .env("RATE_LIMIT_AUTH", "1000000")
        // The machine is busy with other tests.
        .env("RATE_LIMIT_DEADLINE", "5000")
        .env("RUST_LOG", "warn,async_nats=off");
    command
}

/// An executable that knows where everything is; all else is as by default.
#[must_use]
pub fn plain(executable: &Path, corner: &Corner) -> Command {
    let mut command = Command::new(executable);
    command
        .env("DATABASE_URL", &corner.database_url)
        .env("NATS_URL", &corner.nats_url)
        .env("NATS_PREFIX", &corner.nats_prefix)
        .env("REDIS_URL", &corner.redis_url)
        .env("JWT_SECRET", SECRET)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A loopback address that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    listener.local_addr().expect("it is bound")
}

impl Process {
    /// Starts all roles and waits until it is ready.
    pub async fn start(corner: &Corner) -> Self {
        Self::run(command(corner)).await
    }

    /// As [`Process::start`], of another executable, with all defaults; its log
    /// goes on in a file.
    pub async fn start_plain(executable: &Path, corner: &Corner, log: &Path) -> Self {
        let mut command = plain(executable, corner);
        let log = File::options().create(true).append(true).open(log);
        command.stderr(log.unwrap());
        Self::run(command).await
    }

    /// As [`Process::start`]; its log goes to a file, which is made.
    pub async fn logging(corner: &Corner, log: &Path) -> Self {
        let mut command = command(corner);
        command.stderr(File::create(log).unwrap());
        Self::run(command).await
    }

    async fn run(mut command: Command) -> Self {
        let (http, admin) = (free_address(), free_address());
        let client = client();
        let started = Instant::now();
        let child = command
            .arg("serve")
            .env("HTTP_ADDR", http.to_string())
            .env("ADMIN_ADDR", admin.to_string())
            .spawn()
            .unwrap();
        loop {
            let ready = client.get(format!("http://{admin}/readyz")).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
            assert!(started.elapsed() < START, "the service does not get ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self {
            child,
            http,
            admin,
            ready_after: started.elapsed(),
            url: format!("http://{http}/api/v1/reading-sessions"),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// kill -9.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM; returns how it ended.
    pub async fn terminate(mut self) -> std::process::ExitStatus {
        self.signal("-TERM").await;
        self.child.wait().await.unwrap()
    }

    /// Sends it a signal, as `-STOP`.
    pub async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.await.unwrap().success());
    }
}
