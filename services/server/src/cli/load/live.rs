//! Figures while a load test runs, on standard error: on a terminal one line that is
//! refreshed, otherwise a line every ten seconds.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Load;
use super::figures::Latencies;
use crate::cli::format::{count, counted, rate};
use crate::cli::output::report;

const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// How often a line is written without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows the figures until the run completes, and reports when `stop` is cancelled before.
pub async fn show<T>(
    load: &Load,
    seconds: u32,
    stop: &CancellationToken,
    run: impl Future<Output = T>,
) -> T {
    let line = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{wide_msg}");
        let line = ProgressBar::new_spinner();
        line.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
    });
    let result = tokio::select! {
        result = run => result,
        never = refresh(load, seconds, line.as_ref()) => never,
        never = announce(stop, line.as_ref()) => never,
    };
    if let Some(line) = line {
        line.finish_and_clear();
    }
    result
}

async fn announce(stop: &CancellationToken, line: Option<&ProgressBar>) -> ! {
    stop.cancelled().await;
    let text = "Stopping after the requests in progress; Ctrl-C again does not wait";
    match line {
        Some(line) => line.suspend(|| report(text)),
        None => report(text),
    }
    std::future::pending().await
}

async fn refresh(load: &Load, seconds: u32, line: Option<&ProgressBar>) -> ! {
    let period = if line.is_some() {
        REFRESH_INTERVAL
    } else {
        LINE_INTERVAL
    };
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let started = Instant::now();
    let (mut shown_at, mut shown) = (started, 0);
    loop {
        ticks.tick().await;
        let requests = load.figures().requests();
        let per_second = rate(requests - shown, shown_at.elapsed());
        (shown_at, shown) = (Instant::now(), requests);
        let text = format!(
            "{} of {seconds} s, {}",
            // A tick can be a moment early.
            (started.elapsed() + REFRESH_INTERVAL / 2).as_secs(),
            text(load, per_second)
        );
        match line {
            Some(line) => line.set_message(text),
            None => report(&text),
        }
    }
}

/// For example `100 users, 1,234 requests, 65/s, p95 4.2 ms, 0 errors`.
fn text(load: &Load, per_second: u64) -> String {
    let users = load.users();
    let figures = load.figures();
    let all = figures.all_latencies();
    format!(
        "{}, {}, {}/s, p95 {:.1} ms, {}",
        counted(users, "user", "users"),
        counted(figures.requests(), "request", "requests"),
        count(per_second),
        Latencies(&all).quantile(0.95),
        counted(figures.errors(), "error", "errors")
    )
}
