//! Real Postgres, NATS and Redis servers. Most tests share one set, each with
//! a database, a stream and a Redis database of its own; tests that kill or
//! wipe servers start a set for themselves.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use services::dev::{Options, Servers};
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::{Mutex, OnceCell};

/// Databases of the shared Redis server; one a test.
const REDIS_DATABASES: u32 = 4_096;

/// The database that those of the tests are copies of.
const TEMPLATE: &str = "migrated";

/// A set of servers.
pub struct Stack {
    /// The servers; tests of faults kill and start them.
    pub servers: Mutex<Servers>,
    database_url: String,
    nats_url: String,
    redis_url: String,
    migrated: OnceCell<()>,
    next: AtomicU32,
}

/// A test's own corner of a stack.
#[derive(Clone, Debug)]
pub struct Corner {
    /// Its database.
    pub database_url: String,
    /// The NATS server.
    pub nats_url: String,
    /// What its stream's name begins with.
    pub nats_prefix: String,
    /// Its Redis database.
    pub redis_url: String,
}

impl Stack {
    /// The servers that tests share; started by the first that asks, gone when
    /// the test process is.
    pub async fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Stack>> = OnceLock::new();
        // The servers outlive the runtime of the test that asked first.
        let started = tokio::task::spawn_blocking(|| {
            Arc::clone(SHARED.get_or_init(|| {
                let (sender, receiver) = std::sync::mpsc::channel();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Runtime::new().unwrap();
                    let stack = runtime.block_on(Self::start());
                    sender.send(Arc::new(stack)).unwrap();
                    runtime.block_on(std::future::pending::<()>());
                });
                receiver.recv().expect("the shared servers start")
            }))
        });
        started.await.unwrap()
    }

    /// Servers for one test alone.
    pub async fn own() -> Arc<Self> {
        Arc::new(Self::start().await)
    }

    async fn start() -> Self {
        let servers = Servers::start(Options {
            data: services::dev::scratch_data().unwrap(),
            fsync: false,
            offline: false,
            postgres: None,
            nats: None,
            redis: None,
        })
        .await
        .unwrap();
        Self {
            database_url: servers.database_url().to_owned(),
            nats_url: servers.nats_url().to_owned(),
            redis_url: servers.redis_url().to_owned(),
            servers: Mutex::new(servers),
            migrated: OnceCell::new(),
            next: AtomicU32::new(0),
        }
    }

    /// A corner that no other test uses, its database migrated.
    pub async fn corner(&self) -> Corner {
        self.migrated
            .get_or_init(async || {
                self.execute(&format!("create database {TEMPLATE}")).await;
                let template = connection_to(&self.database_url, TEMPLATE);
                let pool = sqlx::PgPool::connect(&template).await.unwrap();
                projections::schema::migrate(&pool).await.unwrap();
                pool.close().await;
            })
            .await;
        self.create(&format!("template {TEMPLATE}")).await
    }

    /// A corner whose database is empty.
    pub async fn empty_corner(&self) -> Corner {
        self.create("").await
    }

    async fn create(&self, like: &str) -> Corner {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(n < REDIS_DATABASES, "more tests than Redis databases");
        let name = format!("test_{n}");
        self.execute(&format!("create database {name} {like}"))
            .await;
        Corner {
            database_url: connection_to(&self.database_url, &name),
            nats_url: self.nats_url.clone(),
            nats_prefix: name,
            redis_url: format!(
                "{}/{n}",
                self.redis_url.trim_end_matches("/0").trim_end_matches('/')
            ),
        }
    }

    async fn execute(&self, statement: &str) {
        let mut connection = PgConnection::connect(&self.database_url).await.unwrap();
        connection.execute(statement).await.unwrap();
        connection.close().await.unwrap();
    }
}

/// The address of another database of the same server.
fn connection_to(url: &str, database: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("an address names its database");
    format!("{server}/{database}")
}
