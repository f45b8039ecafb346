//! How far something is, for who waits for it: a bar on a terminal, elsewhere a
//! line every few seconds. On standard error, beside what the command prints.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use super::format::{count, rate, span};
use projections::operations::OperationProgress;

/// How often it is looked at, and how often a line is written.
const LOOK: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(5);

/// Looks over which the rate is taken: ten seconds.
const RATED: usize = 20;

/// Shows the progress of work until that is done.
pub async fn with<T>(
    name: &str,
    unit: &str,
    progress: watch::Receiver<OperationProgress>,
    work: impl Future<Output = T>,
) -> T {
    let mut meter = Meter::new(name, unit);
    let done = tokio::select! {
        done = work => done,
        never = meter.show(progress) => never,
    };
    meter.bar.finish_and_clear();
    done
}

/// Writes a line beside the results.
pub fn say(text: &str) {
    // Who closes standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "{text}");
}

struct Meter<'a> {
    name: &'a str,
    unit: &'a str,
    /// Hidden where there is no terminal.
    bar: ProgressBar,
    terminal: bool,
    rated: VecDeque<(Instant, u64)>,
}

impl<'a> Meter<'a> {
    fn new(name: &'a str, unit: &'a str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal {
            // Empty until something is known.
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
            terminal,
            rated: VecDeque::new(),
        }
    }

    async fn show(&mut self, mut progress: watch::Receiver<OperationProgress>) -> ! {
        let mut written_at = Instant::now();
        let mut first = true;
        loop {
            // At the first word at once: it says where it begins.
            if first {
                let _ = progress.changed().await;
            }
            let now = *progress.borrow_and_update();
            if first && now.done == 0 && now.at > 0 {
                self.line(&format!(
                    "{}: goes on after {} of {}, where an earlier one stopped",
                    self.name,
                    count(now.at),
                    count(now.of)
                ));
            }
            first = false;
            let text = self.text(now);
            self.bar.set_length(now.of);
            self.bar.set_position(now.at);
            self.bar.set_message(text.clone());
            if !self.terminal && written_at.elapsed() >= LINE {
                written_at = Instant::now();
                self.line(&format!("{}: {text}", self.name));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| say(text));
    }

    /// As `45 %, 450,000 of 1,000,000, 61,000 events/s, 9 s left`.
    fn text(&mut self, now: OperationProgress) -> String {
        let at = Instant::now();
        self.rated.push_back((at, now.done));
        if self.rated.len() > RATED {
            self.rated.pop_front();
        }
        let (since, before) = self.rated[0];
        let speed = rate(now.done.saturating_sub(before), at - since);
        let left = match speed {
            _ if now.at >= now.of => ", and the last steps".to_owned(),
            0 => String::new(),
            speed => format!(
                ", {} left",
                span(Duration::from_secs(
                    now.of.saturating_sub(now.at).div_ceil(speed)
                ))
            ),
        };
        format!(
            "{} %, {} of {}, {} {}/s{left}",
            now.at * 100 / now.of.max(1),
            count(now.at),
            count(now.of),
            count(speed),
            self.unit
        )
    }
}
