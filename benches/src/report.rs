//! The report: one table with the findings of all parts, sections below it, and the
//! conditions of the measurement.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use dev_servers::Servers;

use crate::Part;
use crate::service::Measured;

/// The processes whose CPU time is reported.
pub const PROCESSES: [&str; 5] = ["service", "Postgres", "NATS", "Redis", "generator"];

/// A row of the table.
#[derive(Clone, Debug, Default)]
pub struct Row {
    what: String,
    figure: String,
    reference: String,
    ratio: String,
    target: String,
    result: String,
}

impl Row {
    pub fn new(what: impl Into<String>, figure: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            figure: figure.into(),
            ..Self::default()
        }
    }

    /// A figure that could not be measured.
    pub fn failed(what: impl Into<String>, error: &anyhow::Error) -> Self {
        Self {
            result: format!("failed: {}", format!("{error:#}").replace(['\n', '|'], " ")),
            ..Self::new(what, "")
        }
    }

    /// Adds a reference and the ratio to it.
    pub fn reference(mut self, reference: impl Into<String>, ratio: f64) -> Self {
        self.reference = reference.into();
        self.ratio = if ratio < 10.0 {
            format!("{ratio:.2}")
        } else {
            format!("{ratio:.1}")
        };
        self
    }

    /// Adds a reference without a ratio.
    pub fn reference_only(mut self, reference: impl Into<String>) -> Self {
        self.reference = reference.into();
        self
    }

    /// Adds a lower limit for a value.
    pub fn at_least(self, value: f64, target: f64, unit: &str) -> Self {
        self.target("≥", target, unit, value >= target)
    }

    /// Adds an upper limit for a value.
    pub fn at_most(self, value: f64, target: f64, unit: &str) -> Self {
        self.target("≤", target, unit, value <= target)
    }

    fn target(mut self, sign: &str, target: f64, unit: &str, is_met: bool) -> Self {
        let space = if unit.is_empty() || unit.starts_with('/') {
            ""
        } else {
            " "
        };
        self.target = format!("{sign} {target}{space}{unit}");
        self.result = String::from(if is_met { "met" } else { "not met" });
        self
    }

    fn line(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {} | {} |",
            self.what, self.figure, self.reference, self.ratio, self.target, self.result
        )
    }
}

/// The findings of one part of the run.
#[derive(Debug, Default)]
pub struct Findings {
    pub rows: Vec<Row>,
    /// Titles and texts of the sections below the table.
    pub sections: Vec<(String, String)>,
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

    /// The table that is printed and written.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| measurement | figure | reference | ratio | target | result |\n|---|---|---|---|---|---|\n",
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
        text
    }

    /// Writes the whole report.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = String::from(
            "# Benchmarks\n\n\
             `make bench` writes this page. Compare the ratios rather than the absolute figures: the \
             service, its servers and the load generator share one machine. Each reference was \
             measured in the same run, in rounds that alternate with the service. Figures are \
             medians.\n\n",
        );
        let _ = writeln!(
            text,
            "{}{}\n[profile.md](profile.md) explains what limits the service.",
            self.scope,
            self.table()
        );
        text.push_str(&self.sections());
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
             - CPU time: the kernel's count for each process and its children, divided by the \
             successful responses. The table includes the generator, because it uses the same cores.",
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
        used,
        caught_up,
        resident,
    } = measured;
    let [p50, p95, p99] = [50, 95, 99].map(|percent| load.percentile(percent));
    let cpu = PROCESSES.map(|name| format!("{:.0} µs", used.micros_each(name, load.successful)));
    format!(
        "| {what} | {:.0}/s | {p50:.1} ms | {p95:.1} ms | {p99:.1} ms | {} | {:.2} s | {:.0} MB | {} |\n",
        load.rate(),
        load.errors(),
        caught_up.as_secs_f64(),
        megabytes(*resident),
        cpu.join(" | ")
    )
}

/// The median. For an even count, the upper of the two middle figures.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([':', ' ', '\t']).to_owned())
}

/// `part` in percent of `whole`.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "memory stays far below 2^52 bytes"
)]
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
