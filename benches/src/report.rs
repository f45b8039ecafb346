//! The report: what each part found, as rows of one table and as chapters
//! below it, with what it was measured on.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use dev_servers::Servers;

use crate::Part;
use crate::service::Measured;

/// The processes whose CPU time is told.
pub const PROCESSES: [&str; 5] = ["service", "Postgres", "NATS", "Redis", "generator"];

/// A line of the table.
#[derive(Clone, Debug, Default)]
pub struct Row {
    what: String,
    figure: String,
    reference: String,
    ratio: String,
    bar: String,
    verdict: String,
    is_met: bool,
}

impl Row {
    /// A figure.
    pub fn new(what: impl Into<String>, figure: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            figure: figure.into(),
            is_met: true,
            ..Self::default()
        }
    }

    /// What could not be measured.
    pub fn failed(what: impl Into<String>, error: &anyhow::Error) -> Self {
        Self {
            verdict: format!("failed: {}", format!("{error:#}").replace(['\n', '|'], " ")),
            is_met: false,
            ..Self::new(what, "")
        }
    }

    /// What it is compared with, and the ratio.
    pub fn beside(mut self, reference: impl Into<String>, ratio: f64) -> Self {
        self.reference = reference.into();
        self.ratio = if ratio < 10.0 {
            format!("{ratio:.2}")
        } else {
            format!("{ratio:.1}")
        };
        self
    }

    /// What it is compared with where a ratio says nothing.
    pub fn beside_only(mut self, reference: impl Into<String>) -> Self {
        self.reference = reference.into();
        self
    }

    /// The least that a value may be.
    pub fn at_least(self, value: f64, bar: f64, unit: &str) -> Self {
        self.bar("≥", bar, unit, value >= bar)
    }

    /// The most that a value may be.
    pub fn at_most(self, value: f64, bar: f64, unit: &str) -> Self {
        self.bar("≤", bar, unit, value <= bar)
    }

    fn bar(mut self, sign: &str, bar: f64, unit: &str, met: bool) -> Self {
        let space = if unit.is_empty() || unit.starts_with('/') {
            ""
        } else {
            " "
        };
        self.bar = format!("{sign} {bar}{space}{unit}");
        self.verdict = String::from(if met { "met" } else { "not met" });
        self.is_met = met;
        self
    }

    fn line(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {} | {} |",
            self.what, self.figure, self.reference, self.ratio, self.bar, self.verdict
        )
    }
}

/// What a part of the run came to.
#[derive(Debug, Default)]
pub struct Findings {
    /// Lines of the table.
    pub rows: Vec<Row>,
    /// Titles and texts below it.
    pub chapters: Vec<(String, String)>,
    /// How it was measured, a sentence or two each.
    pub conditions: Vec<String>,
    /// Whether something could not be measured.
    pub has_failed: bool,
}

impl Findings {
    /// What is left of a part that failed.
    pub fn failed(part: Part, error: &anyhow::Error) -> Self {
        Self {
            rows: vec![Row::failed(part.title(), error)],
            has_failed: true,
            ..Self::default()
        }
    }
}

/// All that was found.
pub struct Report {
    /// What it was measured with.
    pub versions: String,
    /// How it was run, if not in full.
    pub extent: String,
    /// Part by part.
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
    pub fn is_whole(&self) -> bool {
        self.findings.iter().all(|findings| !findings.has_failed)
    }

    /// The table that is printed and written.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| what | figure | reference | ratio | bar | |\n|---|---|---|---|---|---|\n",
        );
        for row in self.findings.iter().flat_map(|findings| &findings.rows) {
            let _ = writeln!(table, "{}", row.line());
        }
        table
    }

    /// What stands below the table.
    pub fn chapters(&self) -> String {
        let mut text = String::new();
        for (title, body) in self.findings.iter().flat_map(|findings| &findings.chapters) {
            let _ = writeln!(text, "\n## {title}\n\n{}", body.trim_end());
        }
        text
    }

    /// Writes the whole report.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = String::from(
            "# Benchmarks\n\n\
             Written by `make bench`. Absolute figures say little: everything, the load \
             generator too, shares one machine. What counts is the ratio to a reference that was \
             measured in the same run, round by round in turn; figures are medians.\n\n",
        );
        let _ = writeln!(
            text,
            "{}{}\nWhat holds it back: see [profile.md](profile.md).",
            self.extent,
            self.table()
        );
        text.push_str(&self.chapters());
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let _ = writeln!(
            text,
            "\n## Conditions\n\n\
             - Machine: {cores} cores{}; {}.\n\
             - Durability: fsync on, `synchronous_commit` on for the log (off for read tables, which \
             are rebuilt from it); JetStream file storage with its default sync interval; Redis \
             without persistence.\n\
             - The service: one process with every role and all settings at their defaults, token \
             checks and rate limits among them: readers take turns, so that none meets a limit where \
             an answer 429 would count as an error.\n\
             - Each part has a database, a stream and a Redis database of its own on the same \
             servers, and they are removed after it.\n\
             - After each run: as many events in the log, in the stream and in the history as \
             commands were acknowledged, or there is no figure. At least as many where a start may \
             end another session (the original's users), or an answer came too late (overload).\n\
             - CPU time is what the kernel counts for each process and its children, divided by the \
             good answers; the generator's is measured as well, since it takes the same cores.",
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
        std::fs::write(path, text).with_context(|| format!("{} was not written", path.display()))
    }
}

/// The head of a table of loads.
pub const LOADS: &str = "| what | rate | p50 | p95 | p99 | errors | caught up | resident | CPU for each: service | Postgres | NATS | Redis | generator |\n\
     |---|---|---|---|---|---|---|---|---|---|---|---|---|\n";

/// A line of that table.
pub fn load_line(what: &str, measured: &Measured) -> String {
    let Measured {
        load,
        used,
        caught_up,
        resident,
    } = measured;
    let [p50, p95, p99] = [50, 95, 99].map(|percent| load.percentile(percent));
    let cpu = PROCESSES.map(|name| format!("{:.0} µs", used.micros_each(name, load.good)));
    format!(
        "| {what} | {:.0}/s | {p50:.1} ms | {p95:.1} ms | {p99:.1} ms | {} | {:.2} s | {:.0} MB | {} |\n",
        load.rate(),
        load.errors(),
        caught_up.as_secs_f64(),
        megabytes(*resident),
        cpu.join(" | ")
    )
}

/// The middle one; of an even number the upper of the two.
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

/// A part of a whole.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// For people.
#[expect(
    clippy::cast_precision_loss,
    reason = "memory stays far below 2^52 bytes"
)]
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
