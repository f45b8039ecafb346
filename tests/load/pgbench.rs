//! The reference: pgbench, one event row a transaction, 32 clients, fsync on,
//! into the same table with the same size of payload. Without the order lock,
//! which would keep pgbench from committing in groups: the reference is what
//! Postgres does for a writer that asks for no order.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use services::dev::Servers;
use sqlx::{Connection, Executor, PgConnection};
use tokio::process::Command;

const DATABASE: &str = "pgbench";

/// As long as the payload of a position update. A space before `true`: pgbench
/// takes `:true` for a variable.
const PAYLOAD: &str = r#"{"type":"PositionUpdated","reader_id":"018f4c2e-7c1a-7000-8000-000000000001","occurred_at":"2026-11-22T23:55:44.494Z","position":12.5,"applied": true,"previous_at":"2026-11-22T23:55:44.294Z","previous_position":10.4,"credited_ms":200,"active_ms":20000,"furthest_position":12.5,"time_zone":"Europe/Berlin"}"#;

/// A table of its own, beside the service's database.
pub struct Table {
    program: PathBuf,
    url: String,
    script: PathBuf,
}

impl Table {
    /// Creates the table.
    pub async fn create(servers: &Servers) -> anyhow::Result<Self> {
        let url = servers.database_url();
        let mut admin = PgConnection::connect(url).await?;
        admin
            .execute(format!("create database {DATABASE}").as_str())
            .await?;
        admin.close().await?;
        let (server, _) = url
            .rsplit_once('/')
            .context("an address names its database")?;
        let url = format!("{server}/{DATABASE}");
        let pool = sqlx::PgPool::connect(&url).await?;
        projections::schema::migrate(&pool).await?;
        pool.execute("alter table events disable trigger events_order")
            .await?;
        pool.close().await;

        // Ids of this month, whose first two groups are its time.
        let time = uuid::Uuid::now_v7().to_string();
        let script = std::env::temp_dir().join(format!("{time}.pgbench"));
        std::fs::write(
            &script,
            format!(
                "\\set n random(1, 200000000000000)\n\
                 insert into events (aggregate_id, sequence, aggregate_type, event_type, \
                 event_version, payload, metadata) values ('{}-7000-8000-' || \
                 lpad(to_hex(cast(:n as bigint)), 12, '0'), 1, 'reading_session', 'PositionUpdated', '1', \
                 '{PAYLOAD}', '{{}}');\n",
                &time[..13],
            ),
        )?;
        Ok(Self {
            program: program(servers),
            url,
            script,
        })
    }

    /// Rows a second.
    pub async fn rows_per_second(&self, length: Duration) -> anyhow::Result<f64> {
        let seconds = length.as_secs().to_string();
        let output = Command::new(&self.program)
            .args([
                "-n", "-M", "prepared", "-c", "32", "-j", "2", "-T", &seconds, "-f",
            ])
            .arg(&self.script)
            .arg(&self.url)
            .output()
            .await
            .with_context(|| format!("{} does not run", self.program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "pgbench failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let rate = text
            .lines()
            .find_map(|line| line.strip_prefix("tps = "))
            .and_then(|line| line.split_whitespace().next())
            .context("pgbench says how many transactions a second")?;
        Ok(rate.parse()?)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.script);
    }
}

/// The pgbench beside the server, else the one on the path.
fn program(servers: &Servers) -> PathBuf {
    servers
        .postgres
        .executable()
        .map(|server| server.with_file_name("pgbench"))
        .filter(|program| program.exists())
        .unwrap_or_else(|| PathBuf::from("pgbench"))
}
