//! Waiting for a condition, with one factor for the time limits of all tests.

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, sleep};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A time limit, multiplied by `TEST_TIMEOUT_FACTOR` (1 if it is not set). A
/// slow or busy machine sets the factor instead of changing each limit.
///
/// [`eventually`], [`eventually_ok`] and [`until`] apply the factor themselves.
#[must_use]
pub fn scaled(limit: Duration) -> Duration {
    static FACTOR: OnceLock<f64> = OnceLock::new();
    let factor = FACTOR.get_or_init(|| {
        let factor = std::env::var("TEST_TIMEOUT_FACTOR").unwrap_or_else(|_| "1".to_owned());
        factor.parse().expect("TEST_TIMEOUT_FACTOR is a number")
    });
    limit.mul_f64(*factor)
}

/// Polls `check` every 20 ms and returns its first value.
///
/// # Panics
/// After `timeout` (scaled), with `what` was expected.
pub async fn eventually<T>(
    what: &str,
    timeout: Duration,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    eventually_ok(what, timeout, async || check().await.ok_or("not yet")).await
}

/// Like [`eventually`]; the panic message contains the last error as well.
///
/// # Panics
/// After `timeout` (scaled), with `what` was expected.
pub async fn eventually_ok<T, E: Display>(
    what: &str,
    timeout: Duration,
    mut check: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let timeout = scaled(timeout);
    let started = Instant::now();
    loop {
        match check().await {
            Ok(value) => return value,
            Err(error) => assert!(
                started.elapsed() < timeout,
                "timed out after {timeout:?} waiting for: {what} ({error})"
            ),
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Polls `check` every 20 ms until it returns `true`.
///
/// # Panics
/// After `timeout` (scaled), with `what` was expected.
pub async fn until(what: &str, timeout: Duration, mut check: impl AsyncFnMut() -> bool) {
    eventually_ok(what, timeout, async || {
        check().await.then_some(()).ok_or("not yet")
    })
    .await;
}
