//! The references for writes: pgbench with 32 clients and fsync on. It inserts one event
//! row per transaction, or 100 rows per statement, into the same table with payloads of
//! the same size. The order lock is off, because it would prevent group commits. The
//! reference is thus a writer that needs no order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use dev_servers::Servers;
use sqlx::{Connection, Executor, PgConnection};
use tokio::process::Command;

use crate::usage::{Meter, Span};
use crate::{service, writes};

const DATABASE: &str = "pgbench";

/// A payload with the size of a position update. `true` follows a space, because pgbench
/// parses `:true` as a variable.
const PAYLOAD: &str = r#"{"type":"PositionUpdated","reader_id":"018f4c2e-7c1a-7000-8000-000000000001","occurred_at":"2026-11-22T23:55:44.494Z","position":12.5,"applied": true,"intervals":[{"from":"2026-11-22T23:55:44.294Z","ms":200}],"active_ms":20000,"furthest_position":12.5,"time_zone":"Europe/Berlin"}"#;

/// A database with the event table, and the scripts of both references.
pub struct Pgbench<'a> {
    servers: &'a Servers,
    program: PathBuf,
    url: String,
    one_row: PathBuf,
    many_rows: PathBuf,
}

/// Rows per statement of the reference with many rows.
const ROWS_PER_STATEMENT: u32 = 100;

impl<'a> Pgbench<'a> {
    /// Creates the database and the scripts.
    pub async fn create(servers: &'a Servers) -> anyhow::Result<Self> {
        let url = servers.database_url();
        let mut admin = PgConnection::connect(url).await?;
        admin
            .execute(format!("create database {DATABASE}").as_str())
            .await?;
        admin.close().await?;
        let (server, _) = url
            .rsplit_once('/')
            .context("the database URL contains no database")?;
        let url = format!("{server}/{DATABASE}");
        let pool = sqlx::PgPool::connect(&url).await?;
        eventlog::migrations::migrate(&pool).await?;
        pool.execute("alter table events disable trigger events_order")
            .await?;
        // Autovacuum of this table would slow the next measurement.
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

        // Session ids of this month: the first two groups of a UUIDv7 are its time.
        let time = uuid::Uuid::now_v7().to_string();
        let row = |sequence: &str| {
            format!(
                "'{}-7000-8000-' || lpad(to_hex(cast(:n as bigint)), 12, '0'), {sequence}, \
                 'reading_session', 'PositionUpdated', '2', '{PAYLOAD}', '{{}}'",
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
        let many = format!(
            "select {} from generate_series(1, {ROWS_PER_STATEMENT}) as n",
            row("n")
        );
        Ok(Self {
            servers,
            program: program(servers),
            url,
            one_row: script("one-row", format!("values ({})", row("1")))?,
            many_rows: script("many-rows", many)?,
        })
    }

    /// Rows per second with one row per transaction, and the CPU time.
    pub async fn one_row(&self, length: Duration) -> anyhow::Result<(f64, Span)> {
        let run = self.run(&self.one_row, length).await?;
        Ok((run.rate, run.span))
    }

    /// Rows per second with 100 rows per statement, and the CPU time.
    pub async fn many_rows(&self, length: Duration) -> anyhow::Result<(f64, Span)> {
        let run = self.run(&self.many_rows, length).await?;
        Ok((f64::from(ROWS_PER_STATEMENT) * run.rate, run.span))
    }

    /// WAL bytes per row with one row per transaction. The table is emptied first: after a
    /// checkpoint, Postgres writes each page of a large index to the WAL once.
    pub async fn wal_per_row(&self, length: Duration) -> anyhow::Result<f64> {
        let mut admin = PgConnection::connect(&self.url).await?;
        admin
            .execute("set session_replication_role = replica; truncate events")
            .await?;
        admin.execute("checkpoint").await?;
        let before = writes::wal_position(&mut admin).await?;
        let run = self.run(&self.one_row, length).await?;
        let after = writes::wal_position(&mut admin).await?;
        admin.close().await?;
        writes::per_update(after - before, run.transactions)
    }

    async fn run(&self, script: &Path, length: Duration) -> anyhow::Result<Run> {
        let seconds = length.as_secs().to_string();
        let meter = Meter::with_children(service::server_pids(self.servers)?, "pgbench");
        let output = Command::new(&self.program)
            .args([
                "-n", "-M", "prepared", "-c", "32", "-j", "2", "-T", &seconds, "-f",
            ])
            .arg(script)
            .arg(&self.url)
            .output()
            .await
            .with_context(|| format!("running {} failed", self.program.display()))?;
        let span = meter.stop();
        ensure!(
            output.status.success(),
            "pgbench failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let (transactions, rate) = parse(&String::from_utf8_lossy(&output.stdout))?;
        Ok(Run {
            transactions,
            rate,
            span,
        })
    }
}

/// A run of pgbench.
struct Run {
    transactions: u64,
    /// Transactions per second.
    rate: f64,
    span: Span,
}

/// Transactions, and transactions per second, in the output of pgbench.
fn parse(text: &str) -> anyhow::Result<(u64, f64)> {
    let value = |name: &str| {
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.split_whitespace().next());
        value.with_context(|| format!("the output of pgbench contains no `{name}`"))
    };
    let transactions = value("number of transactions actually processed: ")?.parse()?;
    ensure!(transactions > 0, "pgbench ran no transaction in this time");
    Ok((transactions, value("tps = ")?.parse()?))
}

impl Drop for Pgbench<'_> {
    fn drop(&mut self) {
        for script in [&self.one_row, &self.many_rows] {
            let _ = std::fs::remove_file(script);
        }
    }
}

/// The pgbench in the folder of the server, or else the one in `PATH`.
fn program(servers: &Servers) -> PathBuf {
    servers
        .postgres
        .executable()
        .map(|server| server.with_file_name("pgbench"))
        .filter(|program| program.exists())
        .unwrap_or_else(|| PathBuf::from("pgbench"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_and_their_rate_are_parsed() {
        let text = "pgbench (15.18)\ntransaction type: one.pgbench\n\
            number of transactions actually processed: 27031\n\
            number of failed transactions: 0 (0.000%)\nlatency average = 3.5 ms\n\
            tps = 9010.251 (without initial connection time)\n";
        let (transactions, rate) = parse(text).unwrap();
        assert_eq!(transactions, 27_031);
        assert!((rate - 9_010.251).abs() < 1e-9);
        assert!(parse("number of transactions actually processed: 0\n").is_err());
    }
}
