//! A NATS server with the production configuration, `nats/server.conf`, and its
//! users. Tests of one process with all roles add the user in
//! `nats/all-roles-user.conf`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerError};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::eventually::{eventually, scaled};
use crate::stack::{Stack, TestEnv};

/// The users of both files, and the environment variables of their passwords.
pub const USERS: [(&str, &str); 6] = [
    ("api", "NATS_API_PASSWORD"),
    ("relay", "NATS_RELAY_PASSWORD"),
    ("projections", "NATS_PROJECTIONS_PASSWORD"),
    ("reading", "NATS_PASSWORD"),
    ("operator", "NATS_OPERATOR_PASSWORD"),
    ("analytics", "NATS_ANALYTICS_PASSWORD"),
];

const CONFIGURATION: &str = include_str!("../../nats/server.conf");

const ALL_ROLES_USER: &str = include_str!("../../nats/all-roles-user.conf");

/// Longest wait for the server in these tests.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// A running server, which ends with the test.
pub struct ProductionNats {
    executable: PathBuf,
    folder: PathBuf,
    port: u16,
    child: Child,
}

/// A connection of a user, with the errors that the server reports on it.
pub struct Connection {
    pub client: Client,
    errors: mpsc::UnboundedReceiver<String>,
}

impl ProductionNats {
    /// Starts a server with the production file. Only the client port, the monitoring
    /// port and the folders differ.
    pub async fn start(stack: &Stack) -> Self {
        Self::run(stack, CONFIGURATION.to_owned()).await
    }

    /// Like [`ProductionNats::start`], with the user `reading` for one process that
    /// runs all roles.
    pub async fn with_all_roles_user(stack: &Stack) -> Self {
        let users = "users: [\n";
        assert_eq!(CONFIGURATION.matches(users).count(), 1);
        let added = format!("{users}{ALL_ROLES_USER}");
        Self::run(stack, CONFIGURATION.replace(users, &added)).await
    }

    async fn run(stack: &Stack, configuration: String) -> Self {
        let executable = {
            let servers = stack.servers.lock().await;
            let executable = servers.nats.executable();
            executable
                .expect("a server that the tests started")
                .to_owned()
        };
        let folder = std::env::temp_dir().join(format!("nats-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("server.conf"), configuration).unwrap();
        let child = spawn(&executable, &folder, "-1");
        let mut server = Self {
            executable,
            folder,
            port: 0,
            child,
        };
        server.port = server.client_port().await;
        server
    }

    /// Kills the server, then starts it at the same address with the same streams.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.start_again().await;
    }

    /// Kills the server with SIGKILL.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts a killed server at the same address.
    pub async fn start_again(&mut self) {
        self.child = spawn(&self.executable, &self.folder, &self.port.to_string());
        self.client_port().await;
    }

    /// Deletes the streams and consumers of a killed server.
    pub fn delete_streams(&self) {
        std::fs::remove_dir_all(self.folder.join("jetstream")).unwrap();
    }

    /// The client address as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Waits until the server accepts clients and returns its port.
    async fn client_port(&self) -> u16 {
        let pid = self.child.id().expect("it runs");
        let ports = self.folder.join(format!("nats-server_{pid}.ports"));
        eventually("NATS listens", TIMEOUT, async || {
            let ports = std::fs::read(&ports).ok()?;
            let ports: serde_json::Value = serde_json::from_slice(&ports).ok()?;
            let url = ports["nats"][0].as_str().unwrap();
            Some(url.rsplit_once(':').unwrap().1.parse().unwrap())
        })
        .await
    }

    /// The URL for a user, with the password.
    #[must_use]
    pub fn url(&self, user: &str) -> String {
        format!("nats://{user}:{}@{}", password(user), self.address())
    }

    /// A copy of an environment that uses this server as a user, without a prefix.
    #[must_use]
    pub fn env_for(&self, env: &TestEnv, user: &str) -> TestEnv {
        TestEnv {
            nats_url: self.url(user),
            nats_prefix: String::new(),
            ..env.clone()
        }
    }

    /// Connects as a user, with an inbox prefix.
    ///
    /// # Errors
    /// If the server rejects the user.
    pub async fn connect(
        &self,
        user: &str,
        password: &str,
        inbox: &str,
    ) -> Result<Connection, async_nats::ConnectError> {
        let (sender, errors) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_user_and_password(user.into(), password.into());
        let client = options
            .custom_inbox_prefix(inbox)
            .event_callback(move |event| {
                if let Event::ServerError(ServerError::Other(error)) = event {
                    let _ = sender.send(error);
                }
                std::future::ready(())
            })
            .connect(self.address())
            .await?;
        Ok(Connection { client, errors })
    }

    /// Connects as a user with the correct password.
    pub async fn user(&self, user: &str, inbox: &str) -> Connection {
        self.connect(user, &password(user), inbox).await.unwrap()
    }

    /// The path of a temporary file, which is deleted with the server.
    #[must_use]
    pub fn temp_file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The permission violations in the log of the server.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap();
        let lines = log.lines().filter(|line| line.contains("Violation"));
        lines.map(str::to_owned).collect()
    }
}

fn spawn(executable: &Path, folder: &Path, port: &str) -> Child {
    let mut command = Command::new(executable);
    command
        .arg("-c")
        .arg(folder.join("server.conf"))
        .args(["-a", "127.0.0.1", "-p", port, "-m", "-1"])
        .arg("-sd")
        .arg(folder)
        .arg("--ports_file_dir")
        .arg(folder)
        .arg("-l")
        .arg(folder.join("log"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for (user, variable) in USERS {
        command.env(variable, format!("'{}'", password(user)));
    }
    command.spawn().unwrap()
}

impl Drop for ProductionNats {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Connection {
    /// Waits for the next error that the server reports.
    pub async fn next_error(&mut self) -> String {
        let error = tokio::time::timeout(scaled(TIMEOUT), self.errors.recv()).await;
        error.expect("an error").expect("the client is connected")
    }
}

/// The password of a user. It contains only digits, to test that the server does not
/// parse it as a number.
#[must_use]
pub fn password(user: &str) -> String {
    format!("{:032}", user.len())
}
