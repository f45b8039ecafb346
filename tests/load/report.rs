//! The report: figures, references and ratios, with what they were measured on.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use services::dev::Servers;

use crate::generator::Load;
use crate::replay::Replay;
use crate::usage::Usage;

/// The bar for acknowledged single updates over pgbench's one-row rate.
const BAR: f64 = 0.6;

/// The bar for the service's resident memory, in megabytes.
const MEMORY_BAR: f64 = 200.0;

/// The bars for a replay: events over pgbench's one-row rate, and megabytes.
const REPLAY_BAR: f64 = 15.0;
const REPLAY_MEMORY_BAR: f64 = 300.0;

/// The bar for a warm-up, in sessions a second: 100,000 in ten seconds.
const WARM_UP_BAR: f64 = 10_000.0;

/// One round of measurement.
pub struct Round {
    /// pgbench's rows a second.
    pub one_row: f64,
    /// The updates.
    pub load: Load,
    /// CPU time during the updates.
    pub used: Usage,
    /// How long the projections took to catch up after the last update.
    pub caught_up: Duration,
    /// Peak resident memory of the service so far, in bytes.
    pub resident: u64,
}

impl Round {
    /// CPU time of a process for each update, in microseconds.
    fn cpu(&self, name: &str) -> f64 {
        let used = self.used.0.get(name).copied().unwrap_or_default();
        used.as_secs_f64() * 1e6 / (self.load.rate() * self.load.took.as_secs_f64())
    }
}

/// All rounds.
pub struct Report {
    /// What it was measured with.
    pub versions: String,
    /// In order.
    pub rounds: Vec<Round>,
    /// After them.
    pub replay: Replay,
}

/// The versions of the servers.
pub fn versions(servers: &Servers) -> String {
    [&servers.postgres, &servers.nats, &servers.redis]
        .map(services::dev::Server::title)
        .join(", ")
}

impl Report {
    fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        let mut figures: Vec<f64> = self.rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    }

    /// The table that is printed and written.
    pub fn table(&self) -> String {
        let rate = self.median(|round| round.load.rate());
        let one_row = self.median(|round| round.one_row);
        let ratio = self.median(|round| round.load.rate() / round.one_row);
        let memory = self.median(|round| megabytes(round.resident));
        let caught_up = self.median(|round| round.caught_up.as_secs_f64());
        let met = |met: bool| if met { "met" } else { "not met" };
        let mut table = String::new();
        let _ = writeln!(table, "| what | figure | reference | ratio | bar | |");
        let _ = writeln!(table, "|---|---|---|---|---|---|");
        let _ = writeln!(
            table,
            "| single updates, 256 connections, closed loop | {rate:.0}/s | pgbench one row {one_row:.0}/s | {ratio:.2} | ≥ {BAR} | {} |",
            met(ratio >= BAR)
        );
        let _ = writeln!(
            table,
            "| … resident memory of the service, peak | {memory:.0} MB | | | ≤ {MEMORY_BAR:.0} MB | {} |",
            met(memory <= MEMORY_BAR)
        );
        let _ = writeln!(
            table,
            "| … projections caught up after the last update | {caught_up:.2} s | | | ≤ 2 s | {} |",
            met(caught_up <= 2.0)
        );
        let (replayed, replay_memory) = (self.replay.rate(), megabytes(self.replay.resident));
        let _ = writeln!(
            table,
            "| replay of the history, {} events | {replayed:.0}/s | pgbench one row {one_row:.0}/s | {:.1} | ≥ {REPLAY_BAR} | {} |",
            self.replay.events,
            replayed / one_row,
            met(replayed / one_row >= REPLAY_BAR)
        );
        let _ = writeln!(
            table,
            "| … resident memory of the replay, peak | {replay_memory:.0} MB | | | ≤ {REPLAY_MEMORY_BAR:.0} MB | {} |",
            met(replay_memory <= REPLAY_MEMORY_BAR)
        );
        let warm_up = self.replay.warm_up.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 sessions")]
        let warmed = self.replay.sessions as f64 / warm_up;
        let _ = writeln!(
            table,
            "| warm-up of an empty cache, {} active sessions | {warm_up:.1} s, {warmed:.0}/s | | | ≥ {WARM_UP_BAR:.0}/s | {} |",
            self.replay.sessions,
            met(warmed >= WARM_UP_BAR)
        );
        let [p50, p95, p99] =
            [50, 95, 99].map(|percent| self.median(|round| round.load.percentile(percent)));
        let _ = writeln!(
            table,
            "\nLatency of an update: p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms; no errors."
        );
        let _ = writeln!(table, "\nCPU per update:");
        for name in ["service", "Postgres", "NATS", "Redis", "generator"] {
            let micros = self.median(|round| round.cpu(name));
            let _ = writeln!(table, "- {name}: {micros:.0} µs");
        }
        table
    }

    /// Writes the whole report.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = String::from(
            "# Benchmarks\n\n\
             Written by `make bench`. Absolute figures say little: everything, the load \
             generator too, shares one machine. What counts is the ratio to a reference that was \
             measured in the same run, round by round in turn; figures are medians.\n\n",
        );
        text.push_str(&self.table());
        let _ = writeln!(text, "\n## Rounds\n");
        let _ = writeln!(
            text,
            "| round | updates/s | pgbench one row/s | ratio | p50 | p99 | caught up | CPU per update: service | Postgres |"
        );
        let _ = writeln!(text, "|---|---|---|---|---|---|---|---|---|");
        for (n, round) in (1..).zip(&self.rounds) {
            let _ = writeln!(
                text,
                "| {n} | {:.0} | {:.0} | {:.2} | {:.1} ms | {:.1} ms | {:.2} s | {:.0} µs | {:.0} µs |",
                round.load.rate(),
                round.one_row,
                round.load.rate() / round.one_row,
                round.load.percentile(50),
                round.load.percentile(99),
                round.caught_up.as_secs_f64(),
                round.cpu("service"),
                round.cpu("Postgres"),
            );
        }
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let _ = writeln!(
            text,
            "\n## Conditions\n\n\
             - Machine: {cores} cores{}; {}.\n\
             - Durability: fsync on, `synchronous_commit` on for the log (off for read tables, which \
             are rebuilt from it); JetStream file storage with its default sync interval; Redis \
             without persistence.\n\
             - The service: one process with every role, token checks on, all settings at their \
             defaults; 20,000 readers with an active session each.\n\
             - pgbench: `-M prepared -c 32 -j 2`, one event row a transaction into the same table \
             with the same payload, without the order lock.\n\
             - The replay: `reading-sessions replay history` as operators run it, from its start \
             to its end, on a log of its own; 20,000 sessions at a time, their events in turn.\n\
             - The warm-up: `reading-sessions warmup` in the same way, of that log's sessions, fifty \
             events each.\n\
             - After each round: as many events in the log, in the stream and in the history as \
             updates were acknowledged, or the run fails.",
            cpu_model()
                .map(|model| format!(" ({model})"))
                .unwrap_or_default(),
            self.versions,
        );
        std::fs::write(path, text).with_context(|| format!("{} was not written", path.display()))
    }
}

fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([':', ' ', '\t']).to_owned())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "memory stays far below 2^52 bytes"
)]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
