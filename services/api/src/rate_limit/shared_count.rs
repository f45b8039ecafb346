//! Counts requests and stored bytes in Redis, for all API processes.
//!
//! One task sends the checks of all requests to Redis. Checks that arrive while a
//! script runs wait for the next one. A batch therefore forms without a timer, and
//! under load one script checks many requests.
//!
//! A check can carry a read of the key that its request needs next. The reads of a batch
//! are one command next to the script, so such a request needs one round trip.

use std::num::NonZeroU64;
use std::time::Duration;

use domain::ReaderId;
use eventlog::availability::Availability;
use eventlog::error::error_chain;
use eventlog::stored_bytes::{BUDGET_PERIOD, StoredBytes, TakenBytes};
use projections::cache::{Cache, CacheError};
use redis::aio::ConnectionManager;
use redis::{AsyncCommands, RedisError, Script, ScriptInvocation};
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
    /// The time until the reader's budget renews, if it is used up. `None` also for a
    /// check without a [`StorageCheck`].
    pub(super) budget_renews_in: Option<Duration>,
}

impl WindowCount {
    /// Decodes the script's result for one check: four big-endian 64-bit numbers.
    fn from_bytes(bytes: &[u8; 32]) -> Self {
        let number = |n| u64::from_be_bytes(bytes.as_chunks().0[n]);
        Self {
            allowed: number(0) == 1,
            remaining: u32::try_from(number(1)).unwrap_or(u32::MAX),
            reset: Duration::from_millis(number(2)),
            budget_renews_in: Some(Duration::from_millis(number(3))).filter(|wait| !wait.is_zero()),
        }
    }
}

/// The value of a key that was read with a check; `None` if the key is missing or has
/// another type than a string.
#[derive(Clone, Debug)]
pub struct Prefetched(pub Option<Vec<u8>>);

/// A handle to the counting task. The task ends when the handle is dropped.
pub(super) struct SharedCount(mpsc::Sender<Check>);

struct Check {
    key: String,
    limit: u32,
    // Dropped before `result`: a caller that counts locally finds the bytes waiting.
    storage: Option<StorageCheck>,
    /// The key to read.
    prefetch: Option<String>,
    result: oneshot::Sender<(WindowCount, Option<Prefetched>)>,
}

/// The parameters of all checks.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) window: Duration,
    pub(super) daily_bytes: Option<NonZeroU64>,
    /// The time that one script may take.
    pub(super) deadline: Duration,
}

/// The part of a check that concerns the bytes that a reader stores.
#[derive(Debug)]
pub(super) struct StorageCheck {
    pub(super) reader_id: ReaderId,
    /// The bytes to count first.
    pub(super) taken: Option<TakenBytes>,
}

impl StorageCheck {
    fn bytes(&self) -> u64 {
        self.taken.as_ref().map_or(0, TakenBytes::bytes)
    }
}

fn storage_key(reader_id: ReaderId) -> String {
    format!("rate_limit:stored_bytes:user:{reader_id}")
}

impl SharedCount {
    pub(super) fn start(cache: Cache, limits: Limits, stored: StoredBytes) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        tokio::spawn(run(cache, limits, stored, receiver));
        Self(sender)
    }

    /// Checks a request, and counts it if it is allowed. Reads the key `prefetch` too. A
    /// refused read does not affect the check; a late one delays it, within its deadline. Returns `None` if Redis is unavailable or
    /// too many checks are waiting.
    pub(super) async fn count(
        &self,
        key: String,
        limit: u32,
        storage: Option<StorageCheck>,
        prefetch: Option<String>,
    ) -> Option<(WindowCount, Option<Prefetched>)> {
        let (result, receiver) = oneshot::channel();
        let check = Check {
            key,
            limit,
            storage,
            prefetch,
            result,
        };
        self.0.try_send(check).ok()?;
        receiver.await.ok()
    }
}

