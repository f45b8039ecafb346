//! Progress on standard error: a bar on a terminal, otherwise a line every few
//! seconds.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use projections::operations::OperationProgress;
use tokio::sync::watch;

use super::format::{count, rate, span};
use super::output::report;

const REFRESH_INTERVAL: Duration = Duration::from_millis(500);

/// How often a line is written without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The rate is that of the last ten seconds.
const RATE_SAMPLES: usize = 20;

/// Shows the progress of an operation until it completes. `unit` is the plural of
/// what it processes.
pub async fn show<T>(
    name: &str,
    unit: &str,
    progress: watch::Receiver<OperationProgress>,
    operation: impl Future<Output = T>,
) -> T {
    let mut meter = Meter::new(name, unit);
    let result = tokio::select! {
        result = operation => result,
        never = meter.run(progress) => never,
    };
    meter.bar.finish_and_clear();
    result
}

struct Meter<'a> {
    name: &'a str,
    unit: &'a str,
    /// Hidden without a terminal.
    bar: ProgressBar,
    is_terminal: bool,
    /// The last values of `OperationProgress::done`, oldest first.
    samples: VecDeque<(Instant, u64)>,
}

impl<'a> Meter<'a> {
    fn new(name: &'a str, unit: &'a str) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if is_terminal {
            // The length is not known yet.
            ProgressBar::new(1)
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{prefix} [{wide_bar}] {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(name.to_owned());
        Self {
            name,
            unit,
            bar,
            is_terminal,
            samples: VecDeque::new(),
        }
    }

    async fn run(&mut self, mut progress: watch::Receiver<OperationProgress>) -> ! {
        // The first value is reported at once: it contains the start.
        let _ = progress.changed().await;
        let first = *progress.borrow_and_update();
        if first.done == 0 && first.reached > 0 {
            self.print_line(&format!(
                "{}: resuming after {} of {}",
                self.name,
                count(first.reached),
                count(first.total)
            ));
        }
        let mut printed_at = Instant::now();
        loop {
            let now = *progress.borrow_and_update();
            let text = self.text(now);
            self.bar.set_length(now.total);
            self.bar.set_position(now.reached);
            self.bar.set_message(text.clone());
            if !self.is_terminal && printed_at.elapsed() >= LINE_INTERVAL {
                printed_at = Instant::now();
                self.print_line(&format!("{}: {text}", self.name));
            }
            tokio::time::sleep(REFRESH_INTERVAL).await;
        }
    }

    fn print_line(&self, text: &str) {
        self.bar.suspend(|| report(text));
    }

    /// For example `45 %, 450,000 of 1,000,000, 61,000 events/s, 9 s left`.
    fn text(&mut self, now: OperationProgress) -> String {
        let at = Instant::now();
        self.samples.push_back((at, now.done));
        if self.samples.len() > RATE_SAMPLES {
            self.samples.pop_front();
        }
        let (first_at, first_done) = self.samples[0];
        let per_second = rate(now.done.saturating_sub(first_done), at - first_at);
        let left = match per_second {
            _ if now.reached >= now.total => ", finishing".to_owned(),
            0 => String::new(),
            per_second => {
                let seconds = now.total.saturating_sub(now.reached).div_ceil(per_second);
                format!(", {} left", span(Duration::from_secs(seconds)))
            }
        };
        format!(
            "{} %, {} of {}, {} {}/s{left}",
            now.reached * 100 / now.total.max(1),
            count(now.reached),
            count(now.total),
            count(per_second),
            self.unit
        )
    }
}
