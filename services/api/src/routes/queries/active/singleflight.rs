//! Where a reader's active session is found: in Redis, and in the log when Redis
//! does not know. However many ask for the same reader, the log is read once, and
//! what it says is filled into Redis after it was answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::ReaderId;
use commands::CommandService;
use eventlog::LogError;
use futures::FutureExt;
use futures::future::Shared;
use projections::active_sessions::{self, Entry, Filled, Known, Missed};
use projections::cache::{Cache, CacheError};
use tokio::sync::oneshot;

use super::counts::{Answered, Counts, Fill};
use crate::problem::Problem;
use prometheus_client::registry::Registry;
use eventlog::database_health::DatabaseHealth;

/// Finds active sessions; cheap to clone.
#[derive(Clone)]
pub struct ActiveReads(Arc<Inner>);

struct Inner {
    sessions: CommandService,
    cache: Cache,
    /// Of Postgres.
    pulse: DatabaseHealth,
    flights: Mutex<HashMap<ReaderId, Flight>>,
    counts: Counts,
}

/// A read of the log that is on its way.
type Flight = Shared<oneshot::Receiver<Result<Arc<AsOf>, Arc<LogError>>>>;

/// A reader's active session, as the log had it when its end was at `head`.
struct AsOf {
    active: Option<Box<Entry>>,
    head: i64,
}

/// A reader's active session.
#[derive(Debug)]
pub struct Found {
    /// The session, if there is one.
    pub active: Option<Box<Entry>>,
    /// Postgres is away, so that nobody can tell whether there is a newer state.
    pub stale: bool,
}

impl ActiveReads {
    /// Reads `cache`, and `sessions` behind it.
    #[must_use]
    pub fn new(sessions: CommandService, cache: Cache, pulse: DatabaseHealth, registry: &mut Registry) -> Self {
        Self(Arc::new(Inner {
            sessions,
            cache,
            pulse,
            flights: Mutex::default(),
            counts: Counts::new(registry),
        }))
    }

    /// A reader's active session, with all events up to a position, and with
    /// what the reader began or ended in this process.
    ///
    /// # Errors
    /// 504 for a position that is not in the log, 503 when neither Redis knows
    /// it nor Postgres answers.
    pub async fn find(
        &self,
        reader_id: ReaderId,
        min_position: Option<i64>,
    ) -> Result<Found, Problem> {
        let inner = &self.0;
        let min_position = min_position.max(inner.sessions.claimed_at(reader_id));
        let known = active_sessions::get(&inner.cache, reader_id, min_position).await;
        let active = match known {
            Ok(Known::Active(entry)) => Some(entry),
            Ok(Known::Inactive) => None,
            Ok(Known::Unknown) => {
                inner.counts.answered(Answered::Miss);
                return inner.from_log(reader_id, min_position, true).await;
            }
            Err(error) => {
                inner.counts.answered(match error {
                    CacheError::Late(_) => Answered::RedisLate,
                    CacheError::Failed(_) => Answered::RedisFailed,
                    CacheError::Away => Answered::RedisAway,
                });
                return inner.from_log(reader_id, min_position, false).await;
            }
        };
        let stale = inner.pulse.is_lost();
        inner.counts.answered(if stale {
            Answered::Stale
        } else {
            Answered::Hit
        });
        Ok(Found { active, stale })
    }
}

impl Inner {
    /// The reader's active session as the log has it; filled into Redis if that
    /// answers.
    async fn from_log(
        self: &Arc<Self>,
        reader_id: ReaderId,
        min_position: Option<i64>,
        fill: bool,
    ) -> Result<Found, Problem> {
        let mut as_of = self.join(reader_id, fill).await?;
        let is_behind = |as_of: &AsOf| min_position.is_some_and(|position| as_of.head < position);
        // One that was on its way may have read the log before the position; the
        // next one departs after this call came.
        if is_behind(&as_of) {
            as_of = self.join(reader_id, fill).await?;
        }
        if is_behind(&as_of) {
            return Err(Problem::not_yet());
        }
        Ok(Found {
            active: as_of.active.clone(),
            stale: false,
        })
    }

    /// Waits for the read of the log that is on its way for a reader, or a new one.
    async fn join(self: &Arc<Self>, reader_id: ReaderId, fill: bool) -> Result<Arc<AsOf>, Problem> {
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(flight) = flights.get(&reader_id) {
                self.counts.joined();
                flight.clone()
            } else {
                let flight = self.depart(reader_id, fill);
                flights.insert(reader_id, flight.clone());
                flight
            }
        };
        // The task is dropped only when the runtime is.
        let landed = flight.await.map_err(|_| Problem::internal())?;
        landed.map_err(|error| Problem::from(&*error))
    }

    /// Reads the log in a task of its own, which no client that hangs up ends:
    /// others may wait for it.
    fn depart(self: &Arc<Self>, reader_id: ReaderId, fill: bool) -> Flight {
        let (arrived, flight) = oneshot::channel();
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let landing = Landing(&inner, reader_id);
            // Before the log is read: what Redis is told after it is newer.
            let missed = if fill {
                active_sessions::miss(&inner.cache).await.ok()
            } else {
                None
            };
            let read = inner.sessions.active(reader_id).await;
            // Whoever comes from now on must see what is written from now on.
            drop(landing);
            match read {
                Ok((active, head)) => {
                    let version = active
                        .as_ref()
                        .map_or(head, |active| active.global_position);
                    let active = active.and_then(|active| {
                        Some(Box::new(Entry {
                            session_id: active.session_id,
                            sequence: active.versioned.sequence,
                            session: active.versioned.session.started()?.clone(),
                        }))
                    });
                    let as_of = Arc::new(AsOf { active, head });
                    let _ = arrived.send(Ok(Arc::clone(&as_of)));
                    if let Some(missed) = missed {
                        inner.fill(missed, reader_id, &as_of, version).await;
                    }
                }
                Err(error) => drop(arrived.send(Err(Arc::new(error)))),
            }
        });
        flight.shared()
    }

    async fn fill(&self, missed: Missed, reader_id: ReaderId, as_of: &AsOf, version: i64) {
        let (active, head) = (as_of.active.as_deref(), as_of.head);
        let filled = active_sessions::fill(&self.cache, missed, reader_id, active, version, head);
        self.counts.filled(match filled.await {
            Ok(Filled::Taken(0)) => Fill::Older,
            Ok(Filled::Taken(_)) => Fill::Taken,
            Ok(Filled::Late) => Fill::Late,
            Err(error) => {
                tracing::debug!(%error, "a miss was not filled");
                Fill::Failed
            }
        });
    }
}

/// A flight that is over when this is dropped, also by a panic.
struct Landing<'a>(&'a Inner, ReaderId);

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let Self(inner, reader_id) = self;
        let mut flights = inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(reader_id);
    }
}
