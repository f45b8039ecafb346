//! The session cache: loads sessions from the log and keeps them in memory.
//!
//! A cached session may be outdated, because other processes append too. The
//! append then conflicts, and only the new events are loaded. Therefore the cache
//! needs no invalidation.
//!
//! The log can lose its last events, when Postgres fails over to a server that lacks
//! them. Then the memory of this process is ahead of the log. Each load of new events
//! compares the two, and a loss empties the memory. This module decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::{ReaderId, ReadingSession, RecentTimes, SessionEvent, SessionId};
use eventlog::append::Append;
use eventlog::{AppendError, Appender, LogError, Pool, load_state, read};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, EntryAction, EntryResult};

use crate::recent_changes::RecentChanges;

/// The memory for cached sessions.
const CACHE_BYTES: u64 = 64 << 20;

/// The expected number of sessions in [`CACHE_BYTES`].
const CACHE_SESSIONS: usize = 100_000;

/// The size of a session without its strings.
const SESSION_BYTES: usize = 512;

/// A session and the number of its events.
#[derive(Clone, Debug, Default)]
pub struct VersionedSession {
    /// The state after event number `sequence`.
    pub session: ReadingSession,
    /// The sequence of the last event; 0 before the first.
    pub sequence: i64,
    /// The global position of the last event; 0 before the first, and until the event is
    /// committed.
    pub global_position: i64,
    /// The latest observation times, if a late observation has needed the timeline before.
    pub recent: Option<RecentTimes>,
}

impl VersionedSession {
    /// The session after more events, which are not committed yet.
    #[must_use]
    pub fn then(&self, events: &[SessionEvent]) -> Self {
        let mut next = self.clone();
        for event in events {
            next.apply(event);
            next.sequence += 1;
            next.global_position = 0;
        }
        next
    }

    fn apply(&mut self, event: &SessionEvent) {
        self.session.apply(event);
        self.recent = self.recent.take().and_then(|recent| recent.after(event));
    }

    /// `false` also for a session that was not started or was erased.
    #[must_use]
    pub fn is_owned_by(&self, reader_id: ReaderId) -> bool {
        let session = self.session.started();
        session.is_some_and(|session| session.start.reader_id == reader_id)
    }

    /// The approximate size in memory.
    fn bytes(&self) -> u64 {
        let texts = self.session.started().map_or(0, |session| {
            let book = session.start.book.as_ref();
            [
                session.start.device_id.as_ref(),
                session.start.locator.as_ref(),
                session.progress.latest.locator.as_ref(),
                book.and_then(|book| book.title.as_ref()),
                book.and_then(|book| book.author.as_ref()),
            ]
            .into_iter()
            .flatten()
            .map(String::len)
            .sum()
        });
        let times = self.recent.as_ref().map_or(0, RecentTimes::bytes);
        (SESSION_BYTES + texts + times) as u64
    }
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<SessionId, Arc<VersionedSession>> for ByBytes {
    fn weight(&self, _id: &SessionId, session: &Arc<VersionedSession>) -> u64 {
        session.bytes()
    }
}

/// Loads and caches sessions, and appends to the log.
pub struct Repository {
    pool: Pool,
    appender: Appender,
    cache: Cache<SessionId, Arc<VersionedSession>, ByBytes>,
    /// Part of the memory of this process that a loss empties.
    pub(crate) recent_changes: RecentChanges,
    losses: Arc<AtomicU64>,
}

impl Repository {
    /// Reads with `pool` and appends with `appender`.
    #[must_use]
    pub fn new(pool: impl Into<Pool>, appender: Appender) -> Self {
        let pool = pool.into();
        Self {
            pool,
            appender,
            cache: Cache::with_weighter(CACHE_SESSIONS, CACHE_BYTES, ByBytes),
            recent_changes: RecentChanges::default(),
            losses: Arc::default(),
        }
    }

    /// How often this process remembered an event that the log does not contain.
    #[must_use]
    pub fn losses(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.losses)
    }

    /// The cached session. A decision may use it, because the append detects an outdated
    /// state.
    #[must_use]
    pub fn cached(&self, id: SessionId) -> Option<Arc<VersionedSession>> {
        self.cache.get(&id)
    }

    /// The cached session, or else the session from the log; empty if the log has
    /// none. A decision may use it, because the append detects an outdated state.
    pub async fn load(&self, id: SessionId) -> Result<Arc<VersionedSession>, LogError> {
        if let Some(cached) = self.cached(id) {
            return Ok(cached);
        }
        let loaded = self.read(id).await?;
        Ok(self.cache(id, loaded))
    }

