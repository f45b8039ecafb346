//! Real Postgres, NATS and Redis servers. Most tests share one set of servers,
//! and each test has its own database, stream and Redis database. Tests that kill
//! servers or delete their data start a set of their own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use dev_servers::{Options, Servers};
use eventlog::migrations;
use eventlog::roles::{self, DatabaseRole};
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::{Mutex, OnceCell};

/// Databases of the shared Redis server. Each test uses one.
const REDIS_DATABASES: u32 = 4_096;

/// The migrated database from which the test databases are copied.
const TEMPLATE: &str = "migrated";

/// Free disk space that a run of all tests needs.
const MIN_FREE_MB: u64 = 3_000;

/// The password of each role of Postgres.
pub const ROLE_PASSWORD: &str = "password-of-the-tests";

/// A set of servers.
pub struct Stack {
    pub servers: Mutex<Servers>,
    /// For the superuser.
    admin_url: String,
    nats_url: String,
    redis_url: String,
    migrated: OnceCell<()>,
    next: AtomicU32,
}

/// The isolated environment of one test on a stack.
#[derive(Clone, Debug)]
pub struct TestEnv {
    /// For the role `reading_service`.
    pub database_url: String,
    /// For the superuser. It may change what no process may.
    pub admin_url: String,
    pub nats_url: String,
    /// The setting `NATS_PREFIX`, which isolates streams and subjects on a shared
    /// server.
    pub nats_prefix: String,
    /// Includes the number of the Redis database.
    pub redis_url: String,
}

impl Stack {
    /// The servers that tests share. The first call starts them; they end with the
    /// test process.
    pub async fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Stack>> = OnceLock::new();
        // The servers outlive the runtime of the test that starts them.
        let started = tokio::task::spawn_blocking(|| {
            Arc::clone(SHARED.get_or_init(|| {
                let data = dev_servers::scratch_data_dir().unwrap();
                check_free_space(data.parent().expect("the folder of all runs"));
                let (sender, receiver) = std::sync::mpsc::channel();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Runtime::new().unwrap();
                    let stack = runtime.block_on(Self::start(data));
                    sender.send(Arc::new(stack)).unwrap();
                    runtime.block_on(std::future::pending::<()>());
                });
                receiver.recv().expect("the shared servers start")
            }))
        });
        started.await.unwrap()
    }

    /// Starts servers for one test alone.
    pub async fn dedicated() -> Arc<Self> {
        Arc::new(Self::start(dev_servers::scratch_data_dir().unwrap()).await)
    }

    async fn start(data: PathBuf) -> Self {
        let servers = Servers::start(Options {
            data,
            fsync: false,
            offline: false,
            postgres: None,
            nats: None,
            redis: None,
        })
        .await
        .unwrap();
        Self {
            admin_url: servers.database_url().to_owned(),
            nats_url: servers.nats_url().to_owned(),
            redis_url: servers.redis_url().to_owned(),
            servers: Mutex::new(servers),
            migrated: OnceCell::new(),
            next: AtomicU32::new(0),
        }
    }

    /// Creates an environment with a migrated database.
    pub async fn new_env(&self) -> TestEnv {
        let env = self.create(&format!("template {TEMPLATE}")).await;
        // A copy does not have the privileges of the database itself.
        let (_, name) = env
            .admin_url
            .rsplit_once('/')
            .expect("a URL with a database");
        self.execute(&format!("grant create on database {name} to reading_owner"))
            .await;
        env
    }

    /// Creates an environment with an empty database. The server has the roles already.
    pub async fn new_empty_env(&self) -> TestEnv {
        self.create("").await
    }

    async fn create_template(&self) {
        self.execute(&format!("create database {TEMPLATE}")).await;
        let template = connection_to(&self.admin_url, TEMPLATE);
        let pool = sqlx::PgPool::connect(&template).await.unwrap();
        migrations::migrate(&pool).await.unwrap();
        for role in DatabaseRole::ALL {
            roles::set_password(&pool, role, ROLE_PASSWORD)
                .await
                .unwrap();
        }
        pool.close().await;
    }

    async fn create(&self, template: &str) -> TestEnv {
        self.migrated
            .get_or_init(async || self.create_template().await)
            .await;
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(n < REDIS_DATABASES, "more tests than Redis databases");
        let name = format!("test_{n}");
        self.execute(&format!("create database {name} {template}"))
            .await;
        let admin_url = connection_to(&self.admin_url, &name);
        TestEnv {
            database_url: as_role(&admin_url, DatabaseRole::Service),
            admin_url,
            nats_url: self.nats_url.clone(),
            nats_prefix: name,
            redis_url: format!(
                "{}/{n}",
                self.redis_url.trim_end_matches("/0").trim_end_matches('/')
            ),
        }
    }

    async fn execute(&self, statement: &str) {
        let mut connection = PgConnection::connect(&self.admin_url).await.unwrap();
        connection.execute(statement).await.unwrap();
        connection.close().await.unwrap();
    }
}

impl TestEnv {
    /// A copy of the environment in which processes connect to Postgres as another role.
    #[must_use]
    pub fn as_role(&self, role: DatabaseRole) -> Self {
        Self {
            database_url: as_role(&self.admin_url, role),
            ..self.clone()
        }
    }
}

/// Without this check, every test fails with another error of a full disk.
fn check_free_space(folder: &Path) {
    let disk = rustix::fs::statvfs(folder).unwrap();
    let free = disk.f_bavail * disk.f_frsize / 1_000_000;
    assert!(
        free >= MIN_FREE_MB,
        "the tests need {MIN_FREE_MB} MB in {}, {free} MB are free",
        folder.display()
    );
}

/// The URL of the same database for a role.
#[must_use]
pub fn as_role(url: &str, role: DatabaseRole) -> String {
    let (_, address) = url.split_once('@').expect("a URL with a role");
    format!("postgres://{}:{ROLE_PASSWORD}@{address}", role.name())
}

/// The URL of another database of the same server.
fn connection_to(url: &str, database: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    format!("{server}/{database}")
}
