//! A streaming replica of a stack's Postgres: a copy of its data, taken while it
//! runs, that goes on reading what it writes.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Url;
use services::dev::{Options, Server, Servers, scratch_data};
use sqlx::{Connection, PgConnection, PgPool};

use crate::app::SETTLE;
use crate::stack::{Corner, Stack};

/// A replica; ends with its test.
pub struct Replica {
    servers: Servers,
}

impl Replica {
    /// A replica of a stack's Postgres, which follows it already.
    pub async fn of(stack: &Stack) -> Self {
        let primary = stack.servers.lock().await;
        let data = scratch_data().unwrap();
        let theirs = primary.postgres.folder().unwrap();
        let ours = data.join(theirs.file_name().unwrap());
        // Postgres refuses to be root, and reads only what is its own.
        let owner = std::fs::metadata(theirs.join("data")).unwrap();
        std::fs::create_dir_all(&ours).unwrap();
        chown(&ours, Some(owner.uid()), Some(owner.gid())).unwrap();
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
            .arg(ours.join("data"));
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

    /// Its server, to be killed, paused and started.
    pub fn server(&mut self) -> &mut Server {
        &mut self.servers.postgres
    }

    /// A corner's database, here.
    #[must_use]
    pub fn url(&self, corner: &Corner) -> String {
        let mut url = Url::parse(&corner.database_url).unwrap();
        url.set_port(self.servers.postgres.port()).unwrap();
        url.into()
    }

    /// Waits until it has all that the primary has.
    pub async fn caught_up(&self, primary: &PgPool) {
        // Projections do not wait for the disk; a commit that does writes theirs too.
        let commit = sqlx::query("select pg_logical_emit_message(true, 'tests', 'to the disk')");
        commit.execute(primary).await.unwrap();
        let head: String = sqlx::query_scalar("select pg_current_wal_lsn()::text")
            .fetch_one(primary)
            .await
            .unwrap();
        self.says(&format!("pg_last_wal_replay_lsn() >= '{head}'"))
            .await;
    }

    /// Stands still where it is, until it is told to go on.
    pub async fn hold(&self) {
        self.says("pg_wal_replay_pause() is not null").await;
        self.says("pg_get_wal_replay_pause_state() = 'paused'")
            .await;
    }

    /// Goes on.
    pub async fn go_on(&self) {
        self.says("pg_wal_replay_resume() is not null").await;
    }

    /// Waits until it says so.
    pub async fn says(&self, what: &str) {
        let since = Instant::now();
        let url = self.servers.postgres.url();
        let mut connection = PgConnection::connect(url).await.unwrap();
        let ask = format!("select coalesce({what}, false)");
        while !sqlx::query_scalar::<_, bool>(&ask)
            .fetch_one(&mut connection)
            .await
            .unwrap()
        {
            assert!(since.elapsed() < SETTLE, "never: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
