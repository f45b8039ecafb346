//! Keeps a key set up to date. One task fetches it periodically, and when a token
//! names an unknown key. If a fetch fails, the last valid set stays in use.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use eventlog::error::error_chain;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::claims::TokenRules;
use super::jwks_source::{FETCH_TIMEOUT, JwksSource, ReadError};
use super::key_set::{KeySet, KeySetError};

/// The retry interval while there is no key set, so that no token is accepted.
const RETRY_INTERVAL_WITHOUT_KEYS: Duration = Duration::from_secs(2);

/// The retry interval while the last valid set is in use.
const RETRY_INTERVAL_WITH_KEYS: Duration = Duration::from_secs(30);

/// The minimum time between two fetches that tokens with unknown keys cause. Anyone
/// can write such a token.
const UNKNOWN_KEY_COOLDOWN: Duration = Duration::from_secs(30);

/// Requests that may wait for a fetch; further ones fail at once. Anyone can cause them,
/// and a fetch takes up to [`FETCH_TIMEOUT`].
const MAX_WAITING: usize = 1_024;

/// Asks the fetch task for a newer set.
struct RefreshRequest {
    read_at: Instant,
    /// Notified when the current set is as new as it can be at the moment.
    done: oneshot::Sender<Refreshed>,
}

/// Whether the key set was fetched after the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refreshed {
    Yes,
    /// The fetch failed, the last one was a moment ago, or too many requests wait for it.
    No,
}

#[derive(Debug, Error)]
enum FetchError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Parse(#[from] KeySetError),
}

/// A handle to the fetch task and the current set. The task ends when the handle is
/// dropped.
pub(super) struct JwksFetcher {
    key_set: Arc<ArcSwapOption<KeySet>>,
    requests: mpsc::Sender<RefreshRequest>,
}

impl JwksFetcher {
    pub(super) fn start(source: JwksSource, rules: TokenRules) -> Self {
        let key_set = Arc::new(ArcSwapOption::empty());
        let (requests, receiver) = mpsc::channel(MAX_WAITING);
        let task = FetchTask {
            source,
            rules,
            key_set: Arc::clone(&key_set),
            last_json: None,
        };
        tokio::spawn(task.run(receiver));
        Self { key_set, requests }
    }

    /// The last valid set; `None` before the first successful fetch.
    pub(super) fn key_set(&self) -> Option<Arc<KeySet>> {
        self.key_set.load_full()
    }

    /// Requests a fetch and waits until it ends. The task may decide not to fetch,
    /// and concurrent callers share one fetch.
    /// `read_at` is when the caller has read the set that lacks its key.
    pub(super) async fn refresh(&self, read_at: Instant) -> Refreshed {
        let (done, receiver) = oneshot::channel();
        let request = RefreshRequest { read_at, done };
        if self.requests.try_send(request).is_err() {
            return Refreshed::No;
        }
        match timeout(FETCH_TIMEOUT, receiver).await {
            Ok(Ok(refreshed)) => refreshed,
            Ok(Err(_)) | Err(_) => Refreshed::No,
        }
    }
}

/// The state of the fetch task. A single task makes one fetch at a time, and a
/// request that is cancelled does not cancel a fetch that others wait for.
struct FetchTask {
    source: JwksSource,
    rules: TokenRules,
    key_set: Arc<ArcSwapOption<KeySet>>,
    /// The JSON of the current set.
    last_json: Option<Vec<u8>>,
}

impl FetchTask {
    async fn run(mut self, mut requests: mpsc::Receiver<RefreshRequest>) {
        let mut last_unknown_key: Option<Instant> = None;
        let mut current_request: Option<RefreshRequest> = None;
        loop {
            let (wait, refreshed) = match self.fetch().await {
                Ok(()) => (self.source.poll_interval(), Refreshed::Yes),
                Err(error) => (self.log_failure(&error), Refreshed::No),
            };
            let fetched_at = Instant::now();
            if let Some(request) = current_request.take() {
                let _ = request.done.send(refreshed);
            }
            current_request = loop {
                let request = tokio::select! {
                    // A periodic fetch that is due also serves the waiting requests.
                    biased;
                    () = sleep_until(fetched_at + wait) => break None,
                    request = requests.recv() => request,
                };
                let Some(request) = request else {
                    return;
                };
                // Before the first set every key is unknown, so only the retry
                // interval decides when to fetch.
                let may_fetch = self.key_count() > 0
                    && request.read_at > fetched_at
                    && last_unknown_key.is_none_or(|at| at.elapsed() >= UNKNOWN_KEY_COOLDOWN);
                if may_fetch {
                    last_unknown_key = Some(Instant::now());
                    break Some(request);
                }
                // A request from before the end of the last fetch shares its result.
                let shares = request.read_at <= fetched_at;
                let _ = request
                    .done
                    .send(if shares { refreshed } else { Refreshed::No });
            };
        }
    }

    /// Logs a failed fetch, and returns the time until the next attempt.
    fn log_failure(&self, error: &FetchError) -> Duration {
        let (error, source, keys) = (error_chain(error), &self.source, self.key_count());
        if keys == 0 {
            tracing::warn!(
                error, %source, keys,
                "refresh of signing keys from {source} failed: {error}; \
                 no token can be verified until a retry succeeds"
            );
            RETRY_INTERVAL_WITHOUT_KEYS
        } else {
            tracing::warn!(
                error, %source, keys,
                "refresh of signing keys from {source} failed: {error}; \
                 the previous {keys} keys stay in use"
            );
            RETRY_INTERVAL_WITH_KEYS.min(source.poll_interval())
        }
    }

    fn key_count(&self) -> usize {
        self.key_set.load().as_ref().map_or(0, |set| set.len())
    }

    async fn fetch(&mut self) -> Result<(), FetchError> {
        let Some(json) = self.source.read().await? else {
            return Ok(());
        };
        // An unchanged set keeps its cache of verified tokens, and its unusable keys
        // are not logged again.
        if self.last_json.as_ref() == Some(&json) {
            return Ok(());
        }
        let previous = self.key_set.load_full();
        let set = KeySet::parse(&json, &self.rules, previous.as_deref())?;
        let keys = set.len();
        tracing::info!(keys, source = %self.source, "signing keys loaded: {keys} usable keys");
        self.key_set.store(Some(Arc::new(set)));
        self.last_json = Some(json);
        Ok(())
    }
}
