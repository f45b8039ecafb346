//! A streaming replica of a stack's Postgres, created with `pg_basebackup`.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use dev_servers::{Options, Server, Servers, scratch_data_dir};
use reqwest::Url;
use sqlx::{Connection, PgConnection, PgPool};

use crate::app::SETTLE;
use crate::eventually::until;
use crate::stack::{Stack, TestEnv};

/// A running replica, which ends with the test.
pub struct Replica {
    servers: Servers,
}

impl Replica {
    /// Starts a replica of a stack's Postgres.
    pub async fn start(stack: &Stack) -> Self {
        let primary = stack.servers.lock().await;
        let data = scratch_data_dir().unwrap();
        let source = primary.postgres.dir().unwrap();
        let folder = data.join(source.file_name().unwrap());
        // Postgres does not run as root and reads only files that its user owns.
        let owner = std::fs::metadata(source.join("data")).unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        chown(&folder, Some(owner.uid()), Some(owner.gid())).unwrap();
        let executable = primary.postgres.executable().unwrap();
        let url = Url::parse(primary.postgres.url()).unwrap();
        let mut copy = Command::new(executable.with_file_name("pg_basebackup"));
        copy.uid(owner.uid()).gid(owner.gid()).current_dir("/");
        copy.args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf"])
            .args(["--host", url.host_str().unwrap()])
            .args(["--port", &url.port().unwrap().to_string()])
            .args(["--username", url.username()])
            .env("PGPASSWORD", url.password().unwrap())
            .arg("--pgdata")
            .arg(folder.join("data"));
        let copied = copy.output().unwrap();
        assert!(copied.status.success(), "{copied:?}");
        let servers = Servers::start(Options {
            data,
            fsync: false,
            offline: false,
            postgres: None,
            nats: Some(primary.nats.url().to_owned()),
            redis: Some(primary.redis.url().to_owned()),
        })
        .await
        .unwrap();
        Self { servers }
    }

    /// The server, which tests kill, pause and start.
    pub fn server(&mut self) -> &mut Server {
        &mut self.servers.postgres
    }

    /// The URL of an environment's database on the replica.
    #[must_use]
    pub fn url(&self, env: &TestEnv) -> String {
        let mut url = Url::parse(&env.database_url).unwrap();
        url.set_port(self.servers.postgres.port()).unwrap();
        url.into()
    }

    /// Waits until the replica has replayed everything that the primary has written.
    pub async fn caught_up(&self, primary: &PgPool) {
        // Projections commit asynchronously. A synchronous commit flushes their WAL too.
        let flush = sqlx::query("select pg_logical_emit_message(true, 'tests', 'flush')");
        flush.execute(primary).await.unwrap();
        let head: String = sqlx::query_scalar("select pg_current_wal_lsn()::text")
            .fetch_one(primary)
            .await
            .unwrap();
        self.wait_for(&format!("pg_last_wal_replay_lsn() >= '{head}'"))
            .await;
    }

    /// Stops the replay of changes until [`Replica::resume_replay`].
    pub async fn pause_replay(&self) {
        self.wait_for("pg_wal_replay_pause() is not null").await;
        self.wait_for("pg_get_wal_replay_pause_state() = 'paused'")
            .await;
    }

    pub async fn resume_replay(&self) {
        self.wait_for("pg_wal_replay_resume() is not null").await;
    }

    /// Waits until a condition in SQL is true on the replica.
    async fn wait_for(&self, condition: &str) {
        let url = self.servers.postgres.url();
        let mut connection = PgConnection::connect(url).await.unwrap();
        let query = format!("select coalesce({condition}, false)");
        until(condition, SETTLE, async || {
            let is_true = sqlx::query_scalar(&query).fetch_one(&mut connection).await;
            is_true.unwrap()
        })
        .await;
    }
}
