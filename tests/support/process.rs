//! The service as a child process, which tests can kill or pause.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::app::{self, COALESCE_WINDOW, Metrics, SECRET};
use crate::eventually::until;
use crate::reader::{Reader, client};
use crate::stack::TestEnv;

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running `reading-sessions serve`.
pub struct Process {
    child: Child,
    pub http: SocketAddr,
    /// The listener for probes, metrics and the admin API.
    pub admin: SocketAddr,
    /// The API, up to `/api/v1/reading-sessions`.
    pub url: String,
    /// Time from the start of the process until `/readyz` succeeded.
    pub ready_after: Duration,
}

/// The executable in the target folder of the tests. `make` builds it first.
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

/// The executable with the addresses of a test environment and settings for
/// tests.
#[must_use]
pub fn command(env: &TestEnv) -> Command {
    let mut command = plain_command(&executable(), env);
    command
        // Calls are still counted, but no test reaches these limits by accident.
        .env("RATE_LIMIT_HIGH_FREQUENCY", "1000000")
        .env("RATE_LIMIT_NORMAL", "1000000")
        .env("RATE_LIMIT_SYNC", "1000000")
        .env("RATE_LIMIT_AUTH", "1000000")
        .env("RATE_LIMIT_DEADLINE", "5000")
        .env("RATE_LIMIT_DAILY_BYTES", "0")
        .env("COALESCE_WINDOW", COALESCE_WINDOW.as_secs_f64().to_string())
        // JetStream reserves the bytes of each stream, and the tests share a server.
        .env("NATS_STREAM_MAX_BYTES", "0")
        .env("RUST_LOG", "warn,async_nats=off");
    command
}

/// An executable with the addresses of a test environment. All other settings
/// keep their defaults.
#[must_use]
pub fn plain_command(executable: &Path, env: &TestEnv) -> Command {
    let mut command = Command::new(executable);
    command
        .env("DATABASE_URL", &env.database_url)
        .env("NATS_URL", &env.nats_url)
        .env("NATS_PREFIX", &env.nats_prefix)
        .env("REDIS_URL", &env.redis_url)
        .env("JWT_SECRET", SECRET)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A loopback address that was free when it was chosen.
#[must_use]
pub fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    listener.local_addr().expect("it is bound")
}

impl Process {
    /// Starts all roles and waits until it is ready.
    pub async fn start(env: &TestEnv) -> Self {
        Self::run(command(env)).await
    }

    /// Starts some roles, with additional environment variables.
    pub async fn start_roles(env: &TestEnv, roles: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut command = command(env);
        command.env("ROLES", roles.join(","));
        command.envs(settings.iter().copied());
        Self::run(command).await
    }

    /// Like [`Process::start_roles`], listening on these addresses: for client apps, and for
    /// probes, metrics and the admin API.
    pub async fn start_roles_at(
        env: &TestEnv,
        roles: &[&str],
        settings: &[(&str, &str)],
        addresses: [SocketAddr; 2],
    ) -> Self {
        let mut command = command(env);
        command.env("ROLES", roles.join(","));
        command.envs(settings.iter().copied());
        Self::run_at(command, addresses).await
    }

    /// Starts all roles with this hard limit of open files. The soft limit is 1,024, as in
    /// shells and under systemd.
    pub async fn start_with_open_files(
        env: &TestEnv,
        limit: u64,
        settings: &[(&str, &str)],
    ) -> Self {
        let plain = command(env);
        let mut command = Command::new("sh");
        let script = format!("ulimit -S -n 1024 && ulimit -H -n {limit} && exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(executable());
        for (name, value) in plain.as_std().get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.envs(settings.iter().copied());
        command.stdin(Stdio::null()).kill_on_drop(true);
        Self::run(command).await
    }

    /// Starts another executable and appends its log to a file. All settings but these
    /// keep their defaults.
    pub async fn start_with_defaults(
        executable: &Path,
        env: &TestEnv,
        log: &Path,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut command = plain_command(executable, env);
        command.envs(settings.iter().copied());
        let log = File::options().create(true).append(true).open(log);
        command.stderr(log.unwrap());
        Self::run(command).await
    }

    /// Like [`Process::start`]; creates a file and writes the log to it.
    pub async fn start_with_log(env: &TestEnv, log: &Path) -> Self {
        let mut command = command(env);
        command.stderr(File::create(log).unwrap());
        Self::run(command).await
    }

    async fn run(command: Command) -> Self {
        Self::run_at(command, [free_address(), free_address()]).await
    }

    async fn run_at(mut command: Command, [http, admin]: [SocketAddr; 2]) -> Self {
        let client = client();
        let started = Instant::now();
        let child = command
            .arg("serve")
            .env("HTTP_ADDR", http.to_string())
            .env("ADMIN_ADDR", admin.to_string())
            .spawn()
            .unwrap();
        until("the service is ready", START_TIMEOUT, async || {
            let ready = client.get(format!("http://{admin}/readyz")).send().await;
            ready.is_ok_and(|response| response.status().is_success())
        })
        .await;
        Self {
            child,
            http,
            admin,
            ready_after: started.elapsed(),
            url: format!("http://{http}/api/v1/reading-sessions"),
        }
    }

    #[must_use]
    pub fn operator(&self) -> Reader {
        app::operator(client(), &format!("http://{}", self.admin))
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::read(&client(), &format!("http://{}", self.admin)).await
    }

    /// The process id; `None` once the process has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills the process with SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends SIGTERM and waits for the exit status.
    pub async fn terminate(mut self) -> std::process::ExitStatus {
        self.signal("-TERM").await;
        self.child.wait().await.unwrap()
    }

    /// Sends a signal in the notation of `kill`, such as `-STOP`.
    pub async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.await.unwrap().success());
    }
}
