//! Counts requests in Redis, for all API processes.
//!
//! One task sends the checks of all requests to Redis. Checks that arrive while a
//! script runs wait for the next one. A batch therefore forms without a timer, and
//! under load one script checks many requests.

use std::time::Duration;

use eventlog::availability::Availability;
use eventlog::error::error_chain;
use projections::cache::{Cache, CacheError};
use redis::Script;
use tokio::sync::{mpsc, oneshot};

/// Checks that may wait for the next script; this process counts any further ones
/// alone. Equal to the limit of open connections.
const MAX_WAITING: usize = 8_192;

/// Checks per script. Redis runs nothing else during a script, which takes about
/// 10 µs per check.
const BATCH_SIZE: usize = 128;

/// The result of a check.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowCount {
    pub(super) allowed: bool,
    pub(super) remaining: u32,
    /// The time until more requests are left.
    pub(super) reset: Duration,
}

impl WindowCount {
    /// Decodes the script's result for one check: three big-endian 64-bit numbers.
    fn from_bytes(bytes: &[u8; 24]) -> Self {
        let number = |n| u64::from_be_bytes(bytes.as_chunks().0[n]);
        Self {
            allowed: number(0) == 1,
            remaining: u32::try_from(number(1)).unwrap_or(u32::MAX),
            reset: Duration::from_millis(number(2)),
        }
    }
}

/// A handle to the counting task. The task ends when the handle is dropped.
pub(super) struct SharedCount(mpsc::Sender<Check>);

struct Check {
    key: String,
    limit: u32,
    result: oneshot::Sender<WindowCount>,
}

impl SharedCount {
    /// `deadline` limits the time that one script may take.
    pub(super) fn start(cache: Cache, window: Duration, deadline: Duration) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        tokio::spawn(run(cache, window, deadline, receiver));
        Self(sender)
    }

    /// Checks a request, and counts it if it is allowed. Returns `None` if Redis is
    /// unavailable or too many checks are waiting.
    pub(super) async fn count(&self, key: String, limit: u32) -> Option<WindowCount> {
        let (result, receiver) = oneshot::channel();
        let check = Check { key, limit, result };
        self.0.try_send(check).ok()?;
        receiver.await.ok()
    }
}

async fn run(
    cache: Cache,
    window: Duration,
    deadline: Duration,
    mut receiver: mpsc::Receiver<Check>,
) {
    let script = Script::new(include_str!("sliding_window.lua"));
    let availability = Availability::new(
        "shared rate-limit count",
        "each process counts requests alone until Redis is available",
    );
    let mut checks = Vec::with_capacity(BATCH_SIZE);
    while receiver.recv_many(&mut checks, BATCH_SIZE).await > 0 {
        match run_script(&cache, &script, window, deadline, &checks).await {
            Ok(counts) => {
                availability.succeeded();
                for (check, count) in checks.drain(..).zip(counts) {
                    // Fails if the client has disconnected: its request counts
                    // all the same.
                    let _ = check.result.send(count);
                }
            }
            Err(error) => {
                availability.failed(&error_chain(&error));
                // Dropping the senders makes the waiting requests count locally.
                checks.clear();
            }
        }
    }
}

async fn run_script(
    cache: &Cache,
    script: &Script,
    window: Duration,
    deadline: Duration,
    checks: &[Check],
) -> Result<Vec<WindowCount>, CacheError> {
    let mut invocation = script.prepare_invoke();
    invocation.arg(u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
    for check in checks {
        invocation.key(&check.key).arg(check.limit);
    }
    let counts: Vec<u8> = cache
        .call_if_available(deadline, async |mut redis| {
            invocation.invoke_async(&mut redis).await
        })
        .await?;
    let counts = counts.as_chunks().0;
    Ok(counts.iter().map(WindowCount::from_bytes).collect())
}
