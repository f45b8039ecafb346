//! Reads a reader's active session from Redis, and from the log on a cache miss.
//! Concurrent reads of the log for one reader share one load (singleflight). The
//! load fills Redis after the waiting requests have their result.
//!
//! A limited number of loads run at once. So a Redis that fails for all readers does not
//! take the connections of commands and other queries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use commands::CommandService;
use domain::ReaderId;
use eventlog::LogError;
use eventlog::database_health::DatabaseHealth;
use futures::FutureExt;
use futures::future::Shared;
use projections::active_sessions::{self, CacheLookup, CachedSession, FillResult, MissedAt};
use projections::cache::{Cache, CacheError};
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, oneshot};

use super::super::metrics::{QueryMetrics, QueryName};
use super::metrics::{ActiveReadMetrics, FillOutcome, ReadOutcome};
use crate::problem::Problem;
use crate::rate_limit::Prefetched;

/// How long a load waits for its turn. Then its requests fail with 503.
const LOAD_WAIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads active sessions. Clones are cheap and share their loads.
#[derive(Clone)]
pub struct ActiveReads(Arc<Inner>);

struct Inner {
    commands: CommandService,
    cache: Cache,
    database_health: DatabaseHealth,
    in_flight: Mutex<HashMap<ReaderId, Load>>,
    /// Limits the loads that read the log at once.
    loads: Semaphore,
    metrics: ActiveReadMetrics,
    queries: QueryMetrics,
}

/// A running read of the log.
type Load = Shared<oneshot::Receiver<Result<Arc<Snapshot>, LoadError>>>;

/// A load failed.
#[derive(Clone)]
enum LoadError {
    Log(Arc<LogError>),
    /// Too many other loads were running.
    Overloaded,
}

/// A reader's active session in the log up to the global position `head`.
struct Snapshot {
    active: Option<Box<CachedSession>>,
    head: i64,
}

/// The result of a read.
#[derive(Debug)]
pub struct ActiveRead {
    pub active: Option<Box<CachedSession>>,
    /// Whether the result may be out of date because Postgres is unavailable.
    pub stale: bool,
}

impl ActiveReads {
    /// `max_loads` is the number of reads of the log at once.
    #[must_use]
    pub fn new(
        commands: CommandService,
        cache: Cache,
        database_health: DatabaseHealth,
        max_loads: usize,
        queries: QueryMetrics,
        registry: &mut Registry,
    ) -> Self {
        Self(Arc::new(Inner {
            commands,
            cache,
            database_health,
            in_flight: Mutex::default(),
            loads: Semaphore::new(max_loads),
            metrics: ActiveReadMetrics::new(registry),
            queries,
        }))
    }

    /// The result includes all events up to `min_position`, and every start and
    /// end that this process recorded for the reader. `prefetched` is the reader's entry,
    /// if it was read already.
    ///
    /// # Errors
    /// `ReadModelBehind` if the log ends before `min_position`, `Unavailable` if
    /// Redis has no usable entry and Postgres is unavailable, `Overloaded` if too many
    /// others read the log.
    pub async fn find(
        &self,
        reader_id: ReaderId,
        min_position: Option<i64>,
        prefetched: Option<Prefetched>,
    ) -> Result<ActiveRead, Problem> {
        let inner = &self.0;
        // Read after the entry was prefetched, so that an entry from before a change is
        // not used after it.
        let changed = inner.commands.recent_change(reader_id);
        let expected = min_position.max(changed);
        let cached = match prefetched {
            Some(Prefetched(entry)) if expected.is_none() => {
                Ok(active_sessions::lookup(entry.as_deref()))
            }
            _ => active_sessions::get(&inner.cache, reader_id, expected).await,
        };
        let active = match cached {
            Ok(CacheLookup::Active(entry)) => Some(entry),
            Ok(CacheLookup::Inactive) => None,
            Ok(CacheLookup::Miss) => {
                inner.metrics.record_read(ReadOutcome::Miss);
                return inner
                    .read_log(reader_id, (min_position, changed), true)
                    .await;
            }
            Err(error) => {
                inner.metrics.record_read(match error {
                    CacheError::TimedOut(_) => ReadOutcome::RedisTimedOut,
                    CacheError::Failed(_) => ReadOutcome::RedisFailed,
                    CacheError::Unavailable => ReadOutcome::RedisUnavailable,
                });
                return inner
                    .read_log(reader_id, (min_position, changed), false)
                    .await;
            }
        };
        let stale = !inner.database_health.is_available();
        inner.metrics.record_read(if stale {
            ReadOutcome::Stale
        } else {
            ReadOutcome::Hit
        });
        Ok(ActiveRead { active, stale })
    }
}

