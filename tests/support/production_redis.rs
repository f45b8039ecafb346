//! A Redis server that `deploy/redis.sh` starts, with its users.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult, Value};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::eventually::eventually_ok;
use crate::process::free_address;
use crate::stack::{Stack, TestEnv};

/// The users of the script, and the environment variables of their passwords.
pub const USERS: [(&str, &str); 5] = [
    ("api", "REDIS_API_PASSWORD"),
    ("projections", "REDIS_PROJECTIONS_PASSWORD"),
    ("jobs", "REDIS_JOBS_PASSWORD"),
    ("operator", "REDIS_OPERATOR_PASSWORD"),
    ("monitor", "REDIS_MONITOR_PASSWORD"),
];

/// A user with all permissions, which only the tests add.
pub const TESTER: &str = "tester";

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running server, which ends with the test.
pub struct ProductionRedis {
    folder: PathBuf,
    address: String,
    _child: Child,
}

impl ProductionRedis {
    /// Starts a server with the production script. Only the address, the folder and
    /// the user of the tests are added.
    pub async fn start(stack: &Stack) -> Self {
        let executable = {
            let servers = stack.servers.lock().await;
            let executable = servers.redis.executable();
            executable
                .expect("a server that the tests started")
                .to_owned()
        };
        let folder = std::env::temp_dir().join(format!("redis-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let address = free_address();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/redis.sh");
        let mut command = Command::new("sh");
        command
            .arg(script)
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .arg("--dir")
            .arg(&folder)
            .arg("--logfile")
            .arg(folder.join("log"))
            .args(["--user", TESTER, "on", "~*", "+@all"])
            .arg(format!(">{}", password(TESTER)))
            .env("REDIS_SERVER", executable)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        for (user, variable) in USERS {
            command.env(variable, password(user));
        }
        let server = Self {
            folder,
            address: address.to_string(),
            _child: command.spawn().unwrap(),
        };
        eventually_ok("Redis accepts clients", START_TIMEOUT, async || {
            server.connect(&server.url(TESTER)).await
        })
        .await;
        server
    }

    /// The URL for a user, with the password.
    #[must_use]
    pub fn url(&self, user: &str) -> String {
        self.url_with(user, &password(user))
    }

    /// The URL for a user, with any password.
    #[must_use]
    pub fn url_with(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@{}/0", self.address)
    }

    /// The URL of a client that sends no user and no password.
    #[must_use]
    pub fn anonymous_url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// A copy of an environment that uses this server as a user.
    #[must_use]
    pub fn env_for(&self, env: &TestEnv, user: &str) -> TestEnv {
        TestEnv {
            redis_url: self.url(user),
            ..env.clone()
        }
    }

    /// Connects to the server.
    ///
    /// # Errors
    /// If the server rejects the credentials.
    pub async fn connect(&self, url: &str) -> Result<MultiplexedConnection, RedisError> {
        let client = redis::Client::open(url)?;
        client.get_multiplexed_async_connection().await
    }

    /// Runs a command as a user.
    ///
    /// # Errors
    /// If the server rejects the user or the command.
    pub async fn run(&self, user: &str, command: &str) -> RedisResult<Value> {
        let mut connection = self.connect(&self.url(user)).await?;
        let mut words = command.split(' ');
        let mut call = redis::cmd(words.next().expect("a command"));
        for argument in words {
            call.arg(argument);
        }
        call.query_async(&mut connection).await
    }

    /// Runs a command with all permissions.
    pub async fn run_unrestricted(&self, command: &str) -> Value {
        self.run(TESTER, command).await.unwrap()
    }

    /// The commands, keys and logins that the server has refused.
    pub async fn refusals(&self) -> Vec<String> {
        let Value::Array(entries) = self.run_unrestricted("ACL LOG").await else {
            panic!("a list of refusals")
        };
        entries.iter().map(|entry| format!("{entry:?}")).collect()
    }
}

impl Drop for ProductionRedis {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The password of a user.
#[must_use]
pub fn password(user: &str) -> String {
    format!("password-of-{user}")
}
