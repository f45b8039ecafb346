//! The report: one table with the findings of all parts, sections below it, and the
//! conditions of the measurement.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use dev_servers::Servers;

use crate::Part;
use crate::bars::Bar;
use crate::service::Measured;
use crate::usage::Span;

mod figures;
mod row;

pub use figures::{median, megabytes, percent, thousands};
pub use row::Row;

/// The processes whose CPU time is reported in tables of loads.
pub const PROCESSES: [&str; 5] = ["service", "Postgres", "NATS", "Redis", "generator"];

/// The figures of peers, which are not measured in a run.
const PEERS: &str = include_str!("report/peers.md");

/// The findings of one part of the run.
#[derive(Debug, Default)]
pub struct Findings {
    pub rows: Vec<Row>,
    /// Titles and texts of the sections below the table.
    pub sections: Vec<(String, String)>,
    /// The CPU time of each measurement.
    pub spans: Vec<(String, Span)>,
    /// How the part was measured. Each becomes a list item.
    pub conditions: Vec<String>,
    /// Whether a figure could not be measured.
    pub has_failed: bool,
}

impl Findings {
    /// The findings of a failed part.
    pub fn failed(part: Part, error: &anyhow::Error) -> Self {
        Self {
            rows: vec![Row::failed(part.title(), error)],
            has_failed: true,
            ..Self::default()
        }
    }
}

pub struct Report {
    /// The versions of the servers.
    pub versions: String,
    /// A note if the run was not a full measurement; otherwise empty.
    pub scope: String,
    pub findings: Vec<Findings>,
}

/// The versions of the servers.
pub fn versions(servers: &Servers) -> String {
    [&servers.postgres, &servers.nats, &servers.redis]
        .map(dev_servers::Server::title)
        .join(", ")
}

impl Report {
    /// Whether all parts could be measured.
    pub fn is_complete(&self) -> bool {
        self.findings.iter().all(|findings| !findings.has_failed)
    }

    /// The measured bars, and whether they are met.
    pub fn bars(&self) -> impl Iterator<Item = (Bar, bool)> {
        let rows = self.findings.iter().flat_map(|findings| &findings.rows);
        rows.filter_map(|row| row.bar)
    }

    /// The table that is printed and written.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| measurement | figure | reference | ratio | bar | result | limited by |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for row in self.findings.iter().flat_map(|findings| &findings.rows) {
            let _ = writeln!(table, "{}", row.line());
        }
        table
    }

    /// The sections below the table.
    pub fn sections(&self) -> String {
        let mut text = String::new();
        for (title, body) in self.findings.iter().flat_map(|findings| &findings.sections) {
            let _ = writeln!(text, "\n## {title}\n\n{}", body.trim_end());
        }
        text.push_str(
            "\n## CPU time by process\n\n\
             | measurement | length | all cores | share of all cores by process |\n|---|---|---|---|\n",
        );
        for (what, span) in self.findings.iter().flat_map(|findings| &findings.spans) {
            text.push_str(&span.row(what));
        }
        text
    }

    /// Writes the whole report.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = String::from(
            "# Benchmarks\n\n\
             `make bench` writes this page. Compare the ratios rather than the absolute figures: the \
             service, its servers and the load generator share one machine. Each reference was \
             measured in the same run, in rounds that alternate with the service. Figures are \
             medians. A row is limited by the processor if all programs together used at least 90 % \
             of the cores; the row then names the one with the largest share.\n\n",
        );
        let _ = writeln!(
            text,
            "{}{}\n[profile.md](profile.md) explains each bar that is not met.",
            self.scope,
            self.table()
        );
        text.push_str(&self.sections());
        let _ = writeln!(text, "\n## Peers\n\n{}", PEERS.trim_end());
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let _ = writeln!(
            text,
            "\n## Conditions\n\n\
             - Machine: {cores} cores{}; {}.\n\
             - Durability: fsync is on. `synchronous_commit` is on for the log and off for read \
             tables, which are rebuilt from the log. JetStream uses file storage with its default \
             sync interval. Redis has no persistence.\n\
             - Service: one process with every role and default settings, including token checks \
             and rate limits. Readers take turns, so that no reader exceeds a limit where a 429 \
             response would count as an error.\n\
             - Isolation: each part has its own database, stream and Redis database on the same \
             servers. They are deleted after the part.\n\
             - Correctness: a figure counts only if the log, the stream and the history contain one \
             event for each acknowledged command after the run. They may contain more where a start \
             can end another session (scenario of the original) or a response can come too late \
             (overload).\n\
             - CPU time: the kernel's count for each process and its children. Tables of loads divide \
             it by the successful responses. They include the generator, because it uses the same \
             cores. Other programs: what the kernel counts for the whole machine beyond these \
             processes.\n\
             - Catch-up: from the last response until history, statistics and Redis have applied the \
             last event. A client requests it from history and statistics with `min_position`.",
            cpu_model()
                .map(|model| format!(" ({model})"))
                .unwrap_or_default(),
            self.versions,
        );
        for condition in self
            .findings
            .iter()
            .flat_map(|findings| &findings.conditions)
        {
            let _ = writeln!(text, "- {condition}");
        }
        std::fs::write(path, text).with_context(|| format!("writing {} failed", path.display()))
    }
}

