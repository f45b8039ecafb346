//! A NATS server with the configuration for production, `nats/server.conf`, and
//! its users.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Event, ServerError};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::stack::{Corner, Stack};

/// The users of the configuration, and the variables of their passwords.
pub const USERS: [(&str, &str); 6] = [
    ("api", "NATS_API_PASSWORD"),
    ("relay", "NATS_RELAY_PASSWORD"),
    ("projections", "NATS_PROJECTIONS_PASSWORD"),
    ("reading", "NATS_PASSWORD"),
    ("operator", "NATS_OPERATOR_PASSWORD"),
    ("analytics", "NATS_ANALYTICS_PASSWORD"),
];

/// How long anything may take here.
pub const LONGEST: Duration = Duration::from_secs(20);

/// A running server; it ends with the test.
pub struct GuardedNats {
    executable: PathBuf,
    folder: PathBuf,
    port: u16,
    child: Child,
}

/// A connection of a user, and what the server complained of to it.
pub struct Connection {
    /// The connection.
    pub client: Client,
    complaints: mpsc::UnboundedReceiver<String>,
}

impl GuardedNats {
    /// Starts it with the very file of production; the port, the folder and the
    /// probes' port are others.
    pub async fn start(stack: &Stack) -> Self {
        let executable = {
            let servers = stack.servers.lock().await;
            let executable = servers.nats.executable();
            executable.expect("the tests' own server").to_owned()
        };
        let folder = std::env::temp_dir().join(format!("nats-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let child = spawn(&executable, &folder, "-1");
        let mut server = Self {
            executable,
            folder,
            port: 0,
            child,
        };
        server.port = server.listens().await;
        server
    }

    /// Kills it and starts it again at the same address with its streams.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.revive().await;
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts one that was killed, at the same address.
    pub async fn revive(&mut self) {
        self.child = spawn(&self.executable, &self.folder, &self.port.to_string());
        self.listens().await;
    }

    /// Takes away the streams and consumers of one that was killed.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.folder.join("jetstream")).unwrap();
    }

    /// Where it listens, as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Waits until it listens, and says where.
    async fn listens(&self) -> u16 {
        let pid = self.child.id().expect("it runs");
        let ports = self.folder.join(format!("nats-server_{pid}.ports"));
        let started = Instant::now();
        loop {
            let ports = std::fs::read(&ports).unwrap_or_default();
            if let Ok(ports) = serde_json::from_slice::<serde_json::Value>(&ports) {
                let url = ports["nats"][0].as_str().unwrap();
                return url.rsplit_once(':').unwrap().1.parse().unwrap();
            }
            assert!(started.elapsed() < LONGEST, "NATS does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A user's address.
    #[must_use]
    pub fn url(&self, user: &str) -> String {
        format!("nats://{user}:{}@{}", password(user), self.address())
    }

    /// A corner whose NATS is this one, for a user; names are the public ones.
    #[must_use]
    pub fn corner(&self, corner: &Corner, user: &str) -> Corner {
        Corner {
            nats_url: self.url(user),
            nats_prefix: String::new(),
            ..corner.clone()
        }
    }

    /// Connects as a user, with an inbox prefix.
    ///
    /// # Errors
    /// When the server does not let them in.
    pub async fn connect(
        &self,
        user: &str,
        password: &str,
        inbox: &str,
    ) -> Result<Connection, async_nats::ConnectError> {
        let (sender, complaints) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_user_and_password(user.into(), password.into());
        let client = options
            .custom_inbox_prefix(inbox)
            .event_callback(move |event| {
                if let Event::ServerError(ServerError::Other(complaint)) = event {
                    let _ = sender.send(complaint);
                }
                std::future::ready(())
            })
            .connect(self.address())
            .await?;
        Ok(Connection { client, complaints })
    }

    /// Connects as a user.
    pub async fn user(&self, user: &str, inbox: &str) -> Connection {
        self.connect(user, &password(user), inbox).await.unwrap()
    }

    /// A file that goes with the server.
    #[must_use]
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What the server refused to anybody, by its log.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap();
        let lines = log.lines().filter(|line| line.contains("Violation"));
        lines.map(str::to_owned).collect()
    }
}

fn spawn(executable: &Path, folder: &Path, port: &str) -> Child {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../nats/server.conf");
    let mut command = Command::new(executable);
    command
        .args(["-c", file, "-a", "127.0.0.1", "-p", port, "-m", "-1"])
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

impl Drop for GuardedNats {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Connection {
    /// Waits for the server's next complaint.
    pub async fn complaint(&mut self) -> String {
        let complaint = tokio::time::timeout(LONGEST, self.complaints.recv()).await;
        complaint.expect("a complaint").expect("it is connected")
    }
}

/// The password of a user, of digits alone: the server must not take it for a
/// number.
#[must_use]
pub fn password(user: &str) -> String {
    format!("{:032}", user.len())
}