    /// The session from the log; empty if the log has none.
    async fn read(&self, id: SessionId) -> Result<Arc<VersionedSession>, LogError> {
        let loaded = load_state::session(&self.pool, id).await?;
        let loaded = loaded.map_or_else(VersionedSession::default, |loaded| VersionedSession {
            session: loaded.session,
            sequence: loaded.sequence,
            global_position: loaded.global_position,
            recent: None,
        });
        Ok(Arc::new(loaded))
    }

    /// The session with all committed events: the cached state plus the events
    /// that other processes appended. If the log does not contain the last event of the
    /// cached state, the memory of this process is discarded.
    pub async fn load_newest(&self, id: SessionId) -> Result<Arc<VersionedSession>, LogError> {
        let Some(cached) = self.cache.get(&id) else {
            return self.load(id).await;
        };
        // Includes the last known event, to find out whether the log still has it.
        let events = read::session(&self.pool, id, cached.sequence - 1).await?;
        let Some((known, tail)) = events.split_first() else {
            return self.read_after_loss(id, &cached).await;
        };
        if (known.sequence, known.global_position) != (cached.sequence, cached.global_position) {
            return self.read_after_loss(id, &cached).await;
        }
        if tail.is_empty() {
            return Ok(cached);
        }
        let mut newest = VersionedSession::clone(&cached);
        for event in tail {
            newest.apply(&event.decode()?.event);
            newest.sequence = event.sequence;
            newest.global_position = event.global_position;
        }
        Ok(self.cache(id, Arc::new(newest)))
    }

    async fn read_after_loss(
        &self,
        id: SessionId,
        cached: &VersionedSession,
    ) -> Result<Arc<VersionedSession>, LogError> {
        self.discard_memory(Some(id), cached.global_position);
        let loaded = self.read(id).await?;
        if loaded.sequence > 0 {
            // Without a comparison: another task may have cached the lost state again.
            self.cache.insert(id, Arc::clone(&loaded));
        }
        Ok(loaded)
    }

    /// Forgets all sessions and recent changes, because the log has lost an event that
    /// this process remembers: probably it has lost the events of other sessions too.
    /// `session` is `None` if it is unknown.
    pub(crate) fn discard_memory(&self, session: Option<SessionId>, global_position: i64) {
        self.cache.clear();
        self.recent_changes.clear();
        self.losses.fetch_add(1, Ordering::Relaxed);
        let session = session.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
        tracing::error!(
            session,
            global_position,
            "reading the log failed: it has lost the event at global position \
             {global_position} of session {session}, which was committed; this process discards \
             its memory and continues with the log as it is"
        );
    }

    /// The session with at least its first `sequence` events. The caller has seen the
    /// last one of them in the log, at `global_position`.
    pub async fn load_at_least(
        &self,
        id: SessionId,
        sequence: i64,
        global_position: i64,
    ) -> Result<Arc<VersionedSession>, LogError> {
        match self.cache.get(&id) {
            Some(cached)
                if (cached.sequence, cached.global_position) == (sequence, global_position) =>
            {
                Ok(cached)
            }
            // Also if the cached state has more events: only the log shows whether they
            // were appended since or are lost.
            _ => self.load_newest(id).await,
        }
    }

    /// Caches a committed state, unless the cache has a newer one. Returns the
    /// newer of the two.
    ///
    /// A session without events is not cached: any client may ask for any id.
    #[must_use]
    pub fn cache(&self, id: SessionId, session: Arc<VersionedSession>) -> Arc<VersionedSession> {
        if session.sequence == 0 {
            return session;
        }
        let entry = self.cache.entry(&id, None, |_, cached| {
            if cached.sequence < session.sequence {
                cached.clone_from(&session);
            }
            EntryAction::Retain(Arc::clone(cached))
        });
        match entry {
            EntryResult::Retained(cached) => return cached,
            EntryResult::Vacant(slot) => drop(slot.insert(Arc::clone(&session))),
            EntryResult::Removed(..) | EntryResult::Replaced(..) | EntryResult::Timeout => {}
        }
        session
    }

    /// Appends the effect of a command and returns the global positions of its
    /// events.
    pub async fn append(&self, append: Append) -> Result<Vec<i64>, AppendError> {
        self.appender.append(append).await
    }

    /// The pool that this repository reads with.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