/// The header of a table of loads.
pub const LOAD_TABLE_HEADER: &str = "| load | rate | p50 | p95 | p99 | errors | catch-up | peak memory | CPU per response: service | Postgres | NATS | Redis | generator |\n\
     |---|---|---|---|---|---|---|---|---|---|---|---|---|\n";

/// A row of the table of loads.
pub fn load_row(what: &str, measured: &Measured) -> String {
    let Measured {
        load,
        span,
        caught_up,
        resident,
    } = measured;
    let [p50, p95, p99] = [50, 95, 99].map(|percent| load.percentile(percent));
    let cpu =
        PROCESSES.map(|name| format!("{:.0} µs", span.used.micros_each(name, load.successful)));
    format!(
        "| {what} | {:.0}/s | {p50:.1} ms | {p95:.1} ms | {p99:.1} ms | {} | {:.2} s | {:.0} MB | {} |\n",
        load.rate(),
        load.errors(),
        caught_up.as_secs_f64(),
        megabytes(*resident),
        cpu.join(" | ")
    )
}

fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([':', ' ', '\t']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: Vec<Row>) -> Report {
        Report {
            versions: "Postgres 15".to_owned(),
            scope: String::new(),
            findings: vec![Findings {
                rows,
                spans: vec![("updates".to_owned(), Span::default())],
                ..Findings::default()
            }],
        }
    }

    #[test]
    fn a_missed_bar_names_its_key() {
        let report = report(vec![
            Row::new("updates", "900/s")
                .reference("pgbench 1000/s", 0.9)
                .bar(Bar::Updates, 0.9)
                .limit("processor: Postgres 41 %"),
            Row::new("page", "1 ms").bar(Bar::History, 1.0),
        ]);
        let table = report.table();
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| updates | 900/s | pgbench 1000/s | 0.90 | ≥ 1.5 | not met: \
                 [`updates`](profile.md#updates) | processor: Postgres 41 % |",
                "| page | 1 ms |  |  | ≤ 1.2 | met |  |",
            ]
        );
        let bars: Vec<_> = report.bars().collect();
        assert_eq!(bars, [(Bar::Updates, false), (Bar::History, true)]);
    }

    #[test]
    fn a_written_report_contains_the_figures_of_peers() {
        let path = std::env::temp_dir().join(format!("{}.md", uuid::Uuid::new_v4()));
        report(Vec::new()).write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.contains("## Peers\n"), "{text}");
        assert!(text.contains("| esrs 0.18.0 | 0.27 |"), "{text}");
        assert!(text.contains("| updates | 0.0 s |"), "{text}");
    }
}