impl Inner {
    /// Reads the log, at least up to a position and a recent change of this process.
    /// `fill`: whether to store the result in Redis.
    async fn read_log(
        self: &Arc<Self>,
        reader_id: ReaderId,
        (min_position, changed): (Option<i64>, Option<i64>),
        fill: bool,
    ) -> Result<ActiveRead, Problem> {
        // A load that finds that the log has lost events forgets the change.
        let expected = || min_position.max(changed.min(self.commands.recent_change(reader_id)));
        let is_behind = |snapshot: &Snapshot| expected().is_some_and(|min| snapshot.head < min);
        let mut snapshot = self.load(reader_id, fill).await?;
        // A load that was already running may have read the log before the event at
        // `min_position` was appended. The second load starts after this request arrived.
        if is_behind(&snapshot) {
            snapshot = self.load(reader_id, fill).await?;
        }
        if is_behind(&snapshot) {
            return Err(Problem::read_model_behind());
        }
        Ok(ActiveRead {
            active: snapshot.active.clone(),
            stale: false,
        })
    }

    /// Joins the reader's running load, or starts one.
    async fn load(
        self: &Arc<Self>,
        reader_id: ReaderId,
        fill: bool,
    ) -> Result<Arc<Snapshot>, Problem> {
        let load = {
            let mut in_flight = lock(&self.in_flight);
            if let Some(load) = in_flight.get(&reader_id) {
                self.metrics.record_joined();
                load.clone()
            } else {
                let load = self.spawn_load(reader_id, fill);
                in_flight.insert(reader_id, load.clone());
                load
            }
        };
        // The sender is dropped without a result only if the task panics or the
        // runtime stops.
        let result = load.await.map_err(|_| Problem::internal())?;
        result.map_err(|error| match error {
            LoadError::Log(error) => Problem::from(&*error),
            LoadError::Overloaded => Problem::overloaded(),
        })
    }

    /// Reads the log in a task of its own: a client that disconnects must not
    /// cancel a load for which other requests wait.
    fn spawn_load(self: &Arc<Self>, reader_id: ReaderId, fill: bool) -> Load {
        let (sender, load) = oneshot::channel();
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let guard = LoadGuard(&inner, reader_id);
            // Take the time of the miss before reading the log: Redis rejects a
            // fill whose miss is too old.
            let missed = if fill {
                active_sessions::missed_at(&inner.cache).await.ok()
            } else {
                None
            };
            let turn = tokio::time::timeout(LOAD_WAIT_TIMEOUT, inner.loads.acquire()).await;
            let Ok(Ok(turn)) = turn else {
                drop(guard);
                let _ = sender.send(Err(LoadError::Overloaded));
                return;
            };
            let started_at = Instant::now();
            let result = inner.commands.active(reader_id).await;
            inner
                .queries
                .record(QueryName::Active, started_at.elapsed());
            // Requests from now on must see later events, so they must not join.
            drop(guard);
            drop(turn);
            match result {
                Ok((active, head)) => {
                    let version = active
                        .as_ref()
                        .map_or(head, |active| active.versioned.global_position);
                    let active = active.and_then(|active| {
                        Some(Box::new(CachedSession {
                            session_id: active.session_id,
                            sequence: active.versioned.sequence,
                            session: active.versioned.session.started()?.clone(),
                        }))
                    });
                    let snapshot = Arc::new(Snapshot { active, head });
                    let _ = sender.send(Ok(Arc::clone(&snapshot)));
                    if let Some(missed) = missed {
                        inner.fill(missed, reader_id, &snapshot, version).await;
                    }
                }
                Err(error) => drop(sender.send(Err(LoadError::Log(Arc::new(error))))),
            }
        });
        load.shared()
    }

    async fn fill(&self, missed: MissedAt, reader_id: ReaderId, snapshot: &Snapshot, version: i64) {
        let (active, head) = (snapshot.active.as_deref(), snapshot.head);
        let filled = active_sessions::fill(&self.cache, missed, reader_id, active, version, head);
        self.metrics.record_fill(match filled.await {
            Ok(FillResult::Stored(0)) => FillOutcome::Outdated,
            Ok(FillResult::Stored(_)) => FillOutcome::Stored,
            Ok(FillResult::TooLate) => FillOutcome::TooLate,
            Err(error) => {
                tracing::debug!(%error, "filling a cache miss failed: {error}");
                FillOutcome::Failed
            }
        });
    }
}

fn lock(in_flight: &Mutex<HashMap<ReaderId, Load>>) -> MutexGuard<'_, HashMap<ReaderId, Load>> {
    in_flight.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the load when it is dropped, also by a panic.
struct LoadGuard<'a>(&'a Inner, ReaderId);

impl Drop for LoadGuard<'_> {
    fn drop(&mut self) {
        let Self(inner, reader_id) = self;
        lock(&inner.in_flight).remove(reader_id);
    }
}