async fn run(
    cache: Cache,
    limits: Limits,
    stored: StoredBytes,
    mut receiver: mpsc::Receiver<Check>,
) {
    let script = Script::new(include_str!("sliding_window.lua"));
    let availability = Availability::new(
        "shared rate-limit count",
        "each process counts requests alone until Redis is available",
    );
    let mut checks = Vec::with_capacity(BATCH_SIZE);
    while receiver.recv_many(&mut checks, BATCH_SIZE).await > 0 {
        let excess = stored.take_excess(BATCH_SIZE);
        // The script expects the checks with a counter of bytes first.
        checks.sort_by_key(|check| check.storage.is_none());
        match run_script(&cache, &script, limits, &checks, &excess).await {
            Ok((counts, prefetched)) => {
                let mut prefetched = prefetched.into_iter();
                availability.succeeded();
                excess.into_iter().for_each(TakenBytes::counted);
                for (check, count) in checks.drain(..).zip(counts) {
                    if let Some(taken) = check.storage.and_then(|storage| storage.taken) {
                        taken.counted();
                    }
                    let prefetched = check.prefetch.and_then(|_| prefetched.next());
                    // Fails if the client has disconnected: its request counts
                    // all the same.
                    let _ = check.result.send((count, prefetched.map(Prefetched)));
                }
            }
            Err(error) => {
                availability.failed(&error_chain(&error));
                // Bytes that were not sent wait again.
                if !matches!(error, CacheError::Unavailable) {
                    let storages = checks.iter_mut().map(|check| check.storage.take());
                    let taken = storages.flatten().filter_map(|storage| storage.taken);
                    taken.chain(excess).for_each(TakenBytes::maybe_counted);
                }
                // Dropping the senders makes the waiting requests count locally.
                checks.clear();
            }
        }
    }
}

/// Returns the count of each check, and the value of each key to read. There are no
/// values if the read fails.
async fn run_script(
    cache: &Cache,
    script: &Script,
    limits: Limits,
    checks: &[Check],
    excess: &[TakenBytes],
) -> Result<(Vec<WindowCount>, Vec<Option<Vec<u8>>>), CacheError> {
    let mut invocation = script.prepare_invoke();
    let storages = || checks.iter().filter_map(|check| check.storage.as_ref());
    invocation
        .arg(u64::try_from(limits.window.as_millis()).unwrap_or(u64::MAX))
        .arg(u64::try_from(BUDGET_PERIOD.as_millis()).unwrap_or(u64::MAX))
        .arg(limits.daily_bytes.map_or(0, NonZeroU64::get))
        .arg(checks.len())
        .arg(storages().count());
    for check in checks {
        invocation.key(&check.key).arg(check.limit);
    }
    for storage in storages() {
        invocation
            .key(storage_key(storage.reader_id))
            .arg(storage.bytes());
    }
    for taken in excess {
        invocation
            .key(storage_key(taken.reader_id()))
            .arg(taken.bytes());
    }
    let keys = checks.iter().filter_map(|check| check.prefetch.as_deref());
    let keys: Vec<&str> = keys.collect();
    let (counts, values) = cache
        .call_if_available(limits.deadline, async |redis| {
            count_and_read(&invocation, &keys, redis).await
        })
        .await?;
    let counts = counts.as_chunks().0.iter();
    Ok((counts.map(WindowCount::from_bytes).collect(), values))
}

/// Sends the script and the read together.
async fn count_and_read(
    invocation: &ScriptInvocation<'_>,
    keys: &[&str],
    mut redis: ConnectionManager,
) -> Result<(Vec<u8>, Vec<Option<Vec<u8>>>), RedisError> {
    if keys.is_empty() {
        return Ok((invocation.invoke_async(&mut redis).await?, Vec::new()));
    }
    let mut reader = redis.clone();
    let (counts, values) = tokio::join!(invocation.invoke_async(&mut redis), reader.mget(keys));
    Ok((counts?, values.unwrap_or_default()))
}
