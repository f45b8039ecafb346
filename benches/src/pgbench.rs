//! The references for writes: pgbench, one event row a transaction or a hundred
//! in one statement, 32 clients, fsync on, into the same table with the same
//! size of payload. Without the order lock,
//! which would keep pgbench from committing in groups: the reference is what
//! Postgres does for a writer that asks for no order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use dev_servers::Servers;
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
    one_row: PathBuf,
    many_rows: PathBuf,
}

/// Rows of the statement that writes many.
const ROWS: u32 = 100;

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
        eventlog::migrations::migrate(&pool).await?;
        pool.execute("alter table events disable trigger events_order")
            .await?;
        // Its upkeep would fall into what is measured next.
        pool.execute(
            "do $$ declare partition regclass; begin
                for partition in select inhrelid from pg_inherits where inhparent = 'events'::regclass
                loop
                    execute format('alter table %s set (autovacuum_enabled = off)', partition);
                end loop;
            end $$",
        )
        .await?;
        pool.close().await;

        // Ids of this month, whose first two groups are its time.
        let time = uuid::Uuid::now_v7().to_string();
        let row = |sequence: &str| {
            format!(
                "'{}-7000-8000-' || lpad(to_hex(cast(:n as bigint)), 12, '0'), {sequence}, \
                 'reading_session', 'PositionUpdated', '1', '{PAYLOAD}', '{{}}'",
                &time[..13]
            )
        };
        let script = |name: &str, rows: String| -> anyhow::Result<PathBuf> {
            let script = std::env::temp_dir().join(format!("{time}-{name}.pgbench"));
            let insert = "insert into events (aggregate_id, sequence, aggregate_type, event_type, \
                          event_version, payload, metadata)";
            let text = format!("\\set n random(1, 200000000000000)\n{insert} {rows};\n");
            std::fs::write(&script, text)?;
            Ok(script)
        };
        let many = format!("select {} from generate_series(1, {ROWS}) as n", row("n"));
        Ok(Self {
            program: program(servers),
            url,
            one_row: script("one-row", format!("values ({})", row("1")))?,
            many_rows: script("many-rows", many)?,
        })
    }

    /// Rows a second, one a transaction.
    pub async fn one_row(&self, length: Duration) -> anyhow::Result<f64> {
        self.transactions(&self.one_row, length).await
    }

    /// Rows a second, a hundred in a statement.
    pub async fn many_rows(&self, length: Duration) -> anyhow::Result<f64> {
        Ok(f64::from(ROWS) * self.transactions(&self.many_rows, length).await?)
    }

    async fn transactions(&self, script: &Path, length: Duration) -> anyhow::Result<f64> {
        let seconds = length.as_secs().to_string();
        let output = Command::new(&self.program)
            .args([
                "-n", "-M", "prepared", "-c", "32", "-j", "2", "-T", &seconds, "-f",
            ])
            .arg(script)
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
        for script in [&self.one_row, &self.many_rows] {
            let _ = std::fs::remove_file(script);
        }
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
