//! Calls counted in Redis, for all processes. One task asks for all requests:
//! what comes while a script is on its way is counted by the next one, so nobody
//! waits for a timer, and a busy service runs one script for many calls.

use std::time::Duration;

use projections::cache::{Cache, CacheError};
use redis::Script;
use tokio::sync::{mpsc, oneshot};

/// Calls that may wait for the next script; more are counted by this process. As
/// many as requests may be open.
const MAX_WAITING: usize = 8_192;

/// Calls in one script, which holds up Redis for as long as it runs: about 10 µs
/// for each.
const MAX_BATCH: usize = 128;

/// What a count came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) allowed: bool,
    pub(super) remaining: u32,
    /// When more are left.
    pub(super) reset: Duration,
}

impl Counted {
    /// As the script writes it.
    fn read(bytes: &[u8; 24]) -> Self {
        let number = |n| u64::from_be_bytes(bytes.as_chunks().0[n]);
        Self {
            allowed: number(0) == 1,
            remaining: u32::try_from(number(1)).unwrap_or(u32::MAX),
            reset: Duration::from_millis(number(2)),
        }
    }
}

/// A handle to the counting task, which ends with it.
pub(super) struct SharedCount(mpsc::Sender<Call>);

struct Call {
    key: String,
    limit: u32,
    counted: oneshot::Sender<Counted>,
}

impl SharedCount {
    /// Counts in `cache`, which has `deadline` to answer.
    pub(super) fn start(cache: Cache, window: Duration, deadline: Duration) -> Self {
        let (calls, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(run(cache, window, deadline, waiting));
        Self(calls)
    }

    /// Counts a call, if it may be made; `None` when Redis does not answer.
    pub(super) async fn count(&self, key: String, limit: u32) -> Option<Counted> {
        let (counted, answer) = oneshot::channel();
        let call = Call {
            key,
            limit,
            counted,
        };
        self.0.try_send(call).ok()?;
        answer.await.ok()
    }
}

async fn run(
    cache: Cache,
    window: Duration,
    deadline: Duration,
    mut waiting: mpsc::Receiver<Call>,
) {
    let script = Script::new(include_str!("sliding_window.lua"));
    let mut calls = Vec::with_capacity(MAX_BATCH);
    let mut away = false;
    while waiting.recv_many(&mut calls, MAX_BATCH).await > 0 {
        match count(&cache, &script, window, deadline, &calls).await {
            Ok(counts) => {
                if away {
                    tracing::info!("calls are counted for all processes again");
                }
                away = false;
                for (call, counted) in calls.drain(..).zip(counts) {
                    // Who has gone away has called all the same.
                    let _ = call.counted.send(counted);
                }
            }
            Err(error) => {
                if !away {
                    tracing::warn!(%error, "calls are counted by this process alone");
                }
                away = true;
                calls.clear();
            }
        }
    }
}

async fn count(
    cache: &Cache,
    script: &Script,
    window: Duration,
    deadline: Duration,
    calls: &[Call],
) -> Result<Vec<Counted>, CacheError> {
    let mut all = script.prepare_invoke();
    all.arg(u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
    for call in calls {
        all.key(&call.key).arg(call.limit);
    }
    let counts: Vec<u8> = cache
        .ask(deadline, async |mut redis| {
            all.invoke_async(&mut redis).await
        })
        .await?;
    Ok(counts.as_chunks().0.iter().map(Counted::read).collect())
}
